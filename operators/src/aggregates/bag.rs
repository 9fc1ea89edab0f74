//! Canonical multisets and sets of values, with a bound: what `DISTINCT`, exact percentiles, ranks and
//! lists keep per group.
//!
//! ```text
//! entries:  [ sorted, each value once | unsorted tail ]      over the cap: nothing but a mark
//!                                        │ as long as the sorted part: sort, merge, add up
//! ```
//!
//! Past its cap a bag forgets its values and stays marked. The cap counts different values and their
//! bytes, which only grow when bags are merged, so whether a bag is over depends on the multiset alone:
//! the mark absorbs, and ⊕ stays associative and free of order.
//!
//! State, version 1: empty for no value; the byte `0xFF` past the cap; else the byte `1`, the number of
//! different values, and each value in ascending order, with its count if the bag counts. Numbers are
//! LEB128, integers differences to the value before.

mod key;
mod varint;

use datafusion::common::{Result, exec_datafusion_err};

use self::key::Arena;
pub(crate) use self::key::{Key, Span};
use super::groups::grown;

/// The state past the cap.
const OVER: u8 = 0xff;
/// The first byte of any other state.
const VERSION: u8 = 1;
/// Entries of a tail that are not worth sorting.
const TAIL_MIN: usize = 32;
/// Bytes of an arena that are not worth packing.
const ARENA_MIN: usize = 4_096;

/// What one group may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cap {
    /// Different values.
    pub(crate) values_max: usize,
    /// Bytes of different values.
    pub(crate) bytes_max: usize,
}

impl Cap {
    /// The cap of a view's cells: a part of what their states mean.
    pub(crate) const CELL: Self =
        Self { values_max: schemas::limits::CELL_VALUES_MAX, bytes_max: schemas::limits::CELL_VALUE_BYTES_MAX };
    /// What a bag can address: a query has a bound on its memory.
    pub(crate) const QUERY: Self = Self { values_max: usize::MAX, bytes_max: 1 << 30 };
}

/// How often a value occurs, or nothing for a set.
pub(crate) trait Count: Copy + Send + 'static {
    /// One occurrence.
    const ONE: Self;
    /// Both together.
    fn plus(self, other: Self) -> Self;
    /// Appends it to a state.
    fn write(self, out: &mut Vec<u8>);
    /// Reads it from a state.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

impl Count for () {
    const ONE: Self = ();

    fn plus(self, (): Self) -> Self {}

    fn write(self, _out: &mut Vec<u8>) {}

