//! `postgres://user:password@host:port/database`

use schemas::{Code, Problem};
use url::Url;

/// The port that PostgreSQL listens on.
const PORT: u16 = 5432;

/// Where a database is, and how to be let in.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) database: String,
}

/// The password is not shown.
impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl Address {
    /// Reads the text of an address.
    ///
    /// # Errors
    /// `invalid_sql`: it is none, or it asks for something that is not there.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |what: String| Problem::new(Code::InvalidSql, format!("address of PostgreSQL: {what}"));
        let url = Url::parse(text).map_err(|e| bad(e.to_string()))?;
        for (name, value) in url.query_pairs() {
            match (name.as_ref(), value.as_ref()) {
                ("sslmode", "disable" | "allow" | "prefer") => {}
                ("sslmode", other) => {
                    let problem = Problem::new(
                        Code::Unsupported,
                        format!("address of PostgreSQL: sslmode={other} is not supported"),
                    );
                    return Err(
                        problem.with_hint("reach PostgreSQL over a network that you trust, or through a tunnel")
                    );
                }
                (other, _) => return Err(bad(format!("unknown parameter {other}"))),
            }
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("no host".into()))?;
        let user = decoded(url.username());
        if user.is_empty() {
            return Err(bad("no user".into()).with_hint("write postgres://user:password@host:5432/database"));
        }
        let database = decoded(url.path().trim_start_matches('/'));
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(PORT),
            password: url.password().map(decoded),
            database: if database.is_empty() { user.clone() } else { database },
            user,
        })
    }
}

/// Percent signs and what follows them as the bytes that they stand for (RFC 3986).
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (vec![], 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_read_and_its_password_is_not_shown() {
        let address = Address::parse("postgres://me:a%40b%25@db.example:5433/shop?sslmode=prefer").unwrap();
        assert_eq!(address.password.as_deref(), Some("a@b%"));
        assert_eq!(format!("{address:?}"), "me@db.example:5433/shop");
        let short = Address::parse("postgres://me@[::1]").unwrap();
        assert_eq!((short.host.as_str(), short.port, short.database.as_str()), ("::1", 5432, "me"));
        for bad in ["postgres://host/db", "postgres://me@host/db?sslmode=require", "postgres://me@host/db?x=1", "x"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
