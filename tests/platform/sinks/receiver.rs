//! An HTTP server of the test's own that takes what a webhook sends, or refuses it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::Value;

/// What has come.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// How many of the next requests are refused.
    pub(crate) refuse: u32,
    /// Parcels by key, each with its first body, in the order of their first coming.
    pub(crate) parcels: Vec<(String, Value)>,
    known: BTreeMap<String, String>,
    /// Parcels that came again.
    pub(crate) again: u32,
    /// Parcels that came again with another body.
    pub(crate) changed: u32,
}

/// A receiver.
pub(crate) struct Receiver {
    pub(crate) url: String,
    pub(crate) book: Arc<Mutex<Book>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let book: Arc<Mutex<Book>> = Arc::default();
        let router = Router::new().route("/hook", post(take)).with_state(Arc::clone(&book));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, book }
    }
}

/// Takes a parcel, and may refuse it all the same: the sender cannot know that it has arrived.
async fn take(State(book): State<Arc<Mutex<Book>>>, headers: HeaderMap, body: String) -> StatusCode {
    let mut book = book.lock();
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    if let Some(is_same) = book.known.get(&key).map(|known| *known == body) {
        book.again += 1;
        book.changed += u32::from(!is_same);
    } else {
        let parcel = serde_json::from_str(&body).unwrap();
        book.parcels.push((key.clone(), parcel));
        book.known.insert(key, body);
    }
    if book.refuse > 0 {
        book.refuse -= 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    StatusCode::NO_CONTENT
}
