//! Reads bodies on a thread of its own, a few ahead of the one that is being sent.

use std::io;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::bodies::Body;

/// Bodies read ahead.
const AHEAD: usize = 2;

/// Bodies that come from a reading thread. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Feed {
    receiver: mpsc::Receiver<io::Result<Body>>,
}

impl Feed {
    /// Starts to read.
    pub fn start(bodies: impl Iterator<Item = io::Result<Body>> + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        // Ends by itself with the input, or when the receiver is gone; errors travel in the channel.
        drop(tokio::task::spawn_blocking(move || {
            for body in bodies {
                if sender.blocking_send(body).is_err() {
                    break;
                }
            }
        }));
        Self { receiver }
    }

    /// The next body; none at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Body>> {
        Ok(self.receiver.recv().await.transpose()?)
    }

    /// The same, for streams.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<anyhow::Result<Body>>> {
        self.receiver.poll_recv(context).map(|next| next.map(|body| Ok(body?)))
    }
}
