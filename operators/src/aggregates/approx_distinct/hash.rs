//! The persisted hash of a value: XXH3-64 of its canonical bytes, seeded with a tag of its kind.
//!
//! Equal values hash equally whatever their Arrow encoding is: `Utf8` like `Utf8View`, `Int32` like
//! `Int64`. Tags and encodings are part of the state format and never change.

use arrow::datatypes::{DataType, TimeUnit, i256};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::aggregates::types::Canonical;

const INTEGER: u64 = 1;
const BIG_INTEGER: u64 = 2; // unsigned, above i64
const FLOAT: u64 = 3;
const BOOLEAN: u64 = 4;
const STRING: u64 = 5;
const BYTES: u64 = 6;
const DATE: u64 = 7;
const DATE_MS: u64 = 8;
const TIME: u64 = 16; // + unit
const TIMESTAMP: u64 = 24; // + unit
const DURATION: u64 = 32; // + unit
const DECIMAL: u64 = 256; // + scale + 128

/// The tag of a type; None for types that cannot be counted.
pub(crate) fn tag_of(data_type: &DataType) -> Option<u64> {
    use DataType as D;
    Some(match data_type {
        integer if integer.is_integer() => INTEGER,
        D::Float32 | D::Float64 => FLOAT,
        D::Boolean => BOOLEAN,
        D::Utf8 | D::LargeUtf8 | D::Utf8View => STRING,
        D::Binary | D::LargeBinary | D::BinaryView => BYTES,
        D::Date32 => DATE,
        D::Date64 => DATE_MS,
        D::Time32(unit) | D::Time64(unit) => TIME + unit_tag(*unit),
        D::Timestamp(unit, _) => TIMESTAMP + unit_tag(*unit),
        D::Duration(unit) => DURATION + unit_tag(*unit),
        D::Decimal32(_, scale) | D::Decimal64(_, scale) | D::Decimal128(_, scale) | D::Decimal256(_, scale) => {
            DECIMAL + (i64::from(*scale) + 128).cast_unsigned()
        }
        _ => return None,
    })
}

fn unit_tag(unit: TimeUnit) -> u64 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

/// Strings and bytes.
#[inline]
pub(crate) fn hash_bytes(tag: u64, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, tag)
}

/// Booleans.
#[inline]
pub(crate) fn hash_bool(tag: u64, value: bool) -> u64 {
    xxh3_64_with_seed(&[u8::from(value)], tag)
}

/// Primitive values.
pub(crate) trait Hashed {
    /// The persisted hash.
    fn hash(self, tag: u64) -> u64;
}

macro_rules! hashed_as_i64 {
    ($($native:ty),*) => {
        $(impl Hashed for $native {
            #[inline]
            fn hash(self, tag: u64) -> u64 {
                xxh3_64_with_seed(&i64::from(self).to_le_bytes(), tag)
            }
        })*
    };
}
hashed_as_i64!(i8, i16, i32, i64, u8, u16, u32);

impl Hashed for u64 {
    #[inline]
    fn hash(self, tag: u64) -> u64 {
        let tag = if self > i64::MAX as u64 { BIG_INTEGER } else { tag };
        xxh3_64_with_seed(&self.to_le_bytes(), tag)
    }
}

impl Hashed for f64 {
    #[inline]
    fn hash(self, tag: u64) -> u64 {
        xxh3_64_with_seed(&self.canonical().to_bits().to_le_bytes(), tag)
    }
}

impl Hashed for f32 {
    #[inline]
    fn hash(self, tag: u64) -> u64 {
        f64::from(self).hash(tag)
    }
}

impl Hashed for i128 {
    #[inline]
    fn hash(self, tag: u64) -> u64 {
        match i64::try_from(self) {
            Ok(small) => small.hash(tag),
            Err(_) => xxh3_64_with_seed(&self.to_le_bytes(), tag),
        }
    }
}

impl Hashed for i256 {
    #[inline]
    fn hash(self, tag: u64) -> u64 {
        match self.to_i128() {
            Some(small) => small.hash(tag),
            None => xxh3_64_with_seed(&self.to_le_bytes(), tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Persisted states depend on these numbers.
    #[test]
    fn hashes_are_pinned() {
        assert_eq!(hash_bytes(0, b""), 0x2d06_8005_38d3_94c2, "published vector of XXH3-64");
        let hashes = [
            hash_bytes(STRING, b""),
            hash_bytes(STRING, b"bifold"),
            1_i64.hash(INTEGER),
            0.1_f64.hash(FLOAT),
            hash_bool(BOOLEAN, true),
            150_i128.hash(DECIMAL + 130),
        ];
        let pinned = [
            0x388e_c5bd_0562_e095,
            0x85f8_5b96_1fa7_9a44,
            0x8567_1091_eda7_5eb5,
            0x7475_5f2b_3d4d_cb1e,
            0x6f0a_bcaf_2041_1591,
            0xb5d0_fbf1_02d0_88b9,
        ];
        assert_eq!(hashes, pinned);
    }

    #[test]
    fn equal_values_hash_equally() {
        assert_eq!(7_i8.hash(INTEGER), 7_u64.hash(INTEGER));
        assert_eq!((-7_i16).hash(INTEGER), (-7_i64).hash(INTEGER));
        assert_eq!(0.5_f32.hash(FLOAT), 0.5_f64.hash(FLOAT));
        assert_eq!((-0.0_f64).hash(FLOAT), 0.0_f64.hash(FLOAT));
        assert_eq!(f64::from_bits(0xfff8_0000_0000_0001).hash(FLOAT), f32::NAN.hash(FLOAT));
        assert_eq!(tag_of(&DataType::Utf8), tag_of(&DataType::Utf8View));
        assert_ne!(1_i64.hash(INTEGER), (1_i64).hash(DATE));
        assert_ne!(u64::MAX.hash(INTEGER), (-1_i64).hash(INTEGER));
    }
}
