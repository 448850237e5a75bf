//! Pure: slices as they are and endpoints as they should be in, as few writes as possible out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};

use super::desired::{Group, port_key};
use super::{HEADLESS, MANAGED_BY, SERVICE_NAME};
use crate::controller::View;
use crate::views::{EndpointSlice, Service};

#[derive(Debug)]
pub enum Write {
    Create { address_type: &'static str, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint> },
    Update { slice: Arc<EndpointSlice>, endpoints: Vec<Endpoint> },
    Delete(Arc<EndpointSlice>),
}

/// The labels of a service's slices: the service's own and the reserved ones.
pub fn labels(service: &Service, manager: &str) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    for reserved in [HEADLESS, SERVICE_NAME, MANAGED_BY] {
        labels.remove(reserved);
    }
    if service.spec.cluster_ip == "None" || service.spec.cluster_ip.is_empty() {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.name().to_owned());
    labels.insert(MANAGED_BY.into(), manager.to_owned());
    labels
}

/// What makes two endpoints the same one, whose details may change.
fn identity(e: &Endpoint) -> (Vec<&str>, &str, &str, &str) {
    (
        e.addresses.iter().map(String::as_str).collect(),
        e.hostname.as_deref().unwrap_or(""),
        e.target_ref.as_ref().and_then(|t| t.uid.as_deref()).unwrap_or(""),
        e.node_name.as_deref().unwrap_or(""),
    )
}

fn owned_identity(e: &Endpoint) -> String {
    format!("{:?}", identity(e))
}

/// One slice while endpoints are being placed.
struct Draft {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// The writes that bring `existing` to `groups`.
pub fn plan(
    service: &Service,
    existing: &[Arc<EndpointSlice>],
    groups: Vec<Group>,
    labels: &BTreeMap<String, String>,
    per_slice: usize,
) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut left: HashMap<(String, String), Vec<Arc<EndpointSlice>>> = HashMap::new();
    for slice in existing {
        if slice.controller_uid() == Some(service.uid()) {
            let key = (slice.address_type.clone(), port_key(&slice.ports));
            left.entry(key).or_default().push(slice.clone());
        } else {
            // A former service of the same name made it.
            writes.push(Write::Delete(slice.clone()));
        }
    }
    for group in groups {
        let slices =
            left.remove(&(group.address_type.to_owned(), port_key(&group.ports))).unwrap_or_default();
        place(group, slices, labels, per_slice, &mut writes);
    }
    writes.extend(left.into_values().flatten().map(Write::Delete));
    writes
}

fn place(
    group: Group,
    slices: Vec<Arc<EndpointSlice>>,
    labels: &BTreeMap<String, String>,
    per_slice: usize,
    writes: &mut Vec<Write>,
) {
    let Group { address_type, ports, endpoints } = group;
    let placeholder = endpoints.is_empty();
    let mut wanted: HashMap<String, Endpoint> =
        endpoints.into_iter().map(|e| (owned_identity(&e), e)).collect();
    let mut drafts: Vec<Draft> = slices
        .into_iter()
        .map(|slice| {
            let mut kept = Vec::with_capacity(slice.endpoints.len());
            let mut changed = slice.metadata.labels.as_ref() != Some(labels);
            for old in &slice.endpoints {
                if let Some(new) = wanted.remove(&owned_identity(old)) {
                    changed |= !same(old, &new);
                    kept.push(new);
                }
            }
            changed |= kept.len() != slice.endpoints.len();
            Draft { slice, endpoints: kept, changed }
        })
        .collect();
    let mut new: Vec<Endpoint> = wanted.into_values().collect();
    new.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    // Fullest first among those that are written anyway: fewer, fuller slices.
    drafts.sort_by_key(|d| std::cmp::Reverse(d.endpoints.len()));
    for draft in drafts.iter_mut().filter(|d| d.changed) {
        let room = per_slice.saturating_sub(draft.endpoints.len()).min(new.len());
        draft.endpoints.extend(new.drain(..room));
    }
    // The rest goes whole into one untouched slice if it fits, and otherwise into new ones.
    if !new.is_empty()
        && let Some(draft) =
            drafts.iter_mut().find(|d| !d.changed && d.endpoints.len() + new.len() <= per_slice)
    {
        draft.endpoints.append(&mut new);
        draft.changed = true;
    }
    let mut kept_one = false;
    for draft in drafts {
        let was_placeholder = draft.slice.endpoints.is_empty();
        if draft.endpoints.is_empty() && !(placeholder && was_placeholder && !kept_one) {
            writes.push(Write::Delete(draft.slice));
        } else {
            kept_one = true;
            if draft.changed {
                writes.push(Write::Update { slice: draft.slice, endpoints: draft.endpoints });
            }
        }
    }
    while !new.is_empty() {
        let rest = new.split_off(per_slice.min(new.len()));
        let endpoints = std::mem::replace(&mut new, rest);
        writes.push(Write::Create { address_type, ports: ports.clone(), endpoints });
    }
    if placeholder && !kept_one {
        writes.push(Write::Create { address_type, ports, endpoints: Vec::new() });
    }
}

