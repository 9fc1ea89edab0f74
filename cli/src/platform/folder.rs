//! The data folder: one process at a time, its token, its endpoint.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

use crate::config::{ADMIN_TOKEN_FILE, Config, ENDPOINT_FILE};

/// A data folder that this process owns until it ends.
#[derive(Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
    token: String,
    /// Held as long as the platform runs.
    _lock: File,
}

impl DataFolder {
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let root = std::path::absolute(&config.data_dir)?;
        std::fs::create_dir_all(&root).with_context(|| format!("data folder {}", root.display()))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(root.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "data folder {}: another bifold is running on it{}; stop that one, or choose another folder with --data-dir",
                root.display(),
                running_at(&root)
            ),
            Err(TryLockError::Error(error)) => return Err(error).context("locking the data folder"),
        }
        let token = match &config.auth.token {
            Some(token) => token.clone(),
            None => admin_token(&root)?,
        };
        Ok(Self { root, token, _lock: lock })
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.root.join(ADMIN_TOKEN_FILE)
    }

    /// Where a stream's logs are.
    pub(crate) fn log(&self, stream: Uuid, kind: &str) -> PathBuf {
        self.root.join("log").join(stream.to_string()).join(kind)
    }

    /// Both logs of a stream.
    pub(crate) fn logs(&self, stream: Uuid) -> PathBuf {
        self.root.join("log").join(stream.to_string())
    }

    /// Where runs spill.
    pub(crate) fn spill(&self) -> PathBuf {
        self.root.join("spill")
    }

    /// Tells clients on this machine where the server is.
    pub(crate) fn announce(&self, url: &str) -> anyhow::Result<()> {
        std::fs::write(self.root.join(ENDPOINT_FILE), url).context("writing the endpoint file")
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        // a client that finds no endpoint says that nothing runs; a stale one would say "refused"
        let _ = std::fs::remove_file(self.root.join(ENDPOINT_FILE));
    }
}

fn running_at(root: &Path) -> String {
    std::fs::read_to_string(root.join(ENDPOINT_FILE)).map(|url| format!(" ({url})")).unwrap_or_default()
}

/// The token in the folder; the first start makes it, readable by its owner only.
fn admin_token(root: &Path) -> anyhow::Result<String> {
    let path = root.join(ADMIN_TOKEN_FILE);
    match std::fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => return Ok(token.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    }
    let token = format!("bifold_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).with_context(|| format!("writing {}", path.display()))?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    Ok(token)
}
