//! How fast the nodes of a zone may be tainted for eviction: slower, or not at all, when so many fail together
//! that the network is the likelier cause.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::plan::is_ready;
use crate::config::NodeMonitor;
use crate::controller::View;
use crate::views::Node;

/// While no eviction is allowed, the question is asked again this often.
const RECHECK: Duration = Duration::from_secs(30);

/// Region and zone, as one text.
pub fn zone_of(node: &Node) -> String {
    let label = |key| node.label(key).unwrap_or("");
    format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Normal,
    Partial,
    Full,
}

fn state(ready: usize, not_ready: usize, threshold: f64) -> State {
    #[allow(clippy::cast_precision_loss)]
    let share = not_ready as f64 / (ready + not_ready).max(1) as f64;
    if ready == 0 && not_ready > 0 {
        State::Full
    } else if not_ready > 2 && share >= threshold {
        State::Partial
    } else {
        State::Normal
    }
}

/// Evictions per second in `zone`.
pub fn rate(nodes: &[Arc<Node>], zone: &str, monitor: &NodeMonitor) -> f64 {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for node in nodes {
        let entry = counts.entry(zone_of(node)).or_default();
        if is_ready(node) { entry.0 += 1 } else { entry.1 += 1 }
    }
    let states: BTreeMap<&str, State> = counts
        .iter()
        .map(|(zone, (r, n))| (zone.as_str(), state(*r, *n, monitor.unhealthy_zone_threshold)))
        .collect();
    if !states.is_empty() && states.values().all(|s| *s == State::Full) {
        // Nobody answers: it is us who are cut off.
        return 0.0;
    }
    let size = counts.get(zone).map_or(0, |(r, n)| r + n);
    match states.get(zone) {
        Some(State::Partial) if size > monitor.large_cluster_size => monitor.secondary_eviction_rate,
        Some(State::Partial) => 0.0,
        _ => monitor.eviction_rate,
    }
}

/// One token per zone, refilled at the zone's rate.
#[derive(Debug, Default)]
pub struct Limiter(HashMap<String, Instant>);

impl Limiter {
    /// Takes the zone's token, or says when to ask again.
    pub fn take(&mut self, zone: &str, rate: f64, now: Instant) -> Result<(), Duration> {
        if rate <= 0.0 {
            return Err(RECHECK);
        }
        let next = self.0.get(zone).copied().unwrap_or(now);
        if next > now {
            return Err(next - now);
        }
        self.0.insert(zone.to_owned(), now + Duration::from_secs_f64((1.0 / rate).min(86_400.0)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes(zone: &str, ready: usize, not_ready: usize) -> Vec<Arc<Node>> {
        (0..ready + not_ready)
            .map(|i| {
                let status = if i < ready { "True" } else { "Unknown" };
                Arc::new(
                    serde_json::from_value(json!({
                        "metadata": {"name": format!("{zone}{i}"), "labels": {"topology.kubernetes.io/zone": zone}},
                        "spec": {}, "status": {"conditions": [{"type": "Ready", "status": status}]}}))
                    .expect("node"),
                )
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn many_failures_slow_evictions_down() {
        let monitor = NodeMonitor {
            grace_period: Duration::from_secs(40),
            startup_grace_period: Duration::from_secs(60),
            period: Duration::from_secs(5),
            eviction_rate: 0.1,
            secondary_eviction_rate: 0.01,
            unhealthy_zone_threshold: 0.55,
            large_cluster_size: 50,
        };
        let check = |nodes: &[Arc<Node>], expect: f64| {
            assert!((rate(nodes, ":a", &monitor) - expect).abs() < 1e-9, "{expect}");
        };
        check(&nodes("a", 1, 1), 0.1);
        check(&nodes("a", 0, 1), 0.0);
        check(&nodes("a", 2, 4), 0.0);
        check(&nodes("a", 20, 40), 0.01);
        check(&[nodes("a", 0, 2), nodes("b", 2, 0)].concat(), 0.1);
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        assert_eq!(limiter.take(":a", 0.1, now), Ok(()));
        assert_eq!(limiter.take(":a", 0.1, now), Err(Duration::from_secs(10)));
        assert_eq!(limiter.take(":b", 0.1, now), Ok(()));
    }
}
