//! What an operator does with kubectl, on a real cluster of two nodes. The tests share the cluster and run
//! side by side, each in a namespace of its own; nothing here breaks anything (that is `disruption`).

mod api;
mod cli;
mod errors;
mod kinds;
mod kubectl;
mod network;
mod pods;
mod registry;
mod security;
