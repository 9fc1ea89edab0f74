//! A blocked Bloom filter (Putze, Sanders, Singler 2007): one cache line a question.

use crate::identity::Identity;

/// Bits for each identity; with six questions in one block of 512 bits about 1 % are false.
const BITS_PER_IDENTITY: usize = 10;
const WORDS: usize = 8;
const QUESTIONS: u32 = 6;

/// Which identities are certainly not in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bloom {
    blocks: Vec<[u64; WORDS]>,
}

impl Bloom {
    /// An empty filter for so many identities.
    pub(super) fn new(identities: usize) -> Self {
        let blocks = (identities * BITS_PER_IDENTITY).div_ceil(WORDS * 64).max(1);
        Self { blocks: vec![[0; WORDS]; blocks] }
    }

    /// The low half chooses the block, as it is what a run is sorted by; the high half the bits.
    fn block(&self, identity: Identity) -> usize {
        let low = u128::from(identity as u64);
        ((low * self.blocks.len() as u128) >> 64) as usize
    }

    pub(super) fn insert(&mut self, identity: Identity) {
        let block = self.block(identity);
        for bit in bits(identity) {
            self.blocks[block][bit / 64] |= 1 << (bit % 64);
        }
    }

    /// False if it was certainly never inserted.
    #[inline]
    pub(super) fn may_contain(&self, identity: Identity) -> bool {
        let block = &self.blocks[self.block(identity)];
        // all questions at once: which of them says no is a coin's toss, and a wrong guess of the processor would throw
        // away the cache lines of the rows behind that it waits for
        bits(identity).fold(1, |all, bit| all & (block[bit / 64] >> (bit % 64))) & 1 == 1
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.blocks.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// None if these are not the bytes of a filter.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (blocks, loose) = words.as_chunks::<WORDS>();
        (rest.is_empty() && loose.is_empty() && !blocks.is_empty()).then(|| Self { blocks: blocks.to_vec() })
    }
}

/// Nine bits of the high half for each question; the partition took its lowest ones by a remainder.
#[inline]
fn bits(identity: Identity) -> impl Iterator<Item = usize> {
    let high = ((identity >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..QUESTIONS).map(move |question| ((high >> (question * 9 + 10)) & 511) as usize)
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_128;

    use super::*;

    #[test]
    fn nothing_is_missed_and_few_are_false() {
        let id = |n: u32| xxh3_128(&n.to_le_bytes());
        let mut bloom = Bloom::new(100_000);
        (0..100_000).for_each(|n| bloom.insert(id(n)));
        let read = Bloom::from_bytes(&bloom.to_bytes()).unwrap();
        assert_eq!(read, bloom);
        assert!((0..100_000).all(|n| read.may_contain(id(n))));
        let wrong = (100_000..200_000).filter(|n| read.may_contain(id(*n))).count();
        assert!(wrong < 2_500, "{wrong} of 100000");
        assert!(Bloom::from_bytes(&[0; 65]).is_none() && Bloom::from_bytes(&[]).is_none());
    }
}
