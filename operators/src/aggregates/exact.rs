//! Exact arithmetic: sums of integers, decimals and floats that never round before the end.
//!
//! ```text
//! float ─► mantissa × 2^position ─► window (128 or 256 bits per group)
//!                                      │ does not fit
//!                                      ▼
//!                                   superaccumulator (every bit a double can have)
//!                                      │
//!                 canonical limbs ◄────┴────► Natural ─► rounded once
//! ```

pub(crate) mod cells;
pub(crate) mod limbs;
pub(crate) mod natural;
pub(crate) mod round;
pub(crate) mod scaled;
pub(crate) mod whole;
pub(crate) mod window;
