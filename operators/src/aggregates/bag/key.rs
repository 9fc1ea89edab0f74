//! What a bag stores of a value: a number, or where its bytes are.

use super::varint;

/// A stored value whose items sort as the values do.
pub(crate) trait Key: Copy + Send + 'static {
    /// Where the bytes of values are that do not fit into a number.
    type Arena: Arena;
    /// A value.
    type Item<'a>: Copy + Ord;

    /// Stores a value.
    fn keep(item: Self::Item<'_>, arena: &mut Self::Arena) -> Self;
    /// The stored value.
    fn item(self, arena: &Self::Arena) -> Self::Item<'_>;
    /// What the value counts towards a cap.
    fn bytes(item: Self::Item<'_>) -> usize;
    /// Appends the value to a state, behind the one that is next below it.
    fn write(item: Self::Item<'_>, previous: Option<Self::Item<'_>>, out: &mut Vec<u8>);
    /// Takes a value from the front of a state; None if it is damaged.
    fn read<'a>(bytes: &mut &'a [u8], previous: Option<Self::Item<'a>>) -> Option<Self::Item<'a>>;
    /// The value whose sortable bytes, highest first, these are; None if they are damaged.
    fn of_bytes(bytes: &[u8]) -> Option<Self::Item<'_>>;
}

/// Bytes of values.
pub(crate) trait Arena: Default + Send + 'static {
    /// Bytes in use.
    fn bytes(&self) -> usize;
    /// Bytes allocated.
    fn capacity(&self) -> usize;
}

impl Arena for () {
    #[inline]
    fn bytes(&self) -> usize {
        0
    }

    #[inline]
    fn capacity(&self) -> usize {
        0
    }
}

impl Arena for Vec<u8> {
    #[inline]
    fn bytes(&self) -> usize {
        self.len()
    }

    #[inline]
    fn capacity(&self) -> usize {
        self.capacity()
    }
}

macro_rules! number_key {
    ($($number:ty),*) => {
        $(impl Key for $number {
            type Arena = ();
            type Item<'a> = Self;

            #[inline]
            fn keep(item: Self, (): &mut ()) -> Self {
                item
            }

            #[inline]
            fn item(self, (): &()) -> Self {
                self
            }

            fn bytes(_item: Self) -> usize {
                size_of::<Self>()
            }

            fn write(item: Self, previous: Option<Self>, out: &mut Vec<u8>) {
                varint::write((item - previous.unwrap_or(0)).into(), out);
            }

            fn read(bytes: &mut &[u8], previous: Option<Self>) -> Option<Self> {
                previous.unwrap_or(0).checked_add(varint::read(bytes)?.try_into().ok()?)
            }

            fn of_bytes(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_be_bytes(bytes.try_into().ok()?))
            }
        })*
    };
}
number_key!(u64, u128);

/// 256 bits: the high half first.
impl Key for [u128; 2] {
    type Arena = ();
    type Item<'a> = Self;

    #[inline]
    fn keep(item: Self, (): &mut ()) -> Self {
        item
    }

    #[inline]
    fn item(self, (): &()) -> Self {
        self
    }

    fn bytes(_item: Self) -> usize {
        32
    }

    fn write(item: Self, _previous: Option<Self>, out: &mut Vec<u8>) {
        for half in item {
            out.extend(half.to_be_bytes());
        }
    }

    fn read(bytes: &mut &[u8], _previous: Option<Self>) -> Option<Self> {
        let (high, rest) = bytes.split_first_chunk::<16>()?;
        let (low, rest) = rest.split_first_chunk::<16>()?;
        *bytes = rest;
        Some([u128::from_be_bytes(*high), u128::from_be_bytes(*low)])
    }

    fn of_bytes(mut bytes: &[u8]) -> Option<Self> {
        Self::read(&mut bytes, None).filter(|_| bytes.is_empty())
    }
}

/// A byte string in an arena.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    start: u32,
    length: u32,
}

impl Key for Span {
    type Arena = Vec<u8>;
    type Item<'a> = &'a [u8];

    #[inline]
    fn keep(item: &[u8], arena: &mut Vec<u8>) -> Self {
        // A bag settles when its arena has doubled, and a record is far below the rest of 4 GiB.
        let span = Self { start: arena.len() as u32, length: item.len() as u32 };
        arena.extend_from_slice(item);
        span
    }

    #[inline]
    fn item(self, arena: &Vec<u8>) -> &[u8] {
        &arena[self.start as usize..][..self.length as usize]
    }

    fn bytes(item: &[u8]) -> usize {
        item.len()
    }

    fn write(item: &[u8], _previous: Option<&[u8]>, out: &mut Vec<u8>) {
        varint::write(item.len() as u128, out);
        out.extend_from_slice(item);
    }

    fn read<'a>(bytes: &mut &'a [u8], _previous: Option<&'a [u8]>) -> Option<&'a [u8]> {
        let length = usize::try_from(varint::read(bytes)?).ok()?;
        let (item, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(item)
    }

    fn of_bytes(bytes: &[u8]) -> Option<&[u8]> {
        Some(bytes)
    }
}
