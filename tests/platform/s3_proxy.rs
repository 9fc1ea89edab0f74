//! A proxy that loses requests and answers on their way to a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the listening task and the test share.
#[derive(Default)]
struct Shared {
    every: AtomicUsize,
    requests: AtomicUsize,
    failures: AtomicUsize,
}

/// A proxy on loopback, one connection a request.
pub(crate) struct Proxy(Arc<Shared>);

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Through,
    /// The server is busy.
    Refused,
    /// The server never sees it.
    LostRequest,
    /// The server has carried it out, and nobody hears of it.
    LostAnswer,
}

impl Shared {
    fn fate(&self) -> Fate {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let every = self.every.load(Ordering::SeqCst);
        if every == 0 || !number.is_multiple_of(every) {
            return Fate::Through;
        }
        let failure = self.failures.fetch_add(1, Ordering::SeqCst);
        [Fate::LostAnswer, Fate::Refused, Fate::LostRequest, Fate::LostAnswer][failure % 4]
    }
}

impl Proxy {
    pub(crate) async fn start(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // a connection that breaks is what this is for
                let shared = Arc::clone(&accepting);
                tokio::spawn(async move { drop(one_request(client, server, &shared).await) });
            }
        });
        Self(shared)
    }

    /// Every n-th request fails from now on; 0 for none.
    pub(crate) fn fail_every(&self, requests: usize) {
        self.0.every.store(requests, Ordering::SeqCst);
    }

    pub(crate) fn failures(&self) -> usize {
        self.0.failures.load(Ordering::SeqCst)
    }
}

async fn one_request(mut client: TcpStream, server: u16, shared: &Shared) -> std::io::Result<()> {
    let request = read_request(&mut client).await?;
    if request.is_empty() {
        return Ok(());
    }
    let fate = shared.fate();
    if fate == Fate::Refused {
        let answer = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(answer).await;
    }
    if fate == Fate::LostRequest {
        return Ok(());
    }
    let mut upstream = TcpStream::connect(("127.0.0.1", server)).await?;
    upstream.write_all(&request).await?;
    let mut answer = vec![];
    upstream.read_to_end(&mut answer).await?;
    if fate == Fate::Through {
        client.write_all(&answer).await?;
    }
    Ok(())
}

/// A whole request, told to be the last one of its connection.
async fn read_request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(vec![]);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    while bytes.len() < head + 4 + length {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(vec![]);
        }
    }
    drop(bytes.splice(head..head, *b"\r\nConnection: close"));
    Ok(bytes)
}
