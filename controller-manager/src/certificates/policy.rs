//! Pure: what a request asks for, and which signer may grant it.

use base64::Engine;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::FromDer;

use crate::views::CertificateSigningRequest;

pub const KUBE_APISERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBE_APISERVER_CLIENT_KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// What the request says, once it has been read and its signature checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub der: Vec<u8>,
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns: Vec<String>,
    pub ips: usize,
    pub emails: usize,
    pub uris: usize,
    /// The subject's public key, as DER.
    pub public_key: Vec<u8>,
}

/// A request that cannot be read; the text is for an operator.
#[derive(Debug, thiserror::Error)]
#[error("unable to parse csr: {0}")]
pub struct Unreadable(String);

/// Decodes base64, PEM and DER, and checks that the requester holds the key.
///
/// # Errors
/// When any layer is malformed or the signature is not the key's.
pub fn read(csr: &CertificateSigningRequest) -> Result<Request, Unreadable> {
    let wrong = |what: &str| Unreadable(what.to_owned());
    let pem = base64::engine::general_purpose::STANDARD
        .decode(&csr.spec.request)
        .map_err(|_| wrong("spec.request is not base64"))?;
    let block = pem::parse(&pem)
        .ok()
        .filter(|b| b.tag() == "CERTIFICATE REQUEST")
        .ok_or_else(|| wrong("PEM block type must be CERTIFICATE REQUEST"))?;
    let der = block.into_contents();
    let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| wrong("not a PKCS#10 request"))?;
    parsed.verify_signature().map_err(|_| wrong("the signature is not the key's"))?;
    let info = &parsed.certification_request_info;
    let mut request = Request { public_key: info.subject_pki.raw.to_vec(), ..Request::default() };
    for attribute in info.subject.iter_attributes() {
        let value = attribute.as_str().unwrap_or_default().to_owned();
        if *attribute.attr_type() == OID_X509_COMMON_NAME {
            request.common_name = value;
        } else if *attribute.attr_type() == OID_X509_ORGANIZATION_NAME {
            request.organizations.push(value);
        }
    }
    for extension in parsed.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(dns) => request.dns.push((*dns).to_owned()),
                GeneralName::IPAddress(_) => request.ips += 1,
                GeneralName::RFC822Name(_) => request.emails += 1,
                GeneralName::URI(_) => request.uris += 1,
                _ => {}
            }
        }
    }
    request.der = der;
    Ok(request)
}

fn usages_are(usages: &[String], always: &[&str]) -> bool {
    let mut have: Vec<&str> = usages.iter().map(String::as_str).collect();
    have.sort_unstable();
    have.dedup();
    let matches = |with: &[&str]| {
        let mut want: Vec<&str> = always.iter().chain(with).copied().collect();
        want.sort_unstable();
        have == want
    };
    matches(&["key encipherment"]) || matches(&[])
}

/// The reasons a kubelet's client request is refused, worded as upstream words them.
pub fn kubelet_client(request: &Request, usages: &[String]) -> Result<(), String> {
    if request.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".into());
    }
    if !request.dns.is_empty() {
        return Err("DNS subjectAltNames are not allowed".into());
    }
    if request.emails > 0 {
        return Err("Email subjectAltNames are not allowed".into());
    }
    if request.ips > 0 {
        return Err("IP subjectAltNames are not allowed".into());
    }
    if request.uris > 0 {
        return Err("URI subjectAltNames are not allowed".into());
    }
    if !request.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node: ".into());
    }
    if !usages_are(usages, &["client auth", "digital signature"]) {
        return Err("usages did not match [client auth digital signature key encipherment]".into());
    }
    Ok(())
}

/// The reasons a kubelet's serving request is refused.
pub fn kubelet_serving(request: &Request, usages: &[String]) -> Result<(), String> {
    if request.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".into());
    }
    if request.dns.is_empty() && request.ips == 0 {
        return Err("DNS or IP subjectAltName is required".into());
    }
    if request.emails > 0 {
        return Err("Email subjectAltNames are not allowed".into());
    }
    if request.uris > 0 {
        return Err("URI subjectAltNames are not allowed".into());
    }
    if !usages_are(usages, &["digital signature", "server auth"]) {
        return Err("usages did not match [digital signature key encipherment server auth]".into());
    }
    if !request.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node: ".into());
    }
    Ok(())
}

/// `None` for a signer that is not ours; otherwise whether it grants the request.
pub fn check(signer: &str, request: &Request, usages: &[String]) -> Option<Result<(), String>> {
    match signer {
        KUBELET_SERVING => Some(kubelet_serving(request, usages)),
        KUBE_APISERVER_CLIENT_KUBELET => Some(kubelet_client(request, usages)),
        KUBE_APISERVER_CLIENT => {
            let allowed = ["digital signature", "key encipherment", "client auth"];
            Some(match usages.iter().find(|u| !allowed.contains(&u.as_str())) {
                Some(_) => Err(format!(
                    "usages did not match [{}]",
                    "client auth digital signature key encipherment"
                )),
                None if !usages.iter().any(|u| u == "client auth") => {
                    Err("usages did not match [client auth digital signature key encipherment]".into())
                }
                None => Ok(()),
            })
        }
        LEGACY_UNKNOWN => Some(Ok(())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_requests_are_held_to_their_form() {
        let node = Request {
            common_name: "system:node:a".into(),
            organizations: vec!["system:nodes".into()],
            ..Request::default()
        };
        let usages = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let client = usages(&["key encipherment", "digital signature", "client auth"]);
        assert_eq!(check(KUBE_APISERVER_CLIENT_KUBELET, &node, &client), Some(Ok(())));
        let no_rsa = usages(&["client auth", "digital signature"]);
        assert_eq!(check(KUBE_APISERVER_CLIENT_KUBELET, &node, &no_rsa), Some(Ok(())));
        let named = Request { dns: vec!["x".into()], ..node.clone() };
        assert!(matches!(check(KUBE_APISERVER_CLIENT_KUBELET, &named, &client), Some(Err(_))));
        let stranger = Request { organizations: vec!["system:masters".into()], ..node.clone() };
        assert!(matches!(check(KUBE_APISERVER_CLIENT_KUBELET, &stranger, &client), Some(Err(_))));
        let serving = usages(&["server auth", "digital signature"]);
        assert!(matches!(check(KUBELET_SERVING, &node, &serving), Some(Err(_))));
        assert_eq!(check(KUBELET_SERVING, &named, &serving), Some(Ok(())));
        assert!(matches!(check(KUBE_APISERVER_CLIENT, &node, &serving), Some(Err(_))));
        assert_eq!(check("example.com/mine", &node, &client), None);
    }
}
