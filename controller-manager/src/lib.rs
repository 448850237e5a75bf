//! kube-controller-manager: brings what is towards what should be, one object at a time.
//!
//! `main` reads flags and hands a [`config::Config`] to [`daemon::build`]; the [`daemon`] waits for the
//! leader's lease and starts the controllers of the [`registry`], each of which is one folder and one row.

pub mod bootstrap;
pub mod certificates;
pub mod clusterroleaggregation;
pub mod config;
pub mod controller;
pub mod daemon;
pub mod deployment;
pub mod discovery;
pub mod endpoint;
pub mod endpointslice;
pub mod flags;
pub mod garbagecollector;
pub mod identity;
pub mod metrics;
pub mod namespace;
pub mod nodeipam;
pub mod nodelifecycle;
pub mod podgc;
pub mod registry;
pub mod replicaset;
pub mod resourcequota;
pub mod rootca;
pub mod serviceaccount;
pub mod servicecidrs;
pub mod tainteviction;
pub mod views;
pub mod volume;
