//! Reading JSON that is at hand as bytes, one part at a time and without a tree of it: what the answers in another
//! shape or encoding are made from, of which most of an object is never looked at.
//!
//! [`Cursor`] walks a document and accepts exactly JSON (RFC 8259); [`pick`] builds the tree of a few parts,
//! [`member`] finds one. What
//! clients send is not read here: it becomes a whole tree in `endpoints`.

mod cursor;
mod parts;

pub use cursor::{Cursor, Unexpected};
pub use parts::{Parts, Picked, member, pick};
