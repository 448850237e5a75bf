//! The node ports of a service, that of its health check among them.

use common::status::Status;
use serde_json::json;

use super::allocation::PortMap;
use super::hooks::{Held, ServiceHooks};
use super::{needs_health_check_port, needs_node_port, node_ports, refused};
use crate::object::Object;
use crate::registry::tree::{field, int, items, items_mut, set, struct_mut};

impl ServiceHooks {
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
        let (written, chosen) = self
            .claims
            .change_ports(|map| {
                let (mut candidate, mut chosen) = (given.clone(), Vec::new());
                allocate_ports(&mut candidate, old, map, &mut chosen)?;
                let changed = !dry_run && !chosen.is_empty();
                Ok(((candidate, chosen), changed))
            })
            .await?;
        *service = written;
        if !dry_run {
            taken.ports = chosen;
        }
        Ok(())
    }
}

pub(super) fn allocate_ports(
    service: &mut Object,
    old: Option<&Object>,
    map: &mut PortMap,
    chosen: &mut Vec<u16>,
) -> Result<(), Status> {
    let had = old.map(node_ports).unwrap_or_default();
    let whole = service.clone();
    let Some(spec) = struct_mut(service, "spec") else { return Ok(()) };
    let allocate = needs_node_port(spec);
    let health = needs_health_check_port(spec);
    // TCP and UDP on one port number share one node port
    let mut by_port: Vec<(i64, u16)> = Vec::new();
    let wanted: Vec<(i64, i64)> = items(spec, "ports")
        .iter()
        .map(|p| (int(p, "port").unwrap_or(0), int(p, "nodePort").unwrap_or(0)))
        .collect();
    for (i, port) in items_mut(spec, "ports").iter_mut().enumerate() {
        let (number, mut asked) = wanted[i];
        if asked == 0 && !allocate {
            continue;
        }
        let shared = by_port.iter().find(|(n, _)| *n == number).map(|(_, p)| *p);
        if asked == 0 && shared.is_none() {
            asked = wanted.iter().find(|(n, p)| *n == number && *p != 0).map_or(0, |(_, p)| *p);
        }
        let chosen = match (u16::try_from(asked).ok().filter(|p| *p != 0), shared) {
            (Some(asked), Some(shared)) if asked == shared => shared,
            (None, Some(shared)) if asked == 0 => shared,
            (Some(asked), _) => {
                if !had.contains(&asked) {
                    map.reserve(asked).map_err(|e| {
                        refused(&whole, &format!("spec.ports[{i}].nodePort"), &json!(asked), &e.to_string())
                    })?;
                    chosen.push(asked);
                }
                asked
            }
            (None, _) if asked != 0 => continue,
            (None, _) => {
                let port = map
                    .reserve_any()
                    .map_err(|e| Status::internal(format!("failed to allocate a nodePort: {e}")))?;
                chosen.push(port);
                port
            }
        };
        by_port.push((number, chosen));
        set(port, "nodePort", chosen);
    }
    if health {
        let asked = int(spec, "healthCheckNodePort").and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
        let failed = |e| Status::internal(format!("failed to allocate a HealthCheck NodePort: {e}"));
        match asked {
            Some(port) if had.contains(&port) => {}
            Some(port) => {
                map.reserve(port).map_err(failed)?;
                chosen.push(port);
            }
            None => {
                let port = map.reserve_any().map_err(failed)?;
                chosen.push(port);
                set(spec, "healthCheckNodePort", port);
            }
        }
    }
    Ok(())
}
