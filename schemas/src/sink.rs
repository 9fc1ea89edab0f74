//! A sink as declared: where the changes of a view are delivered.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Which rows of a view a reader of its changes gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputMode {
    /// The whole view at each step.
    Complete,
    /// The rows that have changed since the step before, and the keys of those that are gone.
    #[default]
    Update,
    /// Each row once, when its window is final; what changes later is a correction.
    Append,
}

impl OutputMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Complete, Self::Update, Self::Append];

    /// As SQL has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Update => "update",
            Self::Append => "append",
        }
    }
}

/// What a sink writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum SinkTarget {
    /// The standard output of the server, a JSON object a line.
    Stdout,
    /// Whole files, in a folder below the server's folder of exports.
    File {
        /// The folder's name.
        path: String,
    },
    /// HTTP requests.
    Webhook {
        /// Where they go.
        url: String,
    },
    /// A table of PostgreSQL.
    Postgres {
        /// `postgres://user:password@host:port/database`
        url: String,
        /// The table, with its schema if it has one.
        table: String,
    },
    /// A topic of Kafka.
    Kafka {
        /// The topic.
        topic: String,
        /// `host:port,…`; the configured ones where none are named.
        brokers: Option<String>,
    },
}

impl SinkTarget {
    /// As SQL has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File { .. } => "file",
            Self::Webhook { .. } => "webhook",
            Self::Postgres { .. } => "postgres",
            Self::Kafka { .. } => "kafka",
        }
    }

    /// Where it is, for people: a password is not shown.
    pub fn place(&self) -> String {
        match self {
            Self::Stdout => "the server's standard output".to_owned(),
            Self::File { path } => path.clone(),
            Self::Webhook { url } => without_password(url),
            Self::Postgres { url, table } => format!("{table} of {}", without_password(url)),
            Self::Kafka { topic, .. } => topic.clone(),
        }
    }
}

/// An address with stars in place of its password.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    let Some(at) = rest[..authority].rfind('@') else { return url.to_owned() };
    match rest[..at].split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{}", &rest[at..]),
        None => url.to_owned(),
    }
}

/// A declared sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkDef {
    /// Names what is stored of it: how far it has delivered.
    pub id: Uuid,
    /// The name in SQL.
    pub name: String,
    /// The view whose changes it delivers.
    pub view: Uuid,
    /// Which rows.
    pub mode: OutputMode,
    /// Where to.
    pub target: SinkTarget,
    /// How often the view is looked at, microseconds.
    pub every_us: i64,
    /// Microseconds since the epoch.
    pub created_at_us: i64,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("postgres://me:secret@host:5432/db", "postgres://me:***@host:5432/db")]
    #[case("postgres://me:a@b@host/db", "postgres://me:***@host/db")]
    #[case("https://host/path?to=a:b@c", "https://host/path?to=a:b@c")]
    #[case("postgres://me@host/db", "postgres://me@host/db")]
    fn password_is_not_shown(#[case] url: &str, #[case] shown: &str) {
        assert_eq!(without_password(url), shown);
    }
}
