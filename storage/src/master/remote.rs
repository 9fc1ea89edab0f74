//! A file in an object store, of which only the ranges that are needed are fetched.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use object_store::ObjectStoreExt;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::place::Place;
use crate::error::StorageError;

/// Bytes of the file's end that are fetched at once for its metadata.
const FOOTER_BYTES: u64 = 65_536;

/// A remote file with the ranges of it that are here.
#[derive(Debug, Clone)]
pub(super) struct RemoteFile {
    place: Arc<Place>,
    name: Arc<str>,
    size: u64,
    here: Vec<(u64, Bytes)>,
}

impl RemoteFile {
    /// Nothing of it is here.
    pub(super) fn new(place: Arc<Place>, name: &str, size: u64) -> Self {
        Self { place, name: name.into(), size, here: Vec::new() }
    }

    /// The file with its end.
    pub(super) fn with_footer(&self) -> Result<Self, StorageError> {
        self.with_ranges(std::iter::once(self.size.saturating_sub(FOOTER_BYTES)..self.size))
    }

    /// The file with these ranges.
    pub(super) fn with_ranges(&self, ranges: impl Iterator<Item = Range<u64>>) -> Result<Self, StorageError> {
        let (store, path) = (self.place.store.clone(), self.place.object_path(&self.name)?);
        let ranges: Vec<Range<u64>> = ranges.collect();
        let starts: Vec<u64> = ranges.iter().map(|range| range.start).collect();
        let fetched = self.place.wait(async move { store.get_ranges(&path, &ranges).await });
        let fetched = fetched.map_err(|e| StorageError::io(format!("reading {}", self.name), e))?;
        Ok(Self { here: starts.into_iter().zip(fetched).collect(), ..self.clone() })
    }

    fn from(&self, start: u64) -> Option<Bytes> {
        let (at, bytes) = self.here.iter().find(|(at, bytes)| (*at..*at + bytes.len() as u64).contains(&start))?;
        Some(bytes.slice(usize::try_from(start - at).ok()?..))
    }

    fn fetch(&self, range: Range<u64>) -> Result<Bytes, ParquetError> {
        let external = |e: StorageError| ParquetError::External(Box::new(e));
        let path = self.place.object_path(&self.name).map_err(external)?;
        let store = self.place.store.clone();
        let fetched = self.place.wait(async move { store.get_range(&path, range).await });
        fetched.map_err(|e| ParquetError::External(Box::new(e)))
    }
}

impl Length for RemoteFile {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for RemoteFile {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        match self.from(start) {
            Some(bytes) => Ok(bytes.reader()),
            None => Ok(self.fetch(start..self.size)?.reader()),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self.from(start) {
            Some(bytes) if bytes.len() >= length => Ok(bytes.slice(..length)),
            _ => self.fetch(start..start + length as u64),
        }
    }
}
