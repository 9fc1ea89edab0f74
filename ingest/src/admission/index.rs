//! Which identities were kept lately: two generations, so that expiry drops a whole table.

use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::HashMap;

use crate::identity::Identity;

/// The identity in two halves: aligned to 8 bytes, an entry takes 24 and not 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    high: u64,
    low: u64,
}

impl From<Identity> for Key {
    fn from(identity: Identity) -> Self {
        Self { high: (identity >> 64) as u64, low: identity as u64 }
    }
}

impl Hash for Key {
    /// An identity is a hash already. The high half chose the partition, so the low one it is.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low);
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct AsItIs(u64);

impl BuildHasher for AsItIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }
}

/// Identity → append time of the record that was kept, microseconds.
///
/// An entry is good for the horizon to the microsecond; its memory is given back within twice that.
#[derive(Debug)]
pub(crate) struct Index {
    horizon_us: i64,
    current: HashMap<Key, i64, AsItIs>,
    previous: HashMap<Key, i64, AsItIs>,
    /// When `current` was begun; everything in `previous` was kept before.
    begun_us: i64,
}

impl Index {
    pub(crate) fn new(horizon_us: i64, now_us: i64) -> Self {
        Self { horizon_us, current: HashMap::default(), previous: HashMap::default(), begun_us: now_us }
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.current.len() + self.previous.len()
    }

    /// Forgets what is past the horizon as a whole.
    pub(crate) fn expire(&mut self, now_us: i64) {
        let age_us = now_us.saturating_sub(self.begun_us);
        if age_us <= self.horizon_us {
            return;
        }
        self.previous = std::mem::take(&mut self.current);
        if age_us.saturating_sub(self.horizon_us) > self.horizon_us {
            self.previous = HashMap::default();
        }
        self.begun_us = now_us;
    }

    /// Remembers an identity at `now_us`; false if it is within the horizon of an earlier one.
    pub(crate) fn keep(&mut self, identity: Identity, now_us: i64) -> bool {
        let key = Key::from(identity);
        let since_us = now_us.saturating_sub(self.horizon_us);
        if self.previous.get(&key).is_some_and(|kept_us| *kept_us >= since_us) {
            return false;
        }
        match self.current.entry(key) {
            hashbrown::hash_map::Entry::Occupied(entry) if *entry.get() >= since_us => false,
            entry => {
                entry.insert(now_us);
                true
            }
        }
    }

    /// Remembers, on recovery, what was kept before `current` began.
    pub(crate) fn remember(&mut self, identity: Identity, kept_us: i64) {
        self.previous.insert(identity.into(), kept_us);
    }

    /// Takes a [`Index::keep`] back.
    pub(crate) fn forget(&mut self, identity: Identity) {
        self.current.remove(&Key::from(identity));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_good_for_the_horizon_exactly() {
        let mut index = Index::new(100, 0);
        assert!(index.keep(7, 10));
        for now_us in [10, 50, 110] {
            index.expire(now_us);
            assert!(!index.keep(7, now_us), "at {now_us}");
        }
        assert!(index.keep(7, 111));
        assert!(!index.keep(7, 211));
    }

    #[test]
    fn memory_is_given_back() {
        let mut index = Index::new(100, 0);
        for i in 0..1_000_u32 {
            let now_us = i64::from(i) * 10;
            index.expire(now_us);
            assert!(index.keep(Identity::from(i), now_us));
            assert!(index.len() <= 24, "{}", index.len());
        }
        index.expire(100_000);
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let mut index = Index::new(100, 0);
        assert!(index.keep(7, 1));
        index.forget(7);
        assert!(index.keep(7, 2));
    }
}
