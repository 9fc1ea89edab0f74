//! Where the rows of a table come from.

use serde::{Deserialize, Serialize};

use crate::sink::without_password;

/// Where the rows of a table come from. A file is a bare text in stored documents: those that were written before there
/// was anything else have it so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TableSource {
    /// `FROM FILE '…'`: CSV that is sent with the statement.
    File(String),
    /// `FROM URL '…'`: CSV that the server asks for.
    Url {
        /// `https://host/path`
        url: String,
    },
    /// `FROM POSTGRES '…' TABLE '…'` or `QUERY '…'`: rows of a database that the server asks for.
    Postgres {
        /// `postgres://user:password@host:port/database`
        postgres: String,
        /// What is read there.
        read: PostgresRead,
    },
}

/// What is read of a PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostgresRead {
    /// A table, with its schema if it has one.
    Table(String),
    /// What a query gives.
    Query(String),
}

/// When each row of a table is valid: `WITH (valid_from = '…', valid_to = '…')`. Of rows of one key, one is valid at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// The column that says from when on.
    pub from: String,
    /// The column that says until when, that time left out; null: for ever. None: until the next row of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The columns of `PRIMARY KEY` but `from`.
    pub key: Vec<String>,
}

impl TableSource {
    /// True if the server can read it again by itself.
    pub fn is_read_by_the_server(&self) -> bool {
        !matches!(self, Self::File(_))
    }

    /// Where it is, for people: without password, and without the parameters of an address, which may be a key to it.
    pub fn place(&self) -> String {
        match self {
            Self::File(name) => name.clone(),
            Self::Url { url } => without_parameters(&without_user(url)),
            Self::Postgres { postgres, .. } => without_password(postgres),
        }
    }
}

/// An address with stars in place of who asks: a token is often the user, without a password.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => url.to_owned(),
    }
}

/// An address with stars in place of its parameters.
fn without_parameters(url: &str) -> String {
    match url.split_once('?') {
        Some((place, parameters)) if !parameters.is_empty() => format!("{place}?***"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn postgres(url: &str) -> TableSource {
        TableSource::Postgres { postgres: url.into(), read: PostgresRead::Table("t".into()) }
    }

    #[rstest]
    #[case(TableSource::File("a:b@c.csv".into()), "a:b@c.csv")]
    #[case(TableSource::Url { url: "https://host/d.csv".into() }, "https://host/d.csv")]
    #[case(TableSource::Url { url: "https://me:x@host/d.csv?key=x".into() }, "https://***@host/d.csv?***")]
    #[case(TableSource::Url { url: "https://token@host/d.csv".into() }, "https://***@host/d.csv")]
    #[case(TableSource::Url { url: "https://host/me@home.csv".into() }, "https://host/me@home.csv")]
    #[case(postgres("postgres://me:x@host/db"), "postgres://me:***@host/db")]
    fn a_place_shows_no_secret(#[case] source: TableSource, #[case] shown: &str) {
        assert_eq!(source.place(), shown);
    }

    #[rstest]
    #[case(TableSource::File("d.csv".into()), r#""d.csv""#)]
    #[case(TableSource::Url { url: "https://host/d.csv".into() }, r#"{"url":"https://host/d.csv"}"#)]
    #[case(postgres("postgres://me@host"), r#"{"postgres":"postgres://me@host","read":{"table":"t"}}"#)]
    fn sources_are_stored(#[case] source: TableSource, #[case] json: &str) {
        assert_eq!(serde_json::to_string(&source).unwrap(), json);
        assert_eq!(serde_json::from_str::<TableSource>(json).unwrap(), source);
    }
}
