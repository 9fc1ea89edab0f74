//! The data folder: one process at a time, its token, its endpoint.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

use crate::config::{ADMIN_TOKEN_FILE, Config, ENDPOINT_FILE};

/// File in the data folder that holds its identity.
const NODE_FILE: &str = "node-id";

/// A data folder that this process owns until it ends.
#[derive(Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
    token: String,
    import_dir: Option<PathBuf>,
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
        // one that a killed process left behind: clients wait for this file, and it is written when all is ready
        match std::fs::remove_file(root.join(ENDPOINT_FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("removing the endpoint file of an earlier process");
            }
            _ => {}
        }
        let token = admin_token(&root, config.auth.token.as_deref())?;
        Ok(Self { root, token, import_dir: config.import_dir.clone(), _lock: lock })
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

    /// Where a stream's ids go that memory has no room for: beside its logs, which they are made of.
    pub(crate) fn ids(&self, stream: Uuid) -> PathBuf {
        self.logs(stream).join("ids")
    }

    /// The same of a stream that is read from a topic: its connector alone uses it.
    pub(crate) fn topic_ids(&self, stream: Uuid) -> PathBuf {
        self.logs(stream).join("topic-ids")
    }

    /// All logs of a stream.
    pub(crate) fn logs(&self, stream: Uuid) -> PathBuf {
        self.root.join("log").join(stream.to_string())
    }

    /// The one folder that `COPY … FROM` reads; none: it reads nothing.
    pub(crate) fn import_folder(&self) -> Option<&Path> {
        self.import_dir.as_deref()
    }

    /// Where file sinks have their folders.
    pub(crate) fn exports(&self) -> PathBuf {
        self.root.join("exports")
    }

    /// Where runs spill.
    pub(crate) fn spill(&self) -> PathBuf {
        self.root.join("spill")
    }

    /// Where pieces of a remote store's objects are kept.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Where large objects are gathered before they go to a remote store.
    pub(crate) fn upload(&self) -> PathBuf {
        self.root.join("upload")
    }

    /// The folder itself, for people.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder's identity: made when it is asked for first, and moved and copied with the folder.
    pub(crate) fn node(&self) -> anyhow::Result<Uuid> {
        let path = self.root.join(NODE_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| format!("{} is no identity", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let node = Uuid::new_v4();
                write_secret(&self.root, &path, &node.to_string()).with_context(|| path.display().to_string())?;
                Ok(node)
            }
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
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

/// The token in force: the configured one, else the one in the folder, which the first start makes.
/// It is in the folder afterwards, readable by its owner only.
fn admin_token(root: &Path, configured: Option<&str>) -> anyhow::Result<String> {
    let path = root.join(ADMIN_TOKEN_FILE);
    let kept = match std::fs::read_to_string(&path) {
        Ok(token) => Some(token.trim().to_owned()).filter(|token| !token.is_empty()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let token = configured.map(str::to_owned).or(kept);
    let token = token.unwrap_or_else(|| format!("bifold_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()));
    write_secret(root, &path, &token).with_context(|| format!("writing {}", path.display()))?;
    Ok(token)
}

/// Replaces a file at once; nobody but its owner can read it, whatever the old one allowed.
fn write_secret(root: &Path, path: &Path, text: &str) -> anyhow::Result<()> {
    // a temporary file has mode 0600
    let mut file = tempfile::NamedTempFile::new_in(root)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn token_in_force_is_in_the_folder_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ADMIN_TOKEN_FILE);
        let made = admin_token(folder.path(), None).unwrap();
        assert_eq!(admin_token(folder.path(), None).unwrap(), made);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(admin_token(folder.path(), Some("configured")).unwrap(), "configured");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "configured");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
