//! Who calls, and whether they may: client certificates, TokenReview, SubjectAccessReview.
//!
//! Answers to upstream's `pkg/kubelet/server/auth.go` and the delegating authenticator and authorizer.
//! Answers of the API server are remembered for upstream's default times, in bounded caches.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// `authentication.webhook.cacheTTL`.
const TOKEN_TTL: Duration = Duration::from_secs(2 * 60);
/// `authorization.webhook.cacheAuthorizedTTL`.
const ALLOWED_TTL: Duration = Duration::from_secs(5 * 60);
/// `authorization.webhook.cacheUnauthorizedTTL`.
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Answers remembered per cache; it is emptied when full.
const REMEMBERED_MAX: usize = 4096;
/// A token longer than this is no token.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// How long a review may take.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// An authenticated caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The certificates of a connection, leaf first.
pub type PeerCertificates = Arc<Vec<CertificateDer<'static>>>;

/// Why nobody, or not this one, is let in.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    /// 401.
    Unauthorized,
    /// 403 with this text.
    Forbidden(String),
    /// 500 with this text.
    Failed(String),
}

struct Remembered<K, V> {
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + std::hash::Hash, V: Clone> Remembered<K, V> {
    fn new() -> Self {
        Self { entries: Mutex::default() }
    }

    fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.entries.lock();
        match entries.get(key) {
            Some((until, value)) if *until > Instant::now() => Some(value.clone()),
            Some(_) => {
                entries.remove(key);
                None
            }
            None => None,
        }
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let mut entries = self.entries.lock();
        if entries.len() >= REMEMBERED_MAX {
            entries.clear();
        }
        entries.insert(key, (Instant::now() + ttl, value));
    }
}

/// The server's doorkeeper.
pub struct Auth {
    client_ca: Option<Arc<dyn ClientCertVerifier>>,
    anonymous: bool,
    webhook_authentication: bool,
    webhook_authorization: bool,
    node_name: String,
    client: Option<kube::Client>,
    /// By digest, so that no token stays in memory.
    tokens: Remembered<[u8; 32], Option<User>>,
    decisions: Remembered<(User, &'static str, &'static str), bool>,
}

impl Auth {
    /// # Errors
    /// When the CA file cannot be used.
    pub fn new(
        client_ca_file: Option<&Path>,
        anonymous: bool,
        webhook_authentication: bool,
        webhook_authorization: bool,
        node_name: &str,
        client: Option<kube::Client>,
    ) -> Result<Self, String> {
        let client_ca = match client_ca_file {
            None => None,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in common::tls::read_certificates(path).map_err(|e| e.to_string())? {
                    roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
                }
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                Some(built.map_err(|e| format!("{}: {e}", path.display()))?)
            }
        };
        Ok(Self {
            client_ca,
            anonymous,
            webhook_authentication,
            webhook_authorization,
            node_name: node_name.to_owned(),
            client,
            tokens: Remembered::new(),
            decisions: Remembered::new(),
        })
    }

    /// Lets a request in, or says why not.
    ///
    /// # Errors
    /// See [`Denied`].
    pub async fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        peer: &PeerCertificates,
    ) -> Result<User, Denied> {
        let user = self.authenticate(headers, peer).await.ok_or(Denied::Unauthorized)?;
        if !self.webhook_authorization {
            return Ok(user);
        }
        let (verb, subresources) = (verb(method), subresources(path));
        for subresource in &subresources {
            match self.allowed(&user, verb, subresource).await {
                Ok(true) => return Ok(user),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(user = user.name, verb, subresource, error, "authorization failed");
                    return Err(Denied::Failed(format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                        user.name
                    )));
                }
            }
        }
        Err(Denied::Forbidden(format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            user.name,
            subresources.join(" ")
        )))
    }

    async fn authenticate(&self, headers: &HeaderMap, peer: &PeerCertificates) -> Option<User> {
        if let Some(user) = self.certificate_user(peer) {
            return Some(user);
        }
        match bearer(headers) {
            Some(token) if self.webhook_authentication => self.token_user(token).await,
            // Something was presented that nobody here can judge.
            Some(_) => None,
            None if self.anonymous => Some(User {
                name: "system:anonymous".into(),
                groups: vec!["system:unauthenticated".into()],
                ..User::default()
            }),
            None => None,
        }
    }

    fn certificate_user(&self, peer: &PeerCertificates) -> Option<User> {
        let (verifier, (leaf, rest)) = (self.client_ca.as_ref()?, peer.split_first()?);
        if let Err(error) = verifier.verify_client_cert(leaf, rest, UnixTime::now()) {
            tracing::debug!(%error, "client certificate refused");
            return None;
        }
        subject(leaf)
    }

    async fn token_user(&self, token: &str) -> Option<User> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&digest) {
            return known;
        }
        let reviews: Api<TokenReview> = Api::all(self.client.clone()?);
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let answer = match tokio::time::timeout(REVIEW_TIMEOUT, reviews.create(&params, &review)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot review a token");
                return None;
            }
            Err(_) => {
                tracing::warn!("cannot review a token: the API server does not answer");
                return None;
            }
        };
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default().into_iter().collect(),
        });
        self.tokens.put(digest, user.clone(), TOKEN_TTL);
        user
    }

    async fn allowed(
        &self,
        user: &User,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, String> {
        let key = (user.clone(), verb, subresource);
        if let Some(known) = self.decisions.get(&key) {
            return Ok(known);
        }
        let client = self.client.clone().ok_or("this kubelet has no API server to ask")?;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone().into_iter().collect()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node_name.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(client);
        let params = PostParams::default();
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, reviews.create(&params, &review))
            .await
            .map_err(|_| "the API server does not answer".to_owned())?
            .map_err(|e| e.to_string())?;
        let allowed =
            answer.status.is_some_and(|status| Into::<Option<bool>>::into(status.allowed) == Some(true));
        self.decisions.put(key, allowed, if allowed { ALLOWED_TTL } else { DENIED_TTL });
        Ok(allowed)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let plausible =
        scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_BYTES_MAX;
    plausible.then_some(token)
}

