//! Continue tokens: upstream's form, so that a client may go on at another server. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::status::Status;
use serde::{Deserialize, Serialize};

use crate::storage::Revision;

const VERSION: &str = "meta.k8s.io/v1";

/// Where a paged list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Continue {
    /// `None`: at whatever is newest, after the original revision expired.
    pub(super) revision: Option<Revision>,
    /// The first key to return, full.
    pub(super) start: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
}

impl Continue {
    /// `prefix` is what the list is about: resource and namespace.
    pub(super) fn encode(&self, prefix: &str) -> String {
        let wire = Wire {
            v: VERSION.into(),
            rv: self.revision.map_or(-1, |r| i64::try_from(r.0).unwrap_or(i64::MAX)),
            start: self.start.strip_prefix(prefix).unwrap_or(&self.start).to_owned(),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).expect("a struct of strings and a number encodes"))
    }

    /// # Errors
    /// 400 for anything that this or another Kubernetes server did not make.
    pub(super) fn decode(token: &str, prefix: &str) -> Result<Self, Status> {
        let refuse = |why: String| Status::bad_request(format!("invalid continue token: {why}"));
        let invalid = |e: &dyn std::fmt::Display| refuse(format!("continue key is not valid: {e}"));
        let data = URL_SAFE_NO_PAD.decode(token).map_err(|e| invalid(&e))?;
        let wire: Wire = serde_json::from_slice(&data).map_err(|e| invalid(&e))?;
        if wire.v != VERSION {
            return Err(refuse(format!(
                "continue key is not valid: server does not recognize this encoded version {}",
                wire.v
            )));
        }
        let revision = match wire.rv {
            0 => {
                return Err(refuse(
                    "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
                        .into(),
                ));
            }
            rv if rv < 0 => None,
            rv => Some(Revision(rv.unsigned_abs())),
        };
        if wire.start.is_empty() {
            return Err(refuse(
                "continue key is not valid: encoded start key empty (version meta.k8s.io/v1)".into(),
            ));
        }
        // A key never leaves its prefix: no empty, "." or ".." step.
        let relative = wire.start.strip_prefix('/').unwrap_or(&wire.start);
        if relative.split('/').any(|step| matches!(step, "" | "." | "..")) {
            return Err(refuse(format!("continue key is not valid: {}", wire.start)));
        }
        Ok(Self { revision, start: format!("{prefix}{relative}") })
    }
}

/// The key right after `key`.
pub(super) fn successor(key: &str) -> String {
    format!("{key}\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_round_trips_and_nonsense_is_refused() {
        let prefix = "/registry/pods/ns/";
        for revision in [Some(Revision(7)), None] {
            let at = Continue { revision, start: "/registry/pods/ns/a\0".into() };
            assert_eq!(Continue::decode(&at.encode(prefix), prefix).expect("own token"), at);
        }
        let wire = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for bad in [
            "%%".to_owned(),
            wire("{}"),
            wire(r#"{"v":"meta.k8s.io/v2","rv":1,"start":"a"}"#),
            wire(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#),
            wire(r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#),
            wire(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../secrets/a"}"#),
        ] {
            assert_eq!(Continue::decode(&bad, prefix).expect_err("refused").code, 400, "{bad}");
        }
    }

    #[test]
    fn fuzzed_tokens_never_leave_their_prefix() {
        let prefix = "/registry/pods/ns/";
        let corpus = [
            r#"{"v":"meta.k8s.io/v1","rv":7,"start":"a\u0000"}"#,
            r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"b/../../secrets"}"#,
        ];
        let corpus = corpus.map(|text| text.as_bytes().to_vec());
        crate::fuzz::run("continue tokens", &corpus, |bytes, _| {
            for token in [URL_SAFE_NO_PAD.encode(bytes), String::from_utf8_lossy(bytes).into_owned()] {
                if let Ok(at) = Continue::decode(&token, prefix) {
                    assert!(at.start.starts_with(prefix));
                    assert!(!at.start.split('/').any(|step| step == ".."));
                }
            }
        });
    }
}
