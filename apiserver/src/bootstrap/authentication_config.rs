//! `kube-system/extension-apiserver-authentication`: how other servers may tell whom this one trusts.
//!
//! Answers to `pkg/controlplane/controller/clusterauthenticationtrust` upstream. Several servers add to it;
//! none removes what another wrote.

use std::sync::Arc;

use common::status::Status;
use serde_json::{Map, Value, json};

use super::Loopback;
use crate::authentication::x509::CaBundle;
use crate::object::Object;
use crate::resources::Registry;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// What this server trusts.
#[derive(Default)]
pub struct AuthenticationConfig {
    pub client_ca: Option<Arc<CaBundle>>,
    pub request_header: Option<RequestHeaderNames>,
}

/// The front proxy's part.
pub struct RequestHeaderNames {
    pub ca: Arc<CaBundle>,
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl AuthenticationConfig {
    /// Writes the map when something of ours is missing from it.
    pub async fn write(&self, loopback: &Loopback, registry: &Registry) -> Result<(), Status> {
        let current = registry.store("", "configmaps").cached(NAMESPACE, NAME).map(|c| c.tree());
        let present = current.as_ref().and_then(|c| c.get("data")).and_then(Value::as_object);
        let data = self.combined(present.unwrap_or(&Map::new()));
        if current.is_some() && present == Some(&data) {
            return Ok(());
        }
        let collection = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        match current {
            Some(mut map) => {
                map["data"] = Value::Object(data);
                loopback.update(&format!("{collection}/{NAME}"), &map).await
            }
            None => {
                let map: Object = json!({
                    "kind": "ConfigMap",
                    "apiVersion": "v1",
                    "metadata": {"name": NAME, "namespace": NAMESPACE},
                    "data": data,
                });
                loopback.create(&collection, &map).await
            }
        }
    }

    fn combined(&self, present: &Map<String, Value>) -> Map<String, Value> {
        let old = |key: &str| present.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut data = Map::new();
        let client_ca = self.client_ca.as_ref().map(|ca| ca.pem()).unwrap_or_default();
        let client_ca = certificates(old("client-ca-file"), &client_ca);
        if !client_ca.is_empty() {
            data.insert("client-ca-file".into(), client_ca.into());
        }
        let proxy_ca = self.request_header.as_ref().map(|r| r.ca.pem()).unwrap_or_default();
        let proxy_ca = certificates(old("requestheader-client-ca-file"), &proxy_ca);
        if proxy_ca.is_empty() {
            return data;
        }
        data.insert("requestheader-client-ca-file".into(), proxy_ca.into());
        let none = Vec::new();
        let own = self.request_header.as_ref();
        let mut list = |key: &str, names: &Vec<String>| {
            let mut all: Vec<String> = serde_json::from_str(old(key)).unwrap_or_default();
            for name in names {
                if !all.contains(name) {
                    all.push(name.clone());
                }
            }
            if !(all.is_empty() && key == "requestheader-uid-headers") {
                data.insert(key.into(), json!(all).to_string().into());
            }
        };
        list("requestheader-username-headers", own.map_or(&none, |r| &r.username_headers));
        list("requestheader-uid-headers", own.map_or(&none, |r| &r.uid_headers));
        list("requestheader-group-headers", own.map_or(&none, |r| &r.group_headers));
        list("requestheader-extra-headers-prefix", own.map_or(&none, |r| &r.extra_prefixes));
        list("requestheader-allowed-names", own.map_or(&none, |r| &r.allowed_names));
        data
    }
}

/// The certificates of both texts, each once.
fn certificates(first: &str, second: &str) -> String {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for text in [first, second] {
        for block in pem::parse_many(text).unwrap_or_default() {
            if block.tag() == "CERTIFICATE" && !all.iter().any(|c| c == block.contents()) {
                all.push(block.into_contents());
            }
        }
    }
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    all.into_iter().map(|der| pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)).collect()
}
