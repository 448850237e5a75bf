//! What there is to allocate from: the ranges of every ServiceCIDR (KEP-1880).
//!
//! A range is allocated from while one of the ServiceCIDRs that name it is ready and not going. One without a
//! Ready condition counts as ready, so that a cluster works without its controller. Which ready range a service
//! gets its address from is left open by upstream; here the default's come first, then those of others by name.

use std::net::IpAddr;
use std::sync::Arc;

use super::allocation::{AddressRange, AllocationError};
use crate::cacher::CachedObject;
use crate::object::Object;
use crate::registry::tree::{at, field, items, strings, text};

/// The ServiceCIDR that is made of `--service-cluster-ip-range`.
pub const DEFAULT: &str = "kubernetes";

/// See the module. As they were when it was made.
#[derive(Debug, Default)]
pub struct Ranges(Vec<Ranged>);

#[derive(Debug)]
struct Ranged {
    range: AddressRange,
    ready: bool,
}

impl Ranges {
    pub fn of(cidrs: &[Arc<CachedObject>]) -> Self {
        let mut trees: Vec<(&str, Object)> =
            cidrs.iter().map(|cidr| (cidr.name.as_str(), cidr.tree())).collect();
        trees.sort_by_key(|(name, _)| (*name != DEFAULT, *name));
        let mut ranges = Self::default();
        for (_, cidr) in &trees {
            let ready = is_ready(cidr);
            for net in strings(field(cidr, "spec"), "cidrs").iter().filter_map(|text| text.parse().ok()) {
                let Some(range) = AddressRange::new(net) else { continue };
                match ranges.0.iter_mut().find(|known| known.range == range) {
                    Some(known) => known.ready |= ready,
                    None => ranges.0.push(Ranged { range, ready }),
                }
            }
        }
        ranges
    }

    pub fn iter(&self) -> impl Iterator<Item = &AddressRange> {
        self.0.iter().map(|ranged| &ranged.range)
    }

    /// The ready ones of a family, in the order in which they are tried.
    pub fn ready(&self, family: &str) -> impl Iterator<Item = &AddressRange> {
        self.0.iter().filter(move |r| r.ready && r.range.family() == family).map(|ranged| &ranged.range)
    }

    /// Whether an address is one of any range's, ready or not.
    pub fn contain(&self, ip: IpAddr) -> bool {
        self.iter().any(|range| range.contains(ip))
    }

    /// The narrowest ready range that has the address.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_address(&self, ip: IpAddr) -> Result<&AddressRange, AllocationError> {
        let ready = self.0.iter().filter(|ranged| ranged.ready).map(|ranged| &ranged.range);
        let having = ready.filter(|range| range.contains(ip));
        having.max_by_key(|range| range.cidr().prefix_len()).ok_or(AllocationError::NoRange)
    }
}

fn is_ready(cidr: &Object) -> bool {
    let going = !at(cidr, &["metadata", "deletionTimestamp"]).is_null();
    let condition = items(field(cidr, "status"), "conditions").iter().find(|c| text(c, "type") == "Ready");
    !going && condition.is_none_or(|condition| text(condition, "status") == "True")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn cidr(name: &str, cidrs: &[&str], more: Value) -> Arc<CachedObject> {
        let mut object = json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}});
        let change = |object: &mut Value, more: Value| {
            let Value::Object(more) = more else { return };
            for (path, value) in more {
                *object.pointer_mut(&path).expect("a place") = value;
            }
        };
        object["metadata"]["deletionTimestamp"] = Value::Null;
        object["status"] = Value::Null;
        change(&mut object, more);
        Arc::new(CachedObject {
            key: String::new(),
            revision: Default::default(),
            namespace: String::new(),
            name: name.to_owned(),
            uid: String::new(),
            labels: Vec::new(),
            fields: Vec::new(),
            bytes: Bytes::from(object.to_string()),
        })
    }

    fn condition(status: &str) -> Value {
        json!({"/status": {"conditions": [{"type": "Ready", "status": status}]}})
    }

    #[test]
    fn only_ready_ranges_are_allocated_from_the_defaults_first() {
        let ranges = Ranges::of(&[
            cidr("a", &["10.2.0.0/24", "fd00::/112"], condition("True")),
            cidr("b", &["10.3.0.0/24"], condition("False")),
            cidr("c", &["10.4.0.0/24"], json!({"/metadata/deletionTimestamp": "2020-01-01T00:00:00Z"})),
            cidr(DEFAULT, &["10.1.0.0/24"], json!({})),
        ]);
        let ready = |family| ranges.ready(family).map(|r| r.cidr().to_string()).collect::<Vec<_>>();
        assert_eq!(ready("IPv4"), ["10.1.0.0/24", "10.2.0.0/24"]);
        assert_eq!(ready("IPv6"), ["fd00::/112"]);
        let ip = |text: &str| text.parse::<IpAddr>().expect("ip");
        assert!(ranges.contain(ip("10.3.0.1")) && ranges.contain(ip("10.4.0.1")));
        assert_eq!(ranges.of_address(ip("10.3.0.1")), Err(AllocationError::NoRange));
        assert!(!ranges.contain(ip("10.1.0.0")) && !ranges.contain(ip("10.1.0.255")));
    }

    #[test]
    fn one_ready_servicecidr_of_two_makes_their_range_ready() {
        let ranges = Ranges::of(&[
            cidr("a", &["10.2.0.0/24"], condition("False")),
            cidr("b", &["10.2.0.0/24"], condition("True")),
            cidr("c", &["10.2.0.0/16"], condition("True")),
        ]);
        assert_eq!(ranges.ready("IPv4").count(), 2);
        let found = ranges.of_address("10.2.0.9".parse().expect("ip")).expect("in both");
        assert_eq!(found.cidr().to_string(), "10.2.0.0/24");
    }
}
