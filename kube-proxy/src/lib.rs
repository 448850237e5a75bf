//! kube-proxy: makes Services reachable from a node, answers cluster DNS on it, keeps routes to other nodes' pods.
//!
//! The path of a packet rule: watches -> [`state`] -> [`model`] (what should be reachable, pure) -> [`nftables`]
//! (text, pure; difference to what was applied) -> one atomic `nft` transaction. DNS and routes read the same
//! state. One task owns it and writes; resolvers only read.
//! Answers to: cmd/kube-proxy, pkg/proxy.

pub mod config;
pub mod conntrack;
pub mod daemon;
pub mod dns;
pub mod flags;
pub mod health;
mod informers;
pub mod metrics;
pub mod model;
pub mod nftables;
pub mod routes;
pub mod state;
mod sync;
