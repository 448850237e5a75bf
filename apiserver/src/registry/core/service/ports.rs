//! The node ports of a service, that of its health check among them.

use common::status::Status;
use serde_json::json;

use super::allocation::{AllocationError, PortMap};
use super::hooks::{Held, ServiceHooks};
use super::metrics::Scope;
use super::{needs_health_check_port, needs_node_port, node_ports, refused};
use crate::object::Object;
use crate::registry::tree::{field, int, items, items_mut, set, struct_mut, text};

impl ServiceHooks {
    /// Fills the node ports of a service, and reserves them unless nothing is to be left behind.
    pub(super) async fn ports(
        &self,
        service: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
        taken: &mut Held,
    ) -> Result<(), Status> {
        let spec = field(service, "spec");
        if !needs_node_port(spec) && !needs_health_check_port(spec) && node_ports(service).is_empty() {
            return Ok(());
        }
        let _turn = self.ports_turn.acquire().await;
        let given = service.clone();
        let result = self
            .claims
            .change_ports(|map| {
                let mut picking = Picking { map, picked: Vec::new(), failed: None };
                let mut candidate = given.clone();
                let done = match old {
                    None => picking.create(&mut candidate),
                    Some(old) => picking.update(&mut candidate, old),
                };
                let Picking { map, picked, failed } = picking;
                let changed = done.is_ok() && !dry_run && !picked.is_empty();
                let figures = (map.used(), map.size());
                // A refusal is no reason to try again.
                Ok(((candidate, picked, failed, figures, done), changed))
            })
            .await;
        let (written, picked, failed, (used, size), done) = result?;
        if !dry_run {
            if let Some(scope) = failed {
                self.metrics.port_failed(scope);
            }
            if done.is_ok() && !picked.is_empty() {
                self.metrics.ports(picked.iter().map(|(_, scope)| *scope), used, size);
            }
        }
        done?;
        *service = written;
        if !dry_run {
            taken.ports = picked.into_iter().map(|(port, _)| port).collect();
        }
        Ok(())
    }
}

/// One write's choice of ports. Pure but for chance.
pub(super) struct Picking<'m> {
    pub map: &'m mut PortMap,
    pub picked: Vec<(u16, Scope)>,
    pub failed: Option<Scope>,
}

impl Picking<'_> {
    fn any(&mut self) -> Result<u16, AllocationError> {
        let port = self.map.reserve_any().inspect_err(|_| self.failed = Some(Scope::Dynamic))?;
        self.picked.push((port, Scope::Dynamic));
        Ok(port)
    }

    fn this(&mut self, port: i64) -> Result<(), AllocationError> {
        // What is no port at all is outside the range too: 0 never gets here.
        let port = u16::try_from(port).unwrap_or(0);
        self.map.reserve(port).inspect_err(|_| self.failed = Some(Scope::Static))?;
        self.picked.push((port, Scope::Static));
        Ok(())
    }

    fn this_for(&mut self, service: &Object, i: usize, port: i64) -> Result<(), Status> {
        let path = format!("spec.ports[{i}].nodePort");
        self.this(port).map_err(|error| refused(service, &path, &json!(port), &error.to_string()))
    }

    fn any_for_a_port(&mut self) -> Result<u16, Status> {
        self.any().map_err(|error| Status::internal(format!("failed to allocate a nodePort: {error}")))
    }

    /// A new service: the same port number under two protocols shares one node port.
    pub(super) fn create(&mut self, service: &mut Object) -> Result<(), Status> {
        let whole = service.clone();
        let Some(spec) = struct_mut(service, "spec") else { return Ok(()) };
        let allocate = needs_node_port(spec);
        let wanted: Vec<(i64, i64)> = items(spec, "ports").iter().map(numbers).collect();
        let mut shared: Vec<(i64, i64)> = Vec::new();
        for (i, port) in items_mut(spec, "ports").iter_mut().enumerate() {
            if !matches!(text(field(&whole, "spec"), "type"), "NodePort" | "LoadBalancer") {
                break;
            }
            let (number, asked) = wanted[i];
            if asked == 0 && !allocate {
                continue;
            }
            let chosen = match shared.iter().find(|(n, _)| *n == number).map(|(_, node)| *node) {
                Some(node) if asked == 0 || asked == node => node,
                Some(_) => {
                    self.this_for(&whole, i, asked)?;
                    asked
                }
                None => {
                    let asked = wanted.iter().find(|(n, node)| *n == number && *node != 0).map(|(_, n)| *n);
                    let node = match asked {
                        Some(asked) => {
                            self.this_for(&whole, i, asked)?;
                            asked
                        }
                        None => i64::from(self.any_for_a_port()?),
                    };
                    shared.push((number, node));
                    node
                }
            };
            set(port, "nodePort", chosen);
        }
        if needs_health_check_port(spec) {
            self.health_check(service)?;
        }
        Ok(())
    }

    /// A changed one keeps the ports that it had; a new port shares none.
    pub(super) fn update(&mut self, service: &mut Object, old: &Object) -> Result<(), Status> {
        let whole = service.clone();
        let had: Vec<i64> = items(field(old, "spec"), "ports")
            .iter()
            .map(|port| numbers(port).1)
            .filter(|n| *n != 0)
            .collect();
        let Some(spec) = struct_mut(service, "spec") else { return Ok(()) };
        let allocate = needs_node_port(spec);
        let owns = matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
        let mut reserved: Vec<i64> = Vec::new();
        for (i, port) in items_mut(spec, "ports").iter_mut().enumerate().filter(|_| owns) {
            match numbers(port).1 {
                0 if !allocate => {}
                0 => set(port, "nodePort", self.any_for_a_port()?),
                asked if had.contains(&asked) || reserved.contains(&asked) => {}
                asked => {
                    self.this_for(&whole, i, asked)?;
                    reserved.push(asked);
                }
            }
        }
        if needs_health_check_port(spec) && !needs_health_check_port(field(old, "spec")) {
            self.health_check(service)?;
        }
        Ok(())
    }

    fn health_check(&mut self, service: &mut Object) -> Result<(), Status> {
        let Some(spec) = struct_mut(service, "spec") else { return Ok(()) };
        match int(spec, "healthCheckNodePort").unwrap_or(0) {
            0 => {
                let port = self.any().map_err(|error| {
                    Status::internal(format!("failed to allocate a HealthCheck NodePort 0: {error}"))
                })?;
                set(spec, "healthCheckNodePort", port);
            }
            asked => self.this(asked).map_err(|error| {
                Status::internal(format!(
                    "failed to allocate requested HealthCheck NodePort {asked}: {error}"
                ))
            })?,
        }
        Ok(())
    }
}

