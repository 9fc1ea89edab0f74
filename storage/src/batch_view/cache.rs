//! Decoded pages, the least recently used one goes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Page;

/// Number of the file, number of the page in it.
type PageId = (usize, usize);

#[derive(Debug)]
pub(super) struct PageCache {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    pages: BTreeMap<PageId, Entry>,
    /// Last use → page.
    uses: BTreeMap<u64, PageId>,
    next_use: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    page: Arc<Page>,
    bytes: usize,
    last_use: u64,
}

impl PageCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), bytes_max }
    }

    pub(super) fn get(&self, id: PageId) -> Option<Arc<Page>> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let entry = inner.pages.get_mut(&id)?;
        inner.uses.remove(&entry.last_use);
        inner.next_use += 1;
        entry.last_use = inner.next_use;
        inner.uses.insert(inner.next_use, id);
        Some(Arc::clone(&entry.page))
    }

    pub(super) fn put(&self, id: PageId, page: Arc<Page>) {
        let bytes = page.bytes();
        let mut inner = self.inner.lock();
        inner.next_use += 1;
        let last_use = inner.next_use;
        if let Some(old) = inner.pages.insert(id, Entry { page, bytes, last_use }) {
            inner.uses.remove(&old.last_use);
            inner.bytes -= old.bytes;
        }
        inner.uses.insert(last_use, id);
        inner.bytes += bytes;
        while inner.bytes > self.bytes_max {
            let Some((_, oldest)) = inner.uses.pop_first() else { break };
            if let Some(entry) = inner.pages.remove(&oldest) {
                inner.bytes -= entry.bytes;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn pages_and_bytes(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        assert_eq!(inner.pages.len(), inner.uses.len());
        (inner.pages.len(), inner.bytes)
    }
}
