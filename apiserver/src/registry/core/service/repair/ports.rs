//! The bitmap of node ports says what services have.

use std::collections::{BTreeMap, BTreeSet};

use common::status::Status;

use crate::object::Object;
use crate::registry::core::service::allocation::{AllocationError, PortMap};
use crate::registry::core::service::hooks::ServiceHooks;
use crate::registry::core::service::metrics::PortError;
use crate::registry::tree::{field, int, items, text};

/// In so many rounds a port must be nobody's.
pub(super) const ROUNDS: u32 = 3;

/// Ports that were nobody's, and in how many rounds.
pub type Leaks = BTreeMap<u16, u32>;

/// What one round finds, and what it makes of the ports.
struct Round {
    /// The service by its place, the port, and what is wrong.
    wrong: Vec<(usize, u16, PortError)>,
    leaks: Leaks,
    freed: Vec<u16>,
}

/// Pure but for `map`, which becomes what it should be. `leaks` are those of the round before.
fn round(map: &mut PortMap, services: &[Object], leaks: &Leaks) -> Round {
    let before = map.clone();
    let mut used: BTreeSet<u16> = BTreeSet::new();
    let mut wrong = Vec::new();
    for (i, service) in services.iter().enumerate() {
        for port in claimed_ports(service) {
            let found = match map.reserve(port) {
                Err(AllocationError::Taken(_)) if !used.contains(&port) => None,
                Err(AllocationError::Taken(_)) => Some(PortError::Duplicate),
                Err(_) => Some(PortError::OutOfRange),
                Ok(()) => Some(PortError::Repair),
            };
            wrong.extend(found.map(|found| (i, port, found)));
            used.insert(port);
        }
    }
    let mut round = Round { wrong, leaks: Leaks::new(), freed: Vec::new() };
    for port in before.taken().filter(|port| !used.contains(port)) {
        let rounds = leaks.get(&port).map_or(0, |rounds| *rounds) + 1;
        if rounds >= ROUNDS {
            map.release(port);
            round.freed.push(port);
        } else {
            round.leaks.insert(port, rounds);
        }
    }
    round
}

/// The ports that a service takes out of the range: one that it uses under several protocols once.
fn claimed_ports(service: &Object) -> Vec<u16> {
    let spec = field(service, "spec");
    let mut seen: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
    let mut ports = Vec::new();
    let health = int(spec, "healthCheckNodePort").map(|port| (port, "TCP"));
    let numbered =
        items(spec, "ports").iter().filter_map(|p| Some((int(p, "nodePort")?, text(p, "protocol"))));
    for (port, protocol) in numbered.chain(health).filter(|(port, _)| *port != 0) {
        let protocols = seen.entry(port).or_default();
        let first = protocols.is_empty();
        if !protocols.insert(protocol) || first {
            ports.extend(u16::try_from(port));
        }
    }
    ports
}

impl ServiceHooks {
    pub(super) async fn repair_ports(&self, services: &[Object]) -> Result<(), Status> {
        let before = self.leaks.lock().clone();
        let (round, used, size) = self
            .claims
            .change_ports(|map| {
                let was = map.clone();
                let round = round(map, services, &before);
                Ok(((round, map.used(), map.size()), *map != was))
            })
            .await?;
        self.metrics.ports_are(used, size);
        *self.leaks.lock() = round.leaks;
        for port in round.freed {
            self.metrics.repaired(PortError::Leak);
            tracing::info!(port, "a node port appears to have leaked; given back");
        }
        for (i, port, error) in round.wrong {
            self.metrics.repaired(error);
            let (reason, note) = match error {
                PortError::Duplicate => (
                    "PortAlreadyAllocated",
                    format!("Port {port} was assigned to multiple services; please recreate service"),
                ),
                PortError::OutOfRange => (
                    "PortOutOfRange",
                    format!(
                        "Port {port} is not within the port range {}; please recreate service",
                        self.claims.range_text()
                    ),
                ),
                PortError::Repair | PortError::Leak => {
                    ("PortNotAllocated", format!("Port {port} is not allocated; repairing"))
                }
            };
            self.recorder.warn(&services[i], reason, "PortAllocation", &note).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_round_finds_what_is_missing_doubled_outside_and_leaked() {
        let service = |ports: &[(i64, &str)], health: i64| {
            let ports: Vec<_> = ports
                .iter()
                .map(|(port, protocol)| json!({"nodePort": port, "protocol": protocol}))
                .collect();
            json!({"spec": {"ports": ports, "healthCheckNodePort": health}})
        };
        let services = [
            service(&[(30001, "TCP"), (30001, "UDP")], 0),
            service(&[(30002, "TCP")], 30003),
            service(&[(30002, "TCP"), (40000, "TCP")], 0),
        ];
        let mut map = PortMap::new(30000..=30009);
        for port in [30001, 30002, 30008] {
            map.reserve(port).expect("free");
        }
        let found = round(&mut map, &services, &Leaks::new());
        assert_eq!(
            found.wrong,
            [
                (1, 30003, PortError::Repair),
                (2, 30002, PortError::Duplicate),
                (2, 40000, PortError::OutOfRange)
            ]
        );
        assert_eq!((found.leaks.get(&30008), found.freed.len()), (Some(&1), 0));
        assert!(map.is_taken(30003) && map.is_taken(30008));
        let mut leaks = found.leaks;
        for _ in 1..ROUNDS - 1 {
            leaks = round(&mut map, &services, &leaks).leaks;
        }
        let last = round(&mut map, &services, &leaks);
        assert_eq!((last.freed, last.leaks.len(), map.is_taken(30008)), (vec![30008], 0, false));
    }
}