/// The user a certificate names: CN and, as groups, O.
fn subject(leaf: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    groups.push("system:authenticated".into());
    Some(User { name, groups, ..User::default() })
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// What of the node a path is, in the order it is asked for: the fine-grained name, then the general one.
fn subresources(path: &str) -> Vec<&'static str> {
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut found = Vec::new();
    for (root, name) in
        [("/pods", "pods"), ("/healthz", "healthz"), ("/configz", "configz"), ("/runningpods", "pods")]
    {
        if below(root) {
            found.push(name);
        }
    }
    let general = [
        ("/stats", "stats"),
        ("/metrics", "metrics"),
        ("/logs", "log"),
        ("/checkpoint", "checkpoint"),
        ("/statusz", "statusz"),
        ("/flagz", "configz"),
    ];
    found.push(general.iter().find(|(root, _)| below(root)).map_or("proxy", |(_, name)| name));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_upstreams_subresources() {
        for (path, want) in [
            ("/pods", &["pods", "proxy"][..]),
            ("/pods/", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz/syncloop", &["healthz", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/stats/summary", &["stats"]),
            ("/metrics/resource", &["metrics"]),
            ("/metricsx", &["proxy"]),
            ("/logs/x", &["log"]),
            ("/exec/a/b/c", &["proxy"]),
            ("/containerLogs/a/b/c", &["proxy"]),
        ] {
            assert_eq!(subresources(path), want, "{path}");
        }
    }

    #[tokio::test]
    async fn nobody_is_let_in_without_credentials() {
        let closed = Auth::new(None, false, true, true, "n", None).unwrap();
        let none = PeerCertificates::default();
        let mut headers = HeaderMap::new();
        let denied = closed.check(&Method::GET, "/pods", &headers, &none).await;
        assert_eq!(denied, Err(Denied::Unauthorized));
        headers.insert("authorization", "Bearer x".parse().unwrap());
        let denied = closed.check(&Method::GET, "/pods", &headers, &none).await;
        assert_eq!(denied, Err(Denied::Unauthorized));
        let open = Auth::new(None, true, false, false, "n", None).unwrap();
        let user = open.check(&Method::GET, "/pods", &HeaderMap::new(), &none).await.unwrap();
        assert_eq!(user.name, "system:anonymous");
    }

    #[tokio::test]
    async fn certificates_name_user_and_groups_when_the_ca_signed_them() {
        let dir = crate::volumes::tests::Scratch::new();
        let issue = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let certificate = params.self_signed(&key).unwrap();
            (rcgen::Issuer::new(params, key), certificate)
        };
        let ((issuer, ca), (stranger, _)) = (issue("ca"), issue("other"));
        let leaf = |issuer: &rcgen::Issuer<'_, rcgen::KeyPair>| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, "kube-apiserver");
            params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            let key = rcgen::KeyPair::generate().unwrap();
            Arc::new(vec![params.signed_by(&key, issuer).unwrap().der().clone()])
        };
        let file = dir.path().join("ca.crt");
        std::fs::write(&file, ca.pem()).unwrap();
        let auth = Auth::new(Some(&file), false, false, false, "n", None).unwrap();
        let user = auth.check(&Method::GET, "/pods", &HeaderMap::new(), &leaf(&issuer)).await.unwrap();
        assert_eq!(user.name, "kube-apiserver");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
        let refused = auth.check(&Method::GET, "/pods", &HeaderMap::new(), &leaf(&stranger)).await;
        assert_eq!(refused, Err(Denied::Unauthorized));
    }
}
