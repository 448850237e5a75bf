//! One request's credentials to its user: the order of authenticators, and what a failure means.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use super::request_header::{self, RequestHeader};
use super::x509::{self, CaBundle};
use super::{
    ANONYMOUS_USER, AUTHENTICATED_GROUP, AuthenticationError, TokenAuthenticator, UNAUTHENTICATED_GROUP,
};
use crate::request::UserInfo;

/// How long a checked certificate is trusted before it is checked again.
const RECHECK_SECONDS: i64 = 10;
/// How browsers, which cannot set headers on a WebSocket, hand over a token.
const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// What a connection's peer showed in the handshake; shared by the connection's requests, so that a
/// certificate is checked once in a while and not for each.
#[derive(Default)]
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    checked: Mutex<Option<(i64, Result<Option<UserInfo>, String>)>>,
}

impl Credentials {
    /// `chain` is empty when the peer showed no certificate.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, checked: Mutex::default() }
    }
}

/// See the module.
pub struct RequestAuthenticator {
    pub request_header: Option<RequestHeader>,
    pub client_ca: Option<Arc<CaBundle>>,
    pub tokens: Arc<dyn TokenAuthenticator>,
    pub anonymous: bool,
}

impl RequestAuthenticator {
    /// The user of a request. Credentials that held are removed from the headers.
    ///
    /// # Errors
    /// When a credential was shown and none held, or none was shown and anonymous requests are off. The text
    /// is for the log.
    pub async fn authenticate(
        &self,
        credentials: &Credentials,
        headers: &mut HeaderMap,
    ) -> Result<UserInfo, AuthenticationError> {
        let mut errors: Vec<String> = Vec::new();
        let user = self.known_user(credentials, headers, &mut errors).await;
        if let Some(front_proxy) = &self.request_header {
            front_proxy.clear(headers);
        }
        request_header::clear_standard(headers);
        match user {
            Some(mut user) => {
                headers.remove(AUTHORIZATION);
                let decided = [AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP];
                if user.name != ANONYMOUS_USER && !decided.iter().any(|g| user.in_group(g)) {
                    user.groups.push(AUTHENTICATED_GROUP.to_owned());
                }
                Ok(user)
            }
            None if !errors.is_empty() => Err(AuthenticationError(errors.join(", "))),
            None if self.anonymous => Ok(UserInfo {
                name: ANONYMOUS_USER.into(),
                groups: vec![UNAUTHENTICATED_GROUP.into()],
                ..Default::default()
            }),
            None => Err(AuthenticationError("no credentials".into())),
        }
    }

    async fn known_user(
        &self,
        credentials: &Credentials,
        headers: &mut HeaderMap,
        errors: &mut Vec<String>,
    ) -> Option<UserInfo> {
        let now = Timestamp::now();
        if let (Some(front_proxy), false) = (&self.request_header, credentials.chain.is_empty()) {
            match front_proxy.authenticate(&credentials.chain, headers, now) {
                Ok(Some(user)) => return Some(user),
                Ok(None) => {}
                Err(error) => errors.push(error.0),
            }
        }
        if let (Some(ca), false) = (&self.client_ca, credentials.chain.is_empty()) {
            match certificate_user(credentials, ca, now) {
                Ok(Some(user)) => return Some(user),
                // A good certificate that names nobody: as if there were none.
                Ok(None) => errors.clear(),
                Err(error) => errors.push(error),
            }
        }
        let token = bearer_token(headers).or_else(|| websocket_token(headers))?;
        match self.tokens.authenticate_token(&token, &[]).await {
            Ok(Some(authentication)) => return Some(authentication.user),
            Ok(None) => errors.push("invalid bearer token".into()),
            Err(error) => errors.push(format!("invalid bearer token, {error}")),
        }
        None
    }
}

fn certificate_user(
    credentials: &Credentials,
    ca: &CaBundle,
    now: Timestamp,
) -> Result<Option<UserInfo>, String> {
    let mut checked = credentials.checked.lock();
    if let Some((at, result)) = &*checked
        && now.as_second() - at < RECHECK_SECONDS
    {
        return result.clone();
    }
    let result = ca
        .verify(&credentials.chain, now)
        .and_then(|()| credentials.chain.first().map_or(Ok(None), x509::user_of))
        .map_err(|error| error.0);
    *checked = Some((now.as_second(), result.clone()));
    result
}

fn bearer_token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    // Anything behind the token is ignored, as upstream.
    let token = token.split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// The token among the WebSocket subprotocols; it is taken out, since it must not be echoed as the chosen one.
fn websocket_token(headers: &mut HeaderMap) -> Option<String> {
    if !headers.contains_key(http::header::UPGRADE) {
        return None;
    }
    let offered: Vec<String> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .collect();
    let (tokens, rest): (Vec<String>, Vec<String>) =
        offered.into_iter().partition(|p| p.starts_with(WEBSOCKET_TOKEN_PREFIX));
    let [token] = tokens.as_slice() else { return None };
    if rest.is_empty() {
        return None;
    }
    let decoded = URL_SAFE_NO_PAD.decode(token.strip_prefix(WEBSOCKET_TOKEN_PREFIX)?).ok()?;
    headers.insert(SEC_WEBSOCKET_PROTOCOL, rest.join(",").parse().ok()?);
    String::from_utf8(decoded).ok()
}