/// A port's number and its node port.
fn numbers(port: &serde_json::Value) -> (i64, i64) {
    (int(port, "port").unwrap_or(0), int(port, "nodePort").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn service(spec: Value) -> Object {
        let mut service = json!({"metadata": {"name": "a"}, "spec": spec});
        (super::super::RULES.default)(&mut service);
        service
    }

    /// The node ports, that of the health check last, or the message.
    fn pick(new: Value, old: Option<Value>, taken: &[u16]) -> Result<Vec<i64>, String> {
        let mut map = PortMap::new(30000..=30009);
        let (mut service, old) = (service(new), old.map(service));
        old.iter()
            .flat_map(node_ports)
            .chain(taken.iter().copied())
            .for_each(|p| map.reserve(p).expect("free"));
        let mut picking = Picking { map: &mut map, picked: Vec::new(), failed: None };
        let done = match &old {
            None => picking.create(&mut service),
            Some(old) => picking.update(&mut service, old),
        };
        done.map_err(|status| status.message)?;
        let spec = &service["spec"];
        let ports = items(spec, "ports").iter().map(|p| numbers(p).1);
        Ok(ports.chain(int(spec, "healthCheckNodePort")).collect())
    }

    fn ports(list: &[(&str, i64, i64)]) -> Value {
        let port = |(protocol, port, node): &(&str, i64, i64)| {
            json!({"name": format!("{protocol}{port}").to_lowercase(), "protocol": protocol, "port": port,
                "nodePort": node})
        };
        json!({"type": "NodePort", "ports": list.iter().map(port).collect::<Vec<_>>()})
    }

    #[test]
    fn one_number_under_two_protocols_shares_a_node_port_when_created() {
        let both = pick(ports(&[("TCP", 53, 0), ("UDP", 53, 0)]), None, &[]).expect("free");
        assert_eq!(both[0], both[1]);
        assert_eq!(pick(ports(&[("TCP", 53, 0), ("UDP", 53, 30004)]), None, &[]), Ok(vec![30004, 30004]));
        let apart = pick(ports(&[("TCP", 53, 30001), ("UDP", 53, 30002)]), None, &[]);
        assert_eq!(apart, Ok(vec![30001, 30002]));
        let other_number = pick(ports(&[("TCP", 53, 30001), ("UDP", 54, 30001)]), None, &[]);
        let told = "Service \"a\" is invalid: spec.ports[1].nodePort: Invalid value: 30001: provided port is already allocated";
        assert_eq!(other_number, Err(told.into()));
    }

    #[test]
    fn an_update_keeps_what_it_had_and_shares_nothing() {
        let old = ports(&[("TCP", 53, 30001)]);
        let grown = pick(ports(&[("TCP", 53, 30001), ("UDP", 53, 0)]), Some(old.clone()), &[]).expect("free");
        assert_eq!(grown[0], 30001);
        assert_ne!(grown[1], 30001);
        let moved = pick(ports(&[("TCP", 53, 30002), ("UDP", 53, 30002)]), Some(old.clone()), &[]);
        assert_eq!(moved, Ok(vec![30002, 30002]));
        let told = pick(ports(&[("TCP", 53, 30003)]), Some(old), &[30003]).expect_err("taken");
        assert!(told.ends_with("provided port is already allocated"), "{told}");
    }

    #[test]
    fn a_balancer_may_do_without_and_a_health_check_has_its_own() {
        let mut spec = ports(&[("TCP", 80, 0), ("TCP", 81, 30005)]);
        spec["type"] = json!("LoadBalancer");
        spec["allocateLoadBalancerNodePorts"] = json!(false);
        assert_eq!(pick(spec.clone(), None, &[]), Ok(vec![0, 30005]));
        spec["externalTrafficPolicy"] = json!("Local");
        spec["healthCheckNodePort"] = json!(30005);
        assert_eq!(
            pick(spec.clone(), None, &[]).expect_err("twice"),
            "Internal error occurred: failed to allocate requested HealthCheck NodePort 30005: provided port is already allocated"
        );
        spec["healthCheckNodePort"] = json!(0);
        let all = [30000, 30001, 30002, 30003, 30004, 30006, 30007, 30008, 30009];
        assert_eq!(
            pick(spec.clone(), None, &all).expect_err("none left"),
            "Internal error occurred: failed to allocate a HealthCheck NodePort 0: range is full"
        );
        let chosen = pick(spec, None, &all[1..]).expect("one left");
        assert_eq!(chosen, [0, 30005, 30000]);
        let old = json!({"type": "ClusterIP", "ports": [{"port": 80}]});
        let outside = pick(ports(&[("TCP", 80, 80)]), Some(old), &[]).expect_err("outside");
        assert!(outside.ends_with(
            "80: provided port is not in the valid range. The range of valid ports is 30000-30009"
        ));
    }
}
