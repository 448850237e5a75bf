//! What a pod sees of names: resolv.conf, hostname, /etc/hosts. Pure but for reading the node's own files.
//!
//! Answers to upstream's `pkg/kubelet/network/dns` and `managedHostsFileContent`.

use std::path::Path;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::cri::v1::DnsConfig;
use crate::pod;

const SEARCHES_MAX: usize = 32;
const NAMESERVERS_MAX: usize = 3;
const HOSTNAME_MAX: usize = 63;

/// A resolv.conf's three lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads the text; unknown lines are passed over.
    pub fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or("");
            let mut fields = line.split_whitespace();
            match fields.next() {
                Some("nameserver") => out.nameservers.extend(fields.next().map(str::to_owned)),
                Some("search") => out.searches = fields.map(|f| f.trim_end_matches('.').to_owned()).collect(),
                Some("options") => out.options = fields.map(str::to_owned).collect(),
                _ => {}
            }
        }
        out
    }

    /// The node's file; empty when there is none.
    pub fn read(path: &str) -> Self {
        if path.is_empty() {
            return Self::default();
        }
        std::fs::read_to_string(path).map(|t| Self::parse(&t)).unwrap_or_default()
    }
}

/// The cluster's DNS as the kubelet is configured.
#[derive(Debug, Clone, Default)]
pub struct ClusterDns {
    pub servers: Vec<String>,
    pub domain: String,
    pub resolv_conf: String,
}

impl ClusterDns {
    /// The pod's resolv.conf for the runtime.
    pub fn for_pod(&self, pod: &Pod) -> DnsConfig {
        let host = ResolvConf::read(&self.resolv_conf);
        let out = self.plan(pod, host);
        DnsConfig { servers: out.nameservers, searches: out.searches, options: out.options }
    }

    fn plan(&self, pod: &Pod, host: ResolvConf) -> ResolvConf {
        let spec = pod::spec(pod);
        let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
        let cluster = match policy {
            "ClusterFirstWithHostNet" => true,
            "ClusterFirst" => !pod::is_host_network(pod),
            _ => false,
        };
        let mut out = if policy == "None" {
            ResolvConf::default()
        } else if cluster && !self.servers.is_empty() {
            let mut searches = Vec::new();
            if !self.domain.is_empty() {
                let domain = &self.domain;
                searches.push(format!("{}.svc.{domain}", pod::namespace(pod)));
                searches.push(format!("svc.{domain}"));
                searches.push(domain.clone());
            }
            searches.extend(host.searches);
            ResolvConf { nameservers: self.servers.clone(), searches, options: vec!["ndots:5".into()] }
        } else {
            host
        };
        if let Some(config) = &spec.dns_config {
            out.nameservers.extend(config.nameservers.iter().flatten().cloned());
            out.searches.extend(config.searches.iter().flatten().cloned());
            for option in config.options.iter().flatten() {
                let Some(name) = &option.name else { continue };
                let text = option.value.as_ref().map_or_else(|| name.clone(), |v| format!("{name}:{v}"));
                out.options.retain(|o| o.split(':').next() != Some(name));
                out.options.push(text);
            }
        }
        unique(&mut out.nameservers);
        unique(&mut out.searches);
        out.nameservers.truncate(NAMESERVERS_MAX);
        out.searches.truncate(SEARCHES_MAX);
        out
    }

    /// Short host name and domain of the pod.
    pub fn hostname(&self, pod: &Pod) -> (String, String) {
        let spec = pod::spec(pod);
        let named = spec.hostname.as_deref().filter(|h| !h.is_empty());
        let mut host = named.unwrap_or_else(|| pod::name(pod)).to_owned();
        if host.len() > HOSTNAME_MAX {
            host.truncate(HOSTNAME_MAX);
            host.truncate(host.trim_end_matches(['-', '.']).len());
        }
        let domain = spec
            .subdomain
            .as_deref()
            .filter(|s| !s.is_empty())
            .map(|s| format!("{s}.{}.svc.{}", pod::namespace(pod), self.domain))
            .unwrap_or_default();
        (host, domain)
    }

    /// What the sandbox's UTS namespace is called.
    pub fn sandbox_hostname(&self, pod: &Pod) -> String {
        let (host, domain) = self.hostname(pod);
        if pod::spec(pod).set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
            format!("{host}.{domain}")
        } else {
            host
        }
    }
}

fn unique(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|v| seen.insert(v.clone()));
}

/// The text of a pod's /etc/hosts.
pub fn hosts_file(pod: &Pod, ips: &[String], host: &str, domain: &str, node_hosts: &Path) -> String {
    let aliases = pod::spec(pod).host_aliases.as_deref().unwrap_or(&[]);
    let mut out = if pod::is_host_network(pod) {
        let own = std::fs::read_to_string(node_hosts).unwrap_or_default();
        format!("# Kubernetes-managed hosts file (host network).\n{own}")
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        for ip in ips {
            if domain.is_empty() {
                text.push_str(&format!("{ip}\t{host}\n"));
            } else {
                text.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n"));
            }
        }
        text
    };
    out.push_str(&alias_lines(aliases));
    out
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or(&[]).join("\t");
        out.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies() {
        let dns =
            ClusterDns { servers: vec!["10.0.0.10".into()], domain: "c.l".into(), ..ClusterDns::default() };
        let host = ResolvConf::parse("nameserver 1.1.1.1 # x\nsearch a.b. c\noptions rotate\n");
        let check = |spec: serde_json::Value, servers: &[&str], searches: &[&str], options: &[&str]| {
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
                    .unwrap();
            let got = dns.plan(&pod, host.clone());
            assert_eq!(got.nameservers, servers);
            assert_eq!(got.searches, searches);
            assert_eq!(got.options, options);
        };
        let none = json!({"containers": []});
        check(none, &["10.0.0.10"], &["n.svc.c.l", "svc.c.l", "c.l", "a.b", "c"], &["ndots:5"]);
        check(json!({"containers": [], "hostNetwork": true}), &["1.1.1.1"], &["a.b", "c"], &["rotate"]);
        check(json!({"containers": [], "dnsPolicy": "Default"}), &["1.1.1.1"], &["a.b", "c"], &["rotate"]);
        check(
            json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"],
                "searches": ["z"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            &["9.9.9.9"],
            &["z"],
            &["ndots:2", "edns0"],
        );
    }

    #[test]
    fn long_names_are_cut() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": format!("{}-{}", "a".repeat(62), "b")}}))
                .unwrap();
        assert_eq!(ClusterDns::default().hostname(&pod).0, "a".repeat(62));
    }
}
