//! Asking the cluster for a certificate: CertificateSigningRequest, approval, issue.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
use sha2::{Digest, Sha512_256};

use super::CertificateError;

/// How often an undecided request is looked at.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How long a request may stay undecided (upstream's `certificateWaitTimeout`).
const DECISION_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub signer: &'static str,
    pub usages: &'static [&'static str],
    pub node_name: String,
    /// Names and addresses, for serving.
    pub hosts: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl Wanted {
    /// The certificate with which the node talks to the API server.
    pub fn client(node_name: &str) -> Self {
        Self {
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            usages: &["digital signature", "client auth"],
            node_name: node_name.to_owned(),
            hosts: vec![],
            addresses: vec![],
        }
    }

    /// The certificate that :10250 shows.
    pub fn serving(node_name: &str, addresses: &[IpAddr]) -> Self {
        Self {
            signer: "kubernetes.io/kubelet-serving",
            usages: &["digital signature", "server auth"],
            node_name: node_name.to_owned(),
            hosts: vec![node_name.to_owned()],
            addresses: addresses.to_vec(),
        }
    }

    fn common_name(&self) -> String {
        format!("system:node:{}", self.node_name)
    }

    /// The request in PEM, signed with `key`.
    ///
    /// # Errors
    /// When a name is no DNS name.
    pub fn request(&self, key: &KeyPair) -> Result<String, CertificateError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, self.common_name());
        for host in &self.hosts {
            let name = host.clone().try_into().map_err(CertificateError::Request)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(self.addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        let request = params.serialize_request(key).map_err(CertificateError::Request)?;
        request.pem().map_err(CertificateError::Request)
    }

    /// A name that is the same whenever the same key asks for the same thing, so that a restart finds its own
    /// request again.
    pub fn digested_name(&self, key: &KeyPair) -> String {
        let mut hash = Sha512_256::new();
        let mut write = |data: &[u8]| {
            hash.update(URL_SAFE_NO_PAD.encode(data));
            hash.update(b"|");
        };
        write(&key.subject_public_key_info());
        write(self.common_name().as_bytes());
        write(b"system:nodes");
        for usage in self.usages {
            write(usage.as_bytes());
        }
        format!("node-csr-{}", URL_SAFE_NO_PAD.encode(hash.finalize()))
    }
}

/// Asks and waits; gives the issued chain in PEM. With `named` the request has its digested name and is reused
/// when it is there already (bootstrap), else a generated one (rotation).
///
/// # Errors
/// When the API refuses, the request is denied or failed, or nobody decides in time.
pub async fn obtain(
    client: &kube::Client,
    wanted: &Wanted,
    key: &KeyPair,
    named: bool,
) -> Result<String, CertificateError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let mut metadata = ObjectMeta::default();
    if named {
        metadata.name = Some(wanted.digested_name(key));
    } else {
        metadata.generate_name = Some("csr-".into());
    }
    let request = CertificateSigningRequest {
        metadata: metadata.clone(),
        spec: CertificateSigningRequestSpec {
            request: ByteString(wanted.request(key)?.into_bytes()),
            signer_name: wanted.signer.to_owned(),
            usages: Some(wanted.usages.iter().map(|u| (*u).to_owned()).collect()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let name = match api.create(&PostParams::default(), &request).await {
        Ok(created) => created.metadata.name.unwrap_or_default(),
        Err(kube::Error::Api(status)) if status.code == 409 && named => {
            metadata.name.clone().unwrap_or_default()
        }
        Err(error) => return Err(CertificateError::Api(Box::new(error))),
    };
    tracing::info!(
        csr = name,
        signer = wanted.signer,
        "waiting for the certificate signing request to be issued"
    );
    let waiting = tokio::time::timeout(DECISION_TIMEOUT, wait(&api, &name)).await;
    waiting.map_err(|_| CertificateError::Undecided { name: name.clone() })?
}

async fn wait(api: &Api<CertificateSigningRequest>, name: &str) -> Result<String, CertificateError> {
    loop {
        match api.get(name).await {
            Ok(request) => {
                if let Some(decision) = decision(&request) {
                    return decision;
                }
            }
            Err(error @ kube::Error::Api(_)) => return Err(CertificateError::Api(Box::new(error))),
            // The API server may be restarting; the request is there when it is back.
            Err(error) => tracing::debug!(%error, "cannot look at the certificate signing request"),
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// What became of a request; None while nothing did.
fn decision(request: &CertificateSigningRequest) -> Option<Result<String, CertificateError>> {
    let name = request.metadata.name.clone().unwrap_or_default();
    let status = request.status.as_ref()?;
    let mut approved = false;
    for condition in status.conditions.iter().flatten() {
        let refused = |what| {
            Some(Err(CertificateError::Refused {
                name: name.clone(),
                what,
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
            }))
        };
        match condition.type_.as_str() {
            "Denied" => return refused("denied"),
            "Failed" => return refused("failed"),
            "Approved" => approved = true,
            _ => {}
        }
    }
    let issued = status.certificate.as_ref().filter(|c| approved && !c.0.is_empty())?;
    Some(Ok(String::from_utf8_lossy(&issued.0).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use x509_parser::prelude::*;

    #[test]
    fn requests_name_the_node_and_its_hosts() {
        let key = KeyPair::generate().unwrap();
        let wanted = Wanted::serving("n1", &["10.0.0.1".parse().unwrap()]);
        let pem = wanted.request(&key).unwrap();
        let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&block.contents).unwrap();
        request.verify_signature().unwrap();
        let subject = &request.certification_request_info.subject;
        assert_eq!(subject.to_string(), "O=system:nodes, CN=system:node:n1");
        let names = format!("{:?}", request.requested_extensions().unwrap().collect::<Vec<_>>());
        assert!(names.contains("DNSName(\"n1\")") && names.contains("IPAddress([10, 0, 0, 1])"), "{names}");
        let client = Wanted::client("n1");
        assert_eq!(client.digested_name(&key), client.digested_name(&key));
        assert_ne!(client.digested_name(&key), wanted.digested_name(&key));
        assert_eq!(client.digested_name(&key).len(), "node-csr-".len() + 43);
    }

    #[test]
    fn only_an_approved_and_issued_request_is_done() {
        let check = |status: serde_json::Value| {
            let request = json!({"metadata": {"name": "x"}, "status": status,
                "spec": {"request": "", "signerName": "s"}});
            decision(&serde_json::from_value(request).unwrap())
        };
        assert!(check(json!({})).is_none());
        let approved = json!([{"type": "Approved", "status": "True"}]);
        assert!(check(json!({"conditions": approved})).is_none());
        assert_eq!(check(json!({"conditions": approved, "certificate": "YQ=="})).unwrap().unwrap(), "a");
        let denied = json!([{"type": "Denied", "status": "True", "reason": "No", "message": "never"}]);
        let error = check(json!({"conditions": denied})).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "certificate signing request x is denied, reason: No, message: never");
    }
}
