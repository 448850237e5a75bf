//! Which endpoints this node uses, by traffic policy, hints and readiness.

use super::Endpoint;

/// Where this proxy runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    pub node: String,
    pub zone: String,
}

/// Endpoints by policy; ready ones, or where there are none, those that terminate but still serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Categorized {
    pub cluster: Vec<Endpoint>,
    pub local: Vec<Endpoint>,
    /// Usable endpoints exist on some node.
    pub any: bool,
}

pub fn categorize(
    endpoints: &[Endpoint],
    place: &Place,
    uses_cluster: bool,
    uses_local: bool,
) -> Categorized {
    let mut out = Categorized::default();
    let is_local = |e: &Endpoint| e.node.as_deref() == Some(place.node.as_str());
    let draining = |e: &Endpoint| e.serving && e.terminating;
    let pick = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<Endpoint> {
        endpoints.iter().filter(|e| wanted(e)).cloned().collect()
    };
    if uses_cluster {
        let hint = hint_for(endpoints, place);
        out.cluster = pick(&|e| e.ready && hint.allows(e, place));
        if out.cluster.is_empty() {
            out.cluster = pick(&draining);
        }
        out.any = !out.cluster.is_empty();
    }
    if uses_local {
        out.any |= endpoints.iter().any(|e| e.ready || draining(e));
        out.local = pick(&|e| is_local(e) && e.ready);
        if out.local.is_empty() {
            out.local = pick(&|e| is_local(e) && draining(e));
        }
    }
    out
}

#[derive(Clone, Copy)]
enum Hint {
    None,
    Node,
    Zone,
}

impl Hint {
    fn allows(self, endpoint: &Endpoint, place: &Place) -> bool {
        match self {
            Self::None => true,
            Self::Node => endpoint.node_hints.contains(&place.node),
            Self::Zone => endpoint.zone_hints.contains(&place.zone),
        }
    }
}

/// Hints count only when every ready endpoint has one and one of them is for here (KEP-2433, KEP-3015).
fn hint_for(endpoints: &[Endpoint], place: &Place) -> Hint {
    let ready = || endpoints.iter().filter(|e| e.ready);
    if ready().next().is_none() {
        return Hint::None;
    }
    if ready().all(|e| !e.node_hints.is_empty()) && ready().any(|e| e.node_hints.contains(&place.node)) {
        return Hint::Node;
    }
    if ready().all(|e| !e.zone_hints.is_empty()) && ready().any(|e| e.zone_hints.contains(&place.zone)) {
        return Hint::Zone;
    }
    Hint::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: &str, node: &str, ready: bool, terminating: bool) -> Endpoint {
        Endpoint {
            ip: ip.parse().expect("ip"),
            port: 80,
            ready,
            serving: true,
            terminating,
            node: Some(node.into()),
            hostname: None,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
        }
    }

    fn here() -> Place {
        Place { node: "here".into(), zone: "z".into() }
    }

    fn ips(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints.iter().map(|e| e.ip.to_string()).collect()
    }

    #[test]
    fn draining_endpoints_serve_only_when_none_is_ready() {
        let all = [endpoint("10.0.0.1", "here", false, true), endpoint("10.0.0.2", "there", true, false)];
        let both = categorize(&all, &here(), true, true);
        assert_eq!(ips(&both.cluster), ["10.0.0.2"]);
        assert_eq!(ips(&both.local), ["10.0.0.1"]);
        let only = categorize(&all[..1], &here(), true, false);
        assert_eq!(ips(&only.cluster), ["10.0.0.1"]);
    }

    #[test]
    fn local_policy_without_local_endpoints_has_endpoints_elsewhere() {
        let all = [endpoint("10.0.0.2", "there", true, false)];
        let out = categorize(&all, &here(), false, true);
        assert!(out.any && out.local.is_empty() && out.cluster.is_empty());
    }

    #[test]
    fn zone_hints_need_to_be_complete() {
        let mut all = [endpoint("10.0.0.1", "a", true, false), endpoint("10.0.0.2", "b", true, false)];
        all[0].zone_hints = vec!["z".into()];
        assert_eq!(categorize(&all, &here(), true, false).cluster.len(), 2);
        all[1].zone_hints = vec!["other".into()];
        assert_eq!(ips(&categorize(&all, &here(), true, false).cluster), ["10.0.0.1"]);
    }
}
