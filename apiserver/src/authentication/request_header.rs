//! A front proxy that vouches for its users with headers, under a client certificate of its own CA.

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::{AuthenticationError, x509};
use crate::request::UserInfo;

/// The `--requestheader-*` flags.
pub struct RequestHeader {
    pub ca: std::sync::Arc<x509::CaBundle>,
    /// Common names a proxy may have; empty for any.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl RequestHeader {
    /// The user the proxy names; `None` when it names none.
    ///
    /// # Errors
    /// When the certificate is not that of an allowed proxy.
    pub fn authenticate(
        &self,
        chain: &[CertificateDer<'_>],
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Option<UserInfo>, AuthenticationError> {
        self.ca.verify(chain, now)?;
        let common_name = chain.first().map(x509::common_name).unwrap_or_default();
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&common_name) {
            return Err(AuthenticationError(format!(
                "x509: subject with cn={common_name} is not in the allowed list"
            )));
        }
        let Some(name) = first(headers, &self.username_headers) else { return Ok(None) };
        let uid = first(headers, &self.uid_headers).unwrap_or_default();
        let groups = self
            .group_headers
            .iter()
            .flat_map(|header| headers.get_all(header.as_str()))
            .filter_map(|value| value.to_str().ok())
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect();
        let mut user = UserInfo { name, uid, groups, ..Default::default() };
        for (header, value) in headers {
            let key = self
                .extra_prefixes
                .iter()
                .find_map(|prefix| header.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                user.extra.entry(unescape(key)).or_default().push(value.to_owned());
            }
        }
        Ok(Some(user))
    }

    /// Removes the headers, so that nothing behind the filter can mistake them for a client's.
    pub fn clear(&self, headers: &mut HeaderMap) {
        let names = [&self.username_headers, &self.uid_headers, &self.group_headers];
        clear(headers, names.into_iter().flatten().map(String::as_str), &self.extra_prefixes);
    }
}

/// Removes the headers that front proxies use by convention.
pub fn clear_standard(headers: &mut HeaderMap) {
    clear(
        headers,
        ["x-remote-user", "x-remote-uid", "x-remote-group"].into_iter(),
        &["x-remote-extra-".to_owned()],
    );
}

fn clear<'a>(headers: &mut HeaderMap, names: impl Iterator<Item = &'a str>, prefixes: &[String]) {
    for name in names {
        headers.remove(name);
    }
    let extra: Vec<HeaderName> = headers
        .keys()
        .filter(|header| prefixes.iter().any(|p| header.as_str().starts_with(&p.to_ascii_lowercase())))
        .cloned()
        .collect();
    for header in extra {
        headers.remove(header);
    }
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names
        .iter()
        .filter_map(|name| headers.get(name.as_str())?.to_str().ok())
        .find(|value| !value.is_empty())
        .map(str::to_owned)
}

/// Percent-decodes an extra key; a malformed one stays as it is.
pub fn unescape(key: &str) -> String {
    let mut out = Vec::with_capacity(key.len());
    let mut bytes = key.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next(), bytes.next()];
        let [Some(high), Some(low)] = digits else { return key.to_owned() };
        let (Some(high), Some(low)) = ((high as char).to_digit(16), (low as char).to_digit(16)) else {
            return key.to_owned();
        };
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}
