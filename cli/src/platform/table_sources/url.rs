//! What an address says. A server that asks for whatever address it is told is a way around a wall: so an address of this
//! machine or of a network that is not public is asked only where the configuration says so, and nobody can send the
//! request on to another one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use schemas::limits::TABLE_BYTES_MAX;
use schemas::{Code, Problem};

/// The text behind an address; `place` is what is shown of it.
pub(super) async fn text(place: &str, url: &str, private: bool) -> Result<String, Problem> {
    let client = Asked { place, private };
    let url = Url::parse(url).map_err(|error| client.wrong(error))?;
    let answer = client.ask(url).await?;
    client.whole(answer).await
}

/// An address that is asked.
struct Asked<'a> {
    place: &'a str,
    private: bool,
}

impl Asked<'_> {
    fn wrong(&self, what: impl std::fmt::Display) -> Problem {
        Problem::new(Code::InvalidSql, format!("{}: {what}", self.place))
    }

    fn failed(&self, what: impl std::fmt::Display) -> Problem {
        Problem::new(Code::StorageUnavailable, format!("{}: {what}", self.place))
    }

    async fn ask(&self, url: Url) -> Result<Response, Problem> {
        let host = url.host_str().ok_or_else(|| self.wrong("no host"))?.to_owned();
        let addresses = self.addresses(&url, &host).await?;
        // the addresses that were looked at are the ones that are asked, whatever the name says by then
        let client = Client::builder().redirect(Policy::none()).no_proxy().resolve_to_addrs(&host, &addresses).build();
        let client = client.map_err(|error| Problem::new(Code::Internal, format!("a client for HTTP: {error}")))?;
        let answer = client.get(url).send().await.map_err(|error| self.failed(causes(&error.without_url())))?;
        if answer.status().is_redirection() {
            let problem = self.wrong(format_args!("answered {}: another address is not asked", answer.status()));
            return Err(problem.with_hint("write the address that it points to"));
        }
        if !answer.status().is_success() {
            return Err(self.failed(format_args!("answered {}", answer.status())));
        }
        Ok(answer)
    }

    /// Where the name is, if that may be asked.
    async fn addresses(&self, url: &Url, host: &str) -> Result<Vec<SocketAddr>, Problem> {
        let port = url.port_or_known_default().ok_or_else(|| self.wrong("no port"))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, port)).await;
        let found: Vec<SocketAddr> = found.map_err(|error| self.failed(error))?.collect();
        if found.is_empty() {
            return Err(self.failed("the name has no address"));
        }
        if self.private || found.iter().all(|address| is_public(address.ip())) {
            return Ok(found);
        }
        let what = "an address of this machine, or of a network that is not public, is not asked";
        let problem = Problem::new(Code::Forbidden, format!("{}: {what}", self.place));
        Err(problem.with_hint("set private_urls = true in bifold.toml if whoever creates tables may reach it"))
    }

    async fn whole(&self, mut answer: Response) -> Result<String, Problem> {
        let mut bytes = vec![];
        while let Some(part) = answer.chunk().await.map_err(|error| self.failed(causes(&error.without_url())))? {
            if bytes.len() + part.len() > TABLE_BYTES_MAX {
                return Err(self.wrong(format_args!("more than {TABLE_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&part);
        }
        String::from_utf8(bytes).map_err(|_| self.wrong("not a text in UTF-8"))
    }
}

/// An error with what led to it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// True for an address that everybody reaches alike (the special ones are those of RFC 6890 and RFC 4193).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b == 18 || b == 19);
            let special = a == 0 || a >= 224 || shared || benchmark || v4.octets().starts_with(&[192, 0, 0]);
            !(special || v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_documentation())
        }
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => is_public(v4),
            // global unicast, and nothing else
            None => v6.segments()[0] & 0xe000 == 0x2000 && v6.segments()[..2] != [0x2001, 0x0db8],
        },
    }
}

/// The older address that one of these stands for: mapped, translated (RFC 6052), or 6to4.
fn embedded(address: Ipv6Addr) -> Option<IpAddr> {
    let octets = address.octets();
    let v4 = |at: usize| octets.get(at..at + 4).and_then(|four| <[u8; 4]>::try_from(four).ok()).map(IpAddr::from);
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x0064, 0xff9b, 0, 0, 0, 0, ..] => v4(12),
        [0x2002, ..] => v4(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("93.184.216.34", true)]
    #[case("127.0.0.1", false)]
    #[case("10.1.2.3", false)]
    #[case("172.16.0.1", false)]
    #[case("192.168.1.1", false)]
    #[case("169.254.169.254", false)]
    #[case("100.64.0.1", false)]
    #[case("0.0.0.0", false)]
    #[case("224.0.0.1", false)]
    #[case("255.255.255.255", false)]
    #[case("2606:2800:220:1::1", true)]
    #[case("::1", false)]
    #[case("::", false)]
    #[case("fe80::1", false)]
    #[case("fd00::1", false)]
    #[case("ff02::1", false)]
    #[case("::ffff:127.0.0.1", false)]
    #[case("::ffff:93.184.216.34", true)]
    #[case("64:ff9b::a9fe:a9fe", false)]
    #[case("2002:7f00:1::", false)]
    fn only_public_addresses_are(#[case] address: &str, #[case] public: bool) {
        assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
    }

    /// what a table is loaded from is no way into the machine.
    #[tokio::test]
    async fn addresses_of_this_machine_are_not_asked_unless_allowed() {
        for url in ["http://127.0.0.1:1/d.csv", "http://localhost:1/d.csv", "http://[::1]:1/d.csv"] {
            let problem = text("the place", url, false).await.unwrap_err();
            assert_eq!(problem.code, Code::Forbidden, "{url}: {}", problem.text());
            let problem = text("the place", url, true).await.unwrap_err();
            assert_eq!(problem.code, Code::StorageUnavailable, "{url}: {}", problem.text());
        }
    }
}
