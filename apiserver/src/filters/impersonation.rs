//! `Impersonate-*` headers: acting as someone else, when one may.

use common::status::Status;
use http::HeaderMap;

use super::respond;
use crate::authentication::request_header::unescape;
use crate::authentication::{ANONYMOUS_USER, AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP, service_account};
use crate::authorization::{Attributes, Authorizer};
use crate::request::UserInfo;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// The user to act as: `requestor` unless the headers name another. The headers are removed.
///
/// # Errors
/// 403 when one of the things named may not be impersonated, 400 for groups or extras without a user.
pub async fn apply(
    authorizer: &dyn Authorizer,
    requestor: UserInfo,
    headers: &mut HeaderMap,
) -> Result<UserInfo, Status> {
    let Some(wanted) = Wanted::read(headers)? else { return Ok(requestor) };
    for attributes in wanted.checks(&requestor) {
        let verdict = authorizer.authorize(&attributes).await;
        if !verdict.allowed() {
            return Err(respond::forbidden(&attributes, &verdict.reason));
        }
    }
    let names: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    let user = wanted.user();
    tracing::debug!(requestor = requestor.name, user = user.name, "impersonating");
    Ok(user)
}

struct Wanted {
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: Vec<(String, String)>,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let single = |name: &str| headers.get(name).map(text).unwrap_or_default();
        let wanted = Self {
            user: single(USER),
            groups: headers.get_all(GROUP).iter().map(text).collect(),
            uid: single(UID),
            extra: headers
                .iter()
                .filter_map(|(name, value)| {
                    Some((unescape(name.as_str().strip_prefix(EXTRA_PREFIX)?), text(value)))
                })
                .collect(),
        };
        if !wanted.user.is_empty() {
            return Ok(Some(wanted));
        }
        let names: Vec<&str> = wanted
            .groups
            .iter()
            .chain(wanted.extra.iter().map(|(_, value)| value))
            .chain(Some(&wanted.uid).filter(|uid| !uid.is_empty()))
            .map(String::as_str)
            .collect();
        if names.is_empty() {
            return Ok(None);
        }
        Err(Status::bad_request(format!("requested [{}] without impersonating a user", names.join(" "))))
    }

    /// One question to the authorizer for each thing that is taken on.
    fn checks(&self, requestor: &UserInfo) -> Vec<Attributes> {
        let check = |group: &str, resource: &str, namespace: &str, name: &str| Attributes {
            user: requestor.clone(),
            verb: "impersonate".into(),
            is_resource: true,
            group: group.into(),
            version: if group.is_empty() { String::new() } else { "v1".into() },
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Default::default()
        };
        let mut out = vec![match service_account::split_username(&self.user) {
            Some((namespace, name)) => check("", "serviceaccounts", namespace, name),
            None => check("", "users", "", &self.user),
        }];
        out.extend(self.groups.iter().map(|group| check("", "groups", "", group)));
        out.extend(self.extra.iter().map(|(key, value)| Attributes {
            subresource: key.clone(),
            ..check(AUTHENTICATION_GROUP, "userextras", "", value)
        }));
        if !self.uid.is_empty() {
            out.push(check(AUTHENTICATION_GROUP, "uids", "", &self.uid));
        }
        out
    }

    fn user(&self) -> UserInfo {
        let mut groups = self.groups.clone();
        if groups.is_empty()
            && let Some((namespace, _)) = service_account::split_username(&self.user)
        {
            groups = service_account::groups(namespace);
        }
        let has = |group: &str| groups.iter().any(|g| g == group);
        if self.user == ANONYMOUS_USER {
            if !has(UNAUTHENTICATED_GROUP) {
                groups.push(UNAUTHENTICATED_GROUP.into());
            }
        } else if !has(AUTHENTICATED_GROUP) && !has(UNAUTHENTICATED_GROUP) {
            groups.push(AUTHENTICATED_GROUP.into());
        }
        let mut user =
            UserInfo { name: self.user.clone(), uid: self.uid.clone(), groups, ..Default::default() };
        for (key, value) in &self.extra {
            user.extra.entry(key.clone()).or_default().push(value.clone());
        }
        user
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::modes::{AlwaysAllow, AlwaysDeny};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[tokio::test]
    async fn a_service_account_brings_its_groups() {
        let mut headers = headers(&[("Impersonate-User", "system:serviceaccount:a:b")]);
        let user = apply(&AlwaysAllow, UserInfo::default(), &mut headers).await.unwrap();
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
        );
        assert!(headers.is_empty());
    }

    #[tokio::test]
    async fn each_thing_taken_on_is_asked_for() {
        let mut named = headers(&[("Impersonate-User", "jane"), ("Impersonate-Group", "devs")]);
        let requestor = UserInfo { name: "bob".into(), ..Default::default() };
        let status = apply(&AlwaysDeny, requestor, &mut named).await.unwrap_err();
        assert_eq!(
            status.message,
            r#"users "jane" is forbidden: User "bob" cannot impersonate resource "users" in API group "" at the cluster scope: Everything is forbidden."#
        );
        let mut nobody = headers(&[("Impersonate-Group", "devs")]);
        let status = apply(&AlwaysAllow, UserInfo::default(), &mut nobody).await.unwrap_err();
        assert_eq!(status.code, 400);
    }
}
