//! Large objects go up in parts: a request that fails costs its part, not the whole object.

use std::path::Path as FsPath;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, Result, WriteMultipart};
use tokio::io::AsyncReadExt;

/// Bytes that go up in one request, and of a part of what is larger.
const PART_BYTES: usize = 16 * 1_048_576;
/// Parts of one object that are under way.
const PARTS_AT_ONCE: usize = 4;

/// Writes or overwrites an object. It is there as a whole or, after an error, as it was before.
pub(crate) async fn put(store: &dyn ObjectStore, path: &Path, bytes: Bytes) -> Result<()> {
    put_in_parts(store, path, bytes, PART_BYTES).await
}

async fn put_in_parts(store: &dyn ObjectStore, path: &Path, bytes: Bytes, part_bytes: usize) -> Result<()> {
    if bytes.len() <= part_bytes {
        return store.put(path, bytes.into()).await.map(drop);
    }
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(path).await?, part_bytes);
    for start in (0..bytes.len()).step_by(part_bytes) {
        if let Err(error) = upload.wait_for_capacity(PARTS_AT_ONCE).await {
            // parts that remain are of no harm, and go with the bucket's own rule for unfinished uploads
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.put(bytes.slice(start..bytes.len().min(start + part_bytes)));
    }
    upload.finish().await.map(drop)
}

/// [`put`] for the bytes of a local file, of which a few parts are in memory.
pub(crate) async fn put_file(store: &dyn ObjectStore, path: &Path, file: &FsPath) -> Result<()> {
    put_file_in_parts(store, path, file, PART_BYTES).await
}

async fn put_file_in_parts(store: &dyn ObjectStore, path: &Path, file: &FsPath, part_bytes: usize) -> Result<()> {
    let failed = |cause: std::io::Error| Error::Generic { store: "scratch", source: cause.into() };
    let mut file = tokio::fs::File::open(file).await.map_err(failed)?;
    let first = read_part(&mut file, part_bytes).await.map_err(failed)?;
    if first.len() < part_bytes {
        return store.put(path, first.into()).await.map(drop);
    }
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(path).await?, part_bytes);
    let mut part = first;
    while !part.is_empty() {
        let ready = match upload.wait_for_capacity(PARTS_AT_ONCE).await {
            Ok(()) => {
                upload.put(part);
                read_part(&mut file, part_bytes).await.map_err(failed)
            }
            Err(error) => Err(error),
        };
        part = match ready {
            Ok(next) => next,
            Err(error) => {
                let _ = upload.abort().await;
                return Err(error);
            }
        };
    }
    upload.finish().await.map(drop)
}

/// The next bytes of a file: fewer than a part at its end only.
async fn read_part(file: &mut tokio::fs::File, part_bytes: usize) -> std::io::Result<Bytes> {
    let mut part = BytesMut::with_capacity(part_bytes);
    let mut rest = file.take(part_bytes as u64);
    while rest.read_buf(&mut part).await? > 0 {}
    Ok(part.freeze())
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing(0)]
    #[case::one_request(99)]
    #[case::a_whole_part(100)]
    #[case::a_part_and_a_byte(101)]
    #[case::many_parts(1_234)]
    #[tokio::test]
    async fn object_is_what_was_put(#[case] length: usize) {
        let store = InMemory::new();
        let bytes: Bytes = (0..length).map(|at| at as u8).collect();
        put_in_parts(&store, &Path::from("a/b"), bytes.clone(), 100).await.unwrap();
        assert_eq!(store.get(&Path::from("a/b")).await.unwrap().bytes().await.unwrap(), bytes);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        put_file_in_parts(&store, &Path::from("a/c"), file.path(), 100).await.unwrap();
        assert_eq!(store.get(&Path::from("a/c")).await.unwrap().bytes().await.unwrap(), bytes);
    }
}
