//! Configuration: built-in < `bifold.toml` < environment (`BIFOLD__SECTION__KEY`) < flags.
//! An unknown key is an error; every value knows where it came from.

mod kafka;
mod sources;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use schemas::Limits;
use serde::{Deserialize, Serialize};
use url::Url;

pub use kafka::KafkaSection;
pub use sources::{Origin, Sources};

use crate::exit::{Exit, fail};

/// The port that `bifold` listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 4480;
/// File in the data folder that holds the server's URL while it runs.
pub const ENDPOINT_FILE: &str = "endpoint";
/// Schemes of `store_url`.
const STORE_SCHEMES: [&str; 6] = ["s3", "gs", "az", "abfss", "file", "memory"];
/// File in the data folder that holds the admin token.
pub const ADMIN_TOKEN_FILE: &str = "admin-token";

/// What one process runs, where, and within which bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of the log, of the deltas, and of everything else unless `store_url` says otherwise.
    pub data_dir: PathBuf,
    /// Where the HTTP interface listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What this process does.
    #[serde(deserialize_with = "roles")]
    pub roles: Vec<Role>,
    /// Object store of everything but the log: `s3://…`, `gs://…`, `az://…`, `file://…`; credentials come from
    /// the environment. None: the data folder.
    pub store_url: Option<String>,
    /// For a node that only answers queries: the node that writes to the store, asked for what is newest.
    pub owner_url: Option<String>,
    /// The one folder of this machine that `COPY … FROM 'file'` reads; none: it reads nothing.
    pub import_dir: Option<PathBuf>,
    /// True if `CREATE TABLE … FROM URL` may ask addresses of this machine and of networks that are not public.
    pub private_urls: bool,
    /// Bounds.
    pub limits: Limits,
    /// The log of the process (not of events).
    pub log: LogConfig,
    /// Access.
    pub auth: AuthConfig,
    /// The Kafka cluster.
    pub kafka: KafkaSection,
}

/// A part of the platform that a process can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes events in.
    Ingest,
    /// Folds what just happened.
    Speed,
    /// Recomputes from all of history.
    Batch,
    /// Answers queries.
    Serving,
}

impl Role {
    /// All of them: what a process runs unless told otherwise.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Speed, Self::Batch, Self::Serving];
}

/// Section `log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or a filter such as `info,speed=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the process's log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Section `auth`.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The admin token; none: the one in the data folder, which the first start makes.
    pub token: Option<String>,
    /// The admin token of the node at `owner_url`; none: the same as this node's.
    pub owner_token: Option<String>,
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |token: &Option<String>| token.as_ref().map(|_| "…");
        f.debug_struct("AuthConfig")
            .field("token", &hidden(&self.token))
            .field("owner_token", &hidden(&self.owner_token))
            .finish()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./bifold-data"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            roles: Role::ALL.to_vec(),
            store_url: None,
            owner_url: None,
            import_dir: None,
            private_urls: false,
            limits: Limits::default(),
            log: LogConfig { level: "info".into(), format: LogFormat::Text },
            auth: AuthConfig::default(),
            kafka: KafkaSection::default(),
        }
    }
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`Exit::Usage`] naming the file, the key and what was wrong with it.
    pub fn load(sources: &Sources) -> anyhow::Result<Self> {
        let config: Self = sources.extract()?;
        config.check()?;
        Ok(config)
    }

    /// Where master and batch views are: `store_url`, or the data folder as a `file:` URL.
    ///
    /// # Errors
    /// If `store_url` is no URL or the data folder has no absolute path.
    pub fn object_store_url(&self) -> anyhow::Result<Url> {
        if let Some(text) = &self.store_url {
            return Url::parse(text).with_context(|| format!("store_url: `{text}` is no URL"));
        }
        let folder = std::path::absolute(&self.data_dir)
            .with_context(|| format!("data_dir: {} has no absolute path", self.data_dir.display()))?;
        Url::from_directory_path(&folder)
            .map_err(|()| anyhow::anyhow!("data_dir: {} has no absolute path", folder.display()))
    }

    /// True if this process has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// True for a node that reads everything from a shared store and writes nothing to it.
    pub fn only_answers(&self) -> bool {
        self.roles.iter().all(|role| *role == Role::Serving)
    }

    /// Refuses roles that cannot work together.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub fn check_roles(&self) -> anyhow::Result<()> {
        if self.only_answers() {
            if self.store_url.is_none() {
                return fail(
                    Exit::Usage,
                    "roles: serving alone answers from a store that another node writes to: set store_url to that store",
                );
            }
            return Ok(());
        }
        if self.owner_url.is_some() {
            return fail(Exit::Usage, "owner_url: only a node with the role serving alone asks another one");
        }
        if [Role::Ingest, Role::Speed, Role::Batch].iter().all(|role| self.has(*role)) {
            return Ok(());
        }
        fail(
            Exit::Usage,
            "roles: ingest, speed and batch work on one log in one data folder: give them to one node together (with or              without serving), and serving alone to others",
        )
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.roles.is_empty() {
            return fail(Exit::Usage, "roles: at least one of ingest, speed, batch, serving");
        }
        if self.limits.runs_kept < 2 {
            return fail(Exit::Usage, "limits.runs_kept: at least 2, so that a rollback has somewhere to go");
        }
        match self.object_store_url() {
            Err(error) => return fail(Exit::Usage, format!("{error:#}")),
            Ok(url) if !STORE_SCHEMES.contains(&url.scheme()) => {
                let known = STORE_SCHEMES.join(", ");
                return fail(Exit::Usage, format!("store_url: `{}` is not one of {known}", url.scheme()));
            }
            Ok(_) => {}
        }
        if let Some(text) = self.owner_url.as_ref().filter(|text| Url::parse(text).is_err()) {
            return fail(Exit::Usage, format!("owner_url: `{text}` is no URL"));
        }
        Ok(())
    }
}

/// Roles as a list, or as one text with commas (environment variables).
fn roles<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Role>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    let words = match Words::deserialize(deserializer)? {
        Words::One(text) => text.split(',').map(|word| word.trim().to_owned()).collect(),
        Words::Many(words) => words,
    };
    let mut roles = words.iter().map(|word| role(word)).collect::<Result<Vec<_>, _>>()?;
    roles.sort_unstable();
    roles.dedup();
    Ok(roles)
}

fn role<E: serde::de::Error>(word: &str) -> Result<Role, E> {
    clap::ValueEnum::from_str(word, false)
        .map_err(|_| E::custom(format!("no role `{word}`: there are ingest, speed, batch, serving")))
}

#[cfg(test)]
mod tests;
