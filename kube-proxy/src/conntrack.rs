//! Removing the kernel's memory of UDP flows to endpoints that are gone: without it a client that keeps sending
//! keeps its dead endpoint.
//!
//! Planning is pure; the `conntrack` tool does the work. Answers to: pkg/proxy/conntrack.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Stdio;

use tokio::process::Command;

/// Deletions carried out for one change; more at once would stall rule updates, the flows time out by themselves.
const DELETIONS_MAX: usize = 256;

/// The UDP side of one service port: where clients send to and where it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpPort {
    /// Addresses of the service with its port.
    pub fronts: BTreeSet<(IpAddr, u16)>,
    pub node_port: Option<u16>,
    pub backends: BTreeSet<(IpAddr, u16)>,
}

/// Pure: arguments for `conntrack -D`, each naming flows that must be forgotten.
pub fn stale(old: &UdpPort, new: &UdpPort) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    let gone: Vec<&(IpAddr, u16)> = old.backends.difference(&new.backends).collect();
    // Flows that began while there was no endpoint went to the service's address itself.
    let revived = old.backends.is_empty() && !new.backends.is_empty();
    let base = |ip: Option<&IpAddr>, port: u16| {
        let mut args: Vec<String> = ["-D", "-p", "udp"].map(str::to_owned).to_vec();
        if let Some(ip) = ip {
            args.extend(["-f".into(), if ip.is_ipv4() { "ipv4" } else { "ipv6" }.to_owned()]);
            args.extend(["--orig-dst".into(), ip.to_string()]);
        }
        args.extend(["--orig-port-dst".into(), port.to_string()]);
        args
    };
    let fronts = new.fronts.iter().chain(old.fronts.difference(&new.fronts));
    let targets: Vec<(Option<&IpAddr>, u16)> = fronts
        .map(|(ip, port)| (Some(ip), *port))
        .chain(old.node_port.or(new.node_port).map(|port| (None, port)))
        .collect();
    for (ip, port) in targets {
        for (backend, _) in &gone {
            if ip.is_some_and(|ip| ip.is_ipv4() != backend.is_ipv4()) {
                continue;
            }
            let mut args = base(ip, port);
            args.extend(["--dst-nat".into(), backend.to_string()]);
            out.push(args);
        }
        if revived {
            out.push(base(ip, port));
        }
    }
    out.truncate(DELETIONS_MAX);
    out
}

/// Runs the tool once per deletion. That it finds no flow is no failure.
pub async fn delete(deletions: Vec<Vec<String>>) {
    for arguments in deletions {
        let result = Command::new("conntrack")
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output()
            .await;
        match result {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                if !text.contains("0 flow entries") {
                    tracing::warn!(arguments = arguments.join(" "), text, "conntrack could not delete flows");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot run conntrack (is the package installed?)");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_to_lost_endpoints_are_named() {
        let ip = |t: &str| t.parse::<IpAddr>().expect("ip");
        let old = UdpPort {
            fronts: BTreeSet::from([(ip("10.96.0.10"), 53)]),
            node_port: None,
            backends: BTreeSet::from([(ip("10.1.0.1"), 53), (ip("10.1.0.2"), 53)]),
        };
        let new = UdpPort { backends: BTreeSet::from([(ip("10.1.0.2"), 53)]), ..old.clone() };
        let lines: Vec<String> = stale(&old, &new).iter().map(|a| a.join(" ")).collect();
        assert_eq!(lines, ["-D -p udp -f ipv4 --orig-dst 10.96.0.10 --orig-port-dst 53 --dst-nat 10.1.0.1"]);
        assert!(stale(&new, &new).is_empty());
        let none = UdpPort { backends: BTreeSet::new(), ..old };
        assert_eq!(stale(&none, &new).len(), 1);
    }
}
