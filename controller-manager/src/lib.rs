//! kube-controller-manager.
pub mod controller;
pub mod views;
