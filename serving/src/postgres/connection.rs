//! A connection to PostgreSQL: protocol 3.0, values as text. Statements are sent without waiting for each one's answer.

use std::time::Duration;

use schemas::{Code, Problem};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::address::Address;
use super::messages::{Message, int16, message, text, untagged, value};
use super::scram::Scram;

/// Protocol 3.0.
const PROTOCOL: u32 = 196_608;
/// Longer messages are none.
const MESSAGE_BYTES_MAX: u32 = 64 * 1_048_576;
/// How long the server may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);

/// The values of a row as texts, in PostgreSQL's spelling.
pub type Row = Vec<Option<String>>;

/// Statements that are sent at once.
#[derive(Debug, Default)]
pub(crate) struct Batch(Vec<u8>);

impl Batch {
    /// How large it is.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Names a statement.
    pub(crate) fn parse(&mut self, name: &str, sql: &str) {
        message(&mut self.0, b'P', |out| {
            text(out, name);
            text(out, sql);
            int16(out, 0);
        });
    }

    /// Runs a statement that was named.
    pub(crate) fn run(&mut self, name: &str, values: &[Option<String>]) {
        message(&mut self.0, b'B', |out| {
            text(out, "");
            text(out, name);
            int16(out, 0);
            int16(out, values.len());
            for one in values {
                value(out, one.as_deref());
            }
            int16(out, 0);
        });
        message(&mut self.0, b'E', |out| {
            text(out, "");
            out.extend_from_slice(&[0; 4]);
        });
    }
}

/// An open connection.
pub struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    place: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// `storage_unavailable`, with what the server says.
    pub async fn open(address: &Address) -> Result<Self, Problem> {
        let place = format!("{address:?}");
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, Self::try_open(address, &place)).await;
        connecting.unwrap_or_else(|_| Err(failed(&place, "no answer")))
    }

    async fn try_open(address: &Address, place: &str) -> Result<Self, Problem> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|e| failed(place, e))?;
        stream.set_nodelay(true).map_err(|e| failed(place, e))?;
        let (read, write) = stream.into_split();
        let mut connection = Self { read: BufReader::new(read), write, place: place.to_owned() };
        connection.log_in(address).await?;
        Ok(connection)
    }

    async fn log_in(&mut self, address: &Address) -> Result<(), Problem> {
        let mut start = vec![];
        untagged(&mut start, |out| {
            out.extend_from_slice(&PROTOCOL.to_be_bytes());
            let settings = [
                ("user", address.user.as_str()),
                ("database", &address.database),
                ("application_name", "bifold"),
                ("client_encoding", "UTF8"),
                ("DateStyle", "ISO"),
                ("TimeZone", "UTC"),
            ];
            for (name, value) in settings {
                text(out, name);
                text(out, value);
            }
            out.push(0);
        });
        self.send(&start).await?;
        let mut scram: Option<Scram> = None;
        loop {
            let message = self.receive().await?;
            match message.kind {
                b'R' => self.authenticate(&message, address, &mut scram).await?,
                b'E' => return Err(failed(&self.place, message.error())),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    async fn authenticate(
        &mut self,
        asked: &Message,
        address: &Address,
        scram: &mut Option<Scram>,
    ) -> Result<(), Problem> {
        let password = || {
            let missing = || failed(&self.place, "the server asks for a password, and the url has none");
            address.password.as_deref().ok_or_else(missing)
        };
        let wrong = |what: &str| failed(&self.place, what);
        let body = asked.fields.get(4..).unwrap_or_default();
        let answer = match asked.number() {
            0 => return Ok(()),
            3 => {
                let password = password()?;
                let mut answer = vec![];
                message(&mut answer, b'p', |out| text(out, password));
                answer
            }
            10 => {
                if !body.split(|byte| *byte == 0).any(|name| name == b"SCRAM-SHA-256") {
                    return Err(wrong("the server does not know SCRAM-SHA-256"));
                }
                let begun = Scram::begin(password()?).map_err(|what| wrong(&what))?;
                let first = begun.first();
                *scram = Some(begun);
                let mut answer = vec![];
                message(&mut answer, b'p', |out| {
                    text(out, "SCRAM-SHA-256");
                    value(out, Some(&first));
                });
                answer
            }
            11 => {
                let scram = scram.as_mut().ok_or_else(|| wrong("an answer to nothing"))?;
                let proof = scram.prove(body).map_err(|what| wrong(&what))?;
                let mut answer = vec![];
                message(&mut answer, b'p', |out| out.extend_from_slice(proof.as_bytes()));
                answer
            }
            12 => {
                let scram = scram.as_ref().ok_or_else(|| wrong("an answer to nothing"))?;
                return scram.verify(body).map_err(|what| wrong(&what));
            }
            _ => return Err(wrong("the server asks for a way to log in that is not known here (use scram-sha-256)")),
        };
        self.send(&answer).await
    }

    /// Runs statements that have no values.
    ///
    /// # Errors
    /// What the server says.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, Problem> {
        let mut out = vec![];
        message(&mut out, b'Q', |out| text(out, sql));
        self.exchange(&out).await
    }

    /// Runs one statement with values.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn select(&mut self, sql: &str, values: &[Option<&str>]) -> Result<Vec<Row>, Problem> {
        let mut batch = Batch::default();
        batch.parse("", sql);
        let values: Vec<Option<String>> = values.iter().map(|one| one.map(str::to_owned)).collect();
        batch.run("", &values);
        self.sync(&mut batch).await
    }

    /// Runs a batch, and empties it.
    ///
    /// # Errors
    /// What the server says of the first statement that failed; those behind it were not run.
    pub(crate) async fn execute(&mut self, batch: &mut Batch) -> Result<(), Problem> {
        if batch.0.is_empty() {
            return Ok(());
        }
        self.sync(batch).await.map(|_| ())
    }

    /// Runs one statement and hands each of its rows on as it comes. After an error the connection is of no more use.
    ///
    /// # Errors
    /// What the server says, or `take`.
    pub async fn each_row(
        &mut self,
        sql: &str,
        mut take: impl FnMut(Row) -> Result<(), Problem> + Send,
    ) -> Result<(), Problem> {
        let mut batch = Batch::default();
        batch.parse("", sql);
        batch.run("", &[]);
        message(&mut batch.0, b'S', |_| {});
        self.send(&batch.0).await?;
        answers(&mut self.read, &self.place, &mut take).await
    }

    async fn sync(&mut self, batch: &mut Batch) -> Result<Vec<Row>, Problem> {
        message(&mut batch.0, b'S', |_| {});
        let bytes = std::mem::take(&mut batch.0);
        self.exchange(&bytes).await
    }

    /// Sends while it reads: a server whose answers nobody takes would not read on either.
    async fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Row>, Problem> {
        let place = self.place.clone();
        let (write, read) = (&mut self.write, &mut self.read);
        let exchange = async {
            let mut rows = vec![];
            let mut take = |row| {
                rows.push(row);
                Ok(())
            };
            let send = async { write.write_all(bytes).await.map_err(|e| failed(&place, e)) };
            let (sent, answered) = tokio::join!(send, answers(read, &place, &mut take));
            // an error of the server is why nothing could be sent
            answered?;
            sent.map(|()| rows)
        };
        let exchanged = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
        exchanged.unwrap_or_else(|_| Err(failed(&place, "no answer")))
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.write.write_all(bytes).await.map_err(|e| failed(&self.place, e))
    }

    async fn receive(&mut self) -> Result<Message, Problem> {
        receive(&mut self.read, &self.place).await
    }
}

