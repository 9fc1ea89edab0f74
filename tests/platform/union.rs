//! Views over `UNION ALL` of several streams: one view for each branch, and answers made of all of their states.
//! union, of the same type)

mod cases;
mod parity;
mod refused;
mod tables;
