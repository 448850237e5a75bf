//! What is on the wire, and what two daemons already need.
//!
//! A thing moves here with its second user, not its first. No daemon's policy, queue, cache or error
//! enum lives here: a daemon depends on `common` and on no other daemon.

pub mod client;
pub mod events;
pub mod fields;
pub mod flags;
pub mod labels;
pub mod leaderelection;
pub mod logs;
pub mod process;
pub mod quantity;
pub mod quota;
pub mod serving;
pub mod shutdown;
pub mod spdy;
pub mod status;
pub mod tls;
pub mod version;
pub mod view;
pub mod zpages;
