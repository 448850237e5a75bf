//! What is on the wire, and what two daemons already need.
//!
//! A thing moves here with its second user, not its first. No daemon's policy, queue, cache or error
//! enum lives here: a daemon depends on `common` and on no other daemon.

pub mod fields;
pub mod labels;
pub mod logs;
pub mod quantity;
pub mod shutdown;
pub mod status;
pub mod version;
