//! Chain and set names: a hash of what they are about, then what they are about.

use sha2::{Digest, Sha256};

use crate::model::{Endpoint, Key, ServicePort};

/// nftables' limit on names is 128 with the terminator; prefixes take up to ten.
const BASE_MAX: usize = 116;

fn hashed(name: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(name.as_bytes());
    // Eight base32 digits are the first five bytes.
    let bits = digest[..5].iter().fold(0u64, |acc, b| (acc << 8) | u64::from(*b));
    let hash: String = (0..8)
        .map(|i| char::from(ALPHABET[usize::try_from((bits >> (35 - 5 * i)) & 31).unwrap_or(0)]))
        .collect();
    let mut out = format!("{hash}-{name}");
    if out.len() > BASE_MAX {
        out.truncate(BASE_MAX - 3);
        out.push_str("...");
    }
    out
}

/// `HASH-namespace/name/tcp/port`.
pub(crate) fn port_base(key: &Key, port: &ServicePort) -> String {
    hashed(&format!("{}/{}/{}/{}", key.namespace, key.name, port.protocol, port.name))
}

/// `HASH-namespace/name/tcp/port__address/port`, with what names may not contain replaced.
pub(crate) fn endpoint_base(key: &Key, port: &ServicePort, endpoint: &Endpoint) -> String {
    let address = endpoint.ip.to_string().replace(':', ".");
    hashed(&format!(
        "{}/{}/{}/{}__{address}/{}",
        key.namespace, key.name, port.protocol, port.name, endpoint.port
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        // From the example in upstream's documentation of its names.
        let key = Key::new("ns1", "svc1");
        let port = ServicePort { name: "p80".into(), protocol: "tcp".into(), port: 80, node_port: None };
        assert_eq!(port_base(&key, &port), "ULMVA6XW-ns1/svc1/tcp/p80");
    }

    #[test]
    fn long_names_are_cut() {
        let key = Key::new("n".repeat(63), "s".repeat(63));
        let port = ServicePort { name: "p".into(), protocol: "tcp".into(), port: 80, node_port: None };
        assert_eq!(port_base(&key, &port).len(), BASE_MAX);
    }
}