/// Everything up to "ready for query": each row is handed on; the first error.
async fn answers(
    read: &mut BufReader<OwnedReadHalf>,
    place: &str,
    take: &mut (impl FnMut(Row) -> Result<(), Problem> + Send),
) -> Result<(), Problem> {
    let mut error = None;
    loop {
        let message = receive(read, place).await?;
        match message.kind {
            b'D' => take(message.row().ok_or_else(|| failed(place, "a row that is none"))?)?,
            b'E' => error = error.or_else(|| Some(message.error())),
            // a transaction that has failed ends with ROLLBACK, whatever was asked for
            b'C' if message.fields.starts_with(b"ROLLBACK") => {
                error = error.or_else(|| Some("the transaction was rolled back".to_owned()));
            }
            b'Z' => return error.map_or(Ok(()), |error| Err(failed(place, error))),
            _ => {}
        }
    }
}

async fn receive(read: &mut BufReader<OwnedReadHalf>, place: &str) -> Result<Message, Problem> {
    let message = async {
        let kind = read.read_u8().await?;
        let length = read.read_u32().await?;
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(std::io::Error::other("this is not PostgreSQL"));
        }
        let mut fields = vec![0; length as usize - 4];
        read.read_exact(&mut fields).await?;
        Ok(Message { kind, fields })
    };
    message.await.map_err(|error| failed(place, error))
}

fn failed(place: &str, what: impl std::fmt::Display) -> Problem {
    Problem::new(Code::StorageUnavailable, format!("PostgreSQL at {place}: {what}"))
}
