//! `/healthz` and `/livez` of the proxy, and health check node ports of services with the Local policy.
//!
//! The proxy is healthy while no queued change has waited longer than [`TIMEOUT`].
//! Answers to: pkg/proxy/healthcheck.

mod server;
mod services;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::RwLock;
use serde_json::{Value, json};

pub use server::{Answer, Handler, serve};
pub use services::ServiceHealth;

use crate::model::Family;

/// Twice the sync period, as upstream.
pub const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct FamilyHealth {
    updated: Timestamp,
    queued: Option<Instant>,
}

/// Written by the sync loop, read by servers.
#[derive(Debug, Default)]
pub struct Health {
    families: RwLock<BTreeMap<Family, FamilyHealth>>,
    eligible: RwLock<bool>,
}

impl Health {
    /// A change waits to be applied.
    pub fn queued(&self, now: Instant) {
        for family in self.families.write().values_mut() {
            family.queued.get_or_insert(now);
        }
    }

    pub fn updated(&self, family: Family) {
        self.families.write().insert(family, FamilyHealth { updated: Timestamp::now(), queued: None });
    }

    /// Whether this node should get traffic from load balancers at all.
    pub fn set_eligible(&self, eligible: bool) {
        *self.eligible.write() = eligible;
    }

    pub fn healthy(&self, now: Instant) -> bool {
        self.families.read().values().all(|f| late(f, now))
    }

    /// (status, document): `/healthz` also asks whether the node is eligible, `/livez` does not.
    pub fn document(&self, with_node: bool, now: Instant) -> (u16, Value) {
        let eligible = *self.eligible.read();
        let healthy = self.healthy(now);
        let families = self.families.read();
        let newest = families.values().map(|f| f.updated).max().unwrap_or(Timestamp::UNIX_EPOCH);
        let good = healthy && (!with_node || eligible);
        let wall = Timestamp::now();
        let status: serde_json::Map<String, Value> = families
            .iter()
            .map(|(family, f)| {
                (
                    family.name().to_owned(),
                    json!({"lastUpdated": f.updated.to_string(), "healthy": late(f, now)}),
                )
            })
            .collect();
        let mut document = json!({
            "lastUpdated": if good { wall } else { newest }.to_string(),
            "currentTime": wall.to_string(),
            "healthy": healthy,
        });
        if with_node {
            document["nodeEligible"] = json!(eligible);
        }
        if !status.is_empty() {
            document["status"] = Value::Object(status);
        }
        (if good { 200 } else { 503 }, document)
    }
}

fn late(family: &FamilyHealth, now: Instant) -> bool {
    family.queued.is_none_or(|since| now.duration_since(since) < TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_too_long_is_unhealthy() {
        let (health, now) = (Health::default(), Instant::now());
        health.set_eligible(true);
        health.updated(Family::V4);
        assert_eq!(health.document(true, now).0, 200);
        health.queued(now);
        assert_eq!(health.document(true, now + TIMEOUT - Duration::from_secs(1)).0, 200);
        let (status, document) = health.document(false, now + TIMEOUT);
        assert_eq!((status, &document["status"]["IPv4"]["healthy"]), (503, &json!(false)));
        health.updated(Family::V4);
        health.set_eligible(false);
        assert_eq!(health.document(true, now).0, 503);
        assert_eq!(health.document(false, now).0, 200);
    }
}
