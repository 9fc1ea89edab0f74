//! Durable files: written beside their place, synced, then linked or renamed into it, folder synced.
//!
//! A reader sees the whole file or none, also after `kill -9` or a power loss. Half-written files are
//! called `<name>#<number>`, which the listings of `object_store` leave out.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Creates a file with these bytes; `AlreadyExists` if there is one.
///
/// # Errors
/// The file is there as a whole or not at all.
pub fn create_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A look first: it spares the writing of what would be refused; the link below decides.
    if path.try_exists()? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let temporary = write_beside(path, bytes)?;
    let linked = fs::hard_link(&temporary, path);
    // What could not be removed is swept at the next start.
    let _ = fs::remove_file(&temporary);
    linked?;
    // What is not known to stay is taken back: who tries again would take it for somebody else's.
    sync_folder(path).inspect_err(|_| drop(fs::remove_file(path)))
}

/// Writes a file with these bytes in place of what was there.
///
/// # Errors
/// The file is the old one or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, bytes)?;
    fs::rename(&temporary, path)?;
    sync_folder(path)
}

/// Moves a file that was written by other means (and beside its place) into it, durably.
///
/// # Errors
/// The file is not in its place, or not yet durably.
pub fn publish(temporary: &Path, path: &Path) -> io::Result<()> {
    File::open(temporary)?.sync_all()?;
    fs::rename(temporary, path)?;
    sync_folder(path)
}

/// A name beside `path` that no listing shows; its folder exists afterwards.
///
/// # Errors
/// The folder could not be made.
pub fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    // All digits after `#`: the mark by which object_store's listing knows an unfinished file.
    name.push(format!("#{}{:06}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(name))
}

/// Creates a folder with its parents, each entry durable.
///
/// # Errors
/// A folder could not be made or synced.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(cause) => Err(cause),
        Ok(()) => sync_folder(folder),
    }
}

/// Makes the entry of `path` in its folder durable.
///
/// # Errors
/// The folder could not be synced.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Removes the half-written files below a folder.
///
/// # Errors
/// A folder could not be read or a file not removed.
pub fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sweep(&entry.path())?;
        } else if is_unfinished(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_unfinished(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, end)| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit()))
}

fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let temporary = temporary_beside(path)?;
    let written = (|| {
        let mut file = File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    match written {
        Ok(()) => Ok(temporary),
        Err(cause) => {
            // What could not be removed is swept at the next start.
            let _ = fs::remove_file(&temporary);
            Err(cause)
        }
    }
}