/// Equal in what consumers read; the resourceVersion in a target is not that.
fn same(a: &Endpoint, b: &Endpoint) -> bool {
    a.conditions == b.conditions
        && a.zone == b.zone
        && a.node_name == b.node_name
        && a.hostname == b.hostname
        && a.target_ref.as_ref().map(|t| (&t.uid, &t.name))
            == b.target_ref.as_ref().map(|t| (&t.uid, &t.name))
}

/// Addresses that more than one slice lists, which must not happen.
#[cfg(test)]
fn duplicates(slices: &[Vec<Endpoint>]) -> usize {
    let mut seen = std::collections::HashSet::new();
    slices.iter().flatten().filter(|e| !seen.insert(owned_identity(e))).count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::desired::groups;
    use super::super::desired::tests::{pod, service};
    use super::*;

    fn run(pods: std::ops::Range<usize>, existing: &[Arc<EndpointSlice>], per_slice: usize) -> Vec<Write> {
        let s = service(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}));
        let pods: Vec<_> = pods
            .map(|i| pod(&format!("p{i:03}"), &format!("10.1.{}.{}", i / 200, i % 200), true, json!({})))
            .collect();
        let g = groups(&s, &pods, &|_| Some(None));
        plan(&s, existing, g, &labels(&s, "m"), per_slice)
    }

    /// Carries out the writes.
    fn settle(writes: Vec<Write>, existing: &[Arc<EndpointSlice>]) -> Vec<Arc<EndpointSlice>> {
        let s = service(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}));
        let mut out: Vec<Arc<EndpointSlice>> = existing.to_vec();
        for (i, write) in writes.into_iter().enumerate() {
            let mut slice = EndpointSlice::default();
            match write {
                Write::Delete(d) => {
                    out.retain(|s| s.name() != d.name());
                    continue;
                }
                Write::Update { slice: old, endpoints } => {
                    out.retain(|s| s.name() != old.name());
                    slice = (*old).clone();
                    slice.endpoints = endpoints;
                }
                Write::Create { address_type, ports, endpoints } => {
                    slice.metadata.name = Some(format!("new{i}-{}", out.len()));
                    slice.address_type = address_type.into();
                    slice.ports = ports;
                    slice.endpoints = endpoints;
                    slice.metadata.owner_references = Some(vec![
                        serde_json::from_value(crate::controller::controller_reference(&s)).expect("owner"),
                    ]);
                }
            }
            slice.metadata.labels = Some(labels(&s, "m"));
            out.push(Arc::new(slice));
        }
        out
    }

    #[test]
    fn slices_are_filled_and_then_left_alone() {
        let slices = settle(run(0..250, &[], 100), &[]);
        let mut sizes: Vec<_> = slices.iter().map(|s| s.endpoints.len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [50, 100, 100]);
        assert!(run(0..250, &slices, 100).is_empty());
        // One pod less touches one slice; one more goes where there is room.
        let less = run(1..250, &slices, 100);
        assert!(matches!(&less[..], [Write::Update { endpoints, .. }] if endpoints.len() == 99));
        let more = run(0..251, &slices, 100);
        assert!(matches!(&more[..], [Write::Update { endpoints, .. }] if endpoints.len() == 51));
        let after: Vec<_> = settle(more, &slices).iter().map(|s| s.endpoints.clone()).collect();
        assert_eq!(duplicates(&after), 0);
    }

    #[test]
    fn the_last_pod_leaves_a_placeholder() {
        let slices = settle(run(0..2, &[], 100), &[]);
        let slices = settle(run(0..0, &slices, 100), &slices);
        assert_eq!((slices.len(), slices[0].endpoints.len(), slices[0].ports.len()), (1, 0, 0));
        assert!(run(0..0, &slices, 100).is_empty());
    }

    #[test]
    fn a_namesakes_slices_go() {
        let slices = settle(run(0..1, &[], 100), &[]);
        let mut foreign = (*slices[0]).clone();
        foreign.metadata.owner_references.get_or_insert_default()[0].uid = "other".into();
        let writes = run(0..1, &[Arc::new(foreign)], 100);
        assert!(matches!(&writes[..], [Write::Delete(_), Write::Create { .. }]));
    }
}