    fn read(_bytes: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl Count for u64 {
    const ONE: Self = 1;

    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }

    fn write(self, out: &mut Vec<u8>) {
        varint::write(self.into(), out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        varint::read(bytes)?.try_into().ok()
    }
}

/// One multiset (`C` is `u64`) or set (`C` is `()`).
pub(crate) struct Bag<K: Key, C> {
    entries: Vec<(K, C)>,
    /// How many of them lead in ascending order, each value once.
    sorted: usize,
    arena: K::Arena,
    /// Bytes of the arena after it was packed last.
    packed: usize,
    over: bool,
}

impl<K: Key, C> Default for Bag<K, C> {
    fn default() -> Self {
        Self { entries: Vec::new(), sorted: 0, arena: K::Arena::default(), packed: 0, over: false }
    }
}

impl<K: Key, C: Count> Bag<K, C> {
    /// Adds one value and returns by how many bytes the bag grew.
    #[inline]
    pub(crate) fn add(&mut self, item: K::Item<'_>, cap: Cap) -> isize {
        if self.over {
            return 0;
        }
        let before = self.heap_bytes();
        self.push(item, C::ONE, cap);
        grown(before, self.heap_bytes())
    }

    #[inline]
    fn push(&mut self, item: K::Item<'_>, count: C, cap: Cap) {
        let key = K::keep(item, &mut self.arena);
        self.entries.push((key, count));
        let tail = self.entries.len() - self.sorted;
        if tail >= self.sorted.max(TAIL_MIN) || self.arena.bytes() >= self.packed.max(ARENA_MIN) * 2 {
            self.settle(cap);
        }
    }

    /// Sorts the tail into the rest; past the cap, forgets everything.
    #[cold]
    #[inline(never)]
    fn settle(&mut self, cap: Cap) {
        if self.sorted == self.entries.len() {
            return;
        }
        let arena = &self.arena;
        self.entries[self.sorted..].sort_unstable_by(|a, b| a.0.item(arena).cmp(&b.0.item(arena)));
        // Two ascending runs: the stable sort merges them.
        self.entries.sort_by(|a, b| a.0.item(arena).cmp(&b.0.item(arena)));
        self.entries.dedup_by(|later, kept| {
            let same = later.0.item(arena) == kept.0.item(arena);
            if same {
                kept.1 = kept.1.plus(later.1);
            }
            same
        });
        self.sorted = self.entries.len();
        let bytes: usize = self.entries.iter().map(|(key, _)| K::bytes(key.item(arena))).sum();
        if self.sorted > cap.values_max || bytes > cap.bytes_max {
            *self = Self { over: true, ..Self::default() };
            return;
        }
        if self.arena.bytes() > bytes {
            let mut packed = K::Arena::default();
            for (key, _) in &mut self.entries {
                *key = K::keep(key.item(&self.arena), &mut packed);
            }
            self.arena = packed;
        }
        self.packed = self.arena.bytes();
    }

    /// The values in ascending order with their counts; None past the cap.
    pub(crate) fn runs(&mut self, cap: Cap) -> Option<impl ExactSizeIterator<Item = (K::Item<'_>, C)> + Clone> {
        self.settle(cap);
        let arena = &self.arena;
        (!self.over).then(|| self.entries.iter().map(|(key, count)| (key.item(arena), *count)))
    }

    /// Appends the canonical state.
    pub(crate) fn write(&mut self, cap: Cap, out: &mut Vec<u8>) {
        let Some(runs) = self.runs(cap) else {
            out.push(OVER);
            return;
        };
        if runs.len() == 0 {
            return;
        }
        out.push(VERSION);
        varint::write(runs.len() as u128, out);
        let mut previous = None;
        for (item, count) in runs {
            K::write(item, previous, out);
            count.write(out);
            previous = Some(item);
        }
    }

    /// Adds a state and returns by how many bytes the bag grew.
    pub(crate) fn merge(&mut self, state: &[u8], cap: Cap) -> Result<isize> {
        let before = self.heap_bytes();
        match state {
            _ if self.over => {}
            [] => {}
            [OVER] => *self = Self { over: true, ..Self::default() },
            [VERSION, entries @ ..] => self
                .read(entries, cap)
                .ok_or_else(|| exec_datafusion_err!("a set of values: state of {} bytes is damaged", state.len()))?,
            [version, ..] => return Err(exec_datafusion_err!("a set of values: state has unknown version {version}")),
        }
        Ok(grown(before, self.heap_bytes()))
    }

    fn read(&mut self, mut bytes: &[u8], cap: Cap) -> Option<()> {
        let count = usize::try_from(varint::read(&mut bytes)?).ok()?;
        self.entries.reserve(count.min(bytes.len()));
        let mut previous = None;
        for _ in 0..count {
            let item = K::read(&mut bytes, previous)?;
            let occurrences = C::read(&mut bytes)?;
            if !self.over {
                self.push(item, occurrences, cap);
            }
            previous = Some(item);
        }
        bytes.is_empty().then_some(())
    }

    /// Bytes held outside of the struct itself.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(K, C)>() + self.arena.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Cap = Cap { values_max: 100, bytes_max: 500 };

    fn state<K: Key, C: Count>(mut bag: Bag<K, C>) -> Vec<u8> {
        let mut out = vec![];
        bag.write(SMALL, &mut out);
        out
    }

    fn numbers(values: impl IntoIterator<Item = u64>) -> Bag<u64, u64> {
        let mut bag = Bag::default();
        for value in values {
            bag.add(value, SMALL);
        }
        bag
    }

    /// Persisted: these bytes never change.
    #[test]
    fn states_of_version_1_are_pinned() {
        assert!(state(numbers([])).is_empty());
        assert_eq!(state(numbers([300, 5, 5])), [1, 2, 5, 2, 0xa7, 0x02, 1]);
        let mut words = Bag::<Span, ()>::default();
        for word in ["b", "", "b", "ab"] {
            words.add(word.as_bytes(), SMALL);
        }
        assert_eq!(state(words), [1, 3, 0, 2, b'a', b'b', 1, b'b']);
        assert_eq!(state(numbers(0..101)), [0xff]);
    }

    #[test]
    fn the_cap_counts_different_values_and_their_bytes() {
        assert_ne!(state(numbers((0..1_000).map(|i| i % 60))), [OVER], "many of the same");
        assert_eq!(state(numbers(0..63)), [OVER], "63 numbers of 8 bytes are more than 500");
        let mut words = Bag::<Span, ()>::default();
        words.add(&[b'x'; 250], SMALL);
        words.add(&[b'x'; 250], SMALL);
        words.add(&[b'y'; 250], SMALL);
        assert_eq!(state(words), {
            let mut state = vec![1, 2, 250, 1];
            state.extend([b'x'; 250]);
            state.extend([250, 1]);
            state.extend([b'y'; 250]);
            state
        });
    }

    #[test]
    fn the_mark_absorbs_and_memory_stays_small() {
        let mut bag = numbers(0..63);
        bag.settle(SMALL);
        assert_eq!(bag.add(7, SMALL), 0);
        assert_eq!(bag.heap_bytes(), 0);
        bag.merge(&state(numbers([1])), SMALL).unwrap();
        assert_eq!(state(bag), [OVER]);
        let mut other = numbers([1]);
        other.merge(&[OVER], SMALL).unwrap();
        assert_eq!(state(other), [OVER]);
    }

    /// Many copies of few texts are packed as they come, not at the end.
    #[test]
    fn copies_do_not_fill_the_memory() {
        let mut words = Bag::<Span, u64>::default();
        for i in 0..100_000_u32 {
            words.add(format!("word {}", i % 20).as_bytes(), SMALL);
        }
        assert!(words.heap_bytes() < 20_000, "{} bytes", words.heap_bytes());
        assert_eq!(words.runs(SMALL).unwrap().map(|(_, count)| count).collect::<Vec<_>>(), [5_000; 20]);
    }

    #[test]
    fn damaged_states_are_errors() {
        for damaged in [&[1][..], &[1, 2, 5, 1], &[1, 1, 5, 1, 0], &[2, 1, 5, 1], &[0xff, 0]] {
            assert!(numbers([]).merge(damaged, SMALL).is_err(), "{damaged:?}");
        }
    }
}
