//! Parity: random events × views × partitions × moments. Merged = batch alone = speed alone = an
//! interpreter of the views that shares no code with the product: answers by value, states byte for byte.
//!
//! ```text
//!  seed ─► generate ─► ViewModel ─► SQL ─► the product ─────────► rows ─┐
//!    └──► event ────────────┴──────────► brute force, rationals ─► rows ─┴─► compare
//! ```
//!
//! `BIFOLD_PARITY_SEED=… [BIFOLD_PARITY_CASES=…]` runs chosen seeds again, `BIFOLD_PARITY_CASES=100000`
//! alone runs more of them.

mod aggregate;
mod arrays;
mod calendar;
mod case;
mod compare;
mod event;
mod exact;
mod expression;
mod fixed;
mod fold;
mod generate;
mod late;
mod ordered;
mod pairs;
mod threads;
mod value;
mod view;
mod whole;
mod window;
