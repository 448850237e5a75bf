//! Refusals in the words clients know.

use common::status::Status;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use crate::authorization::Attributes;
use crate::request::{Response, full};

/// A Status as an answer.
pub fn status(status: &Status) -> Response {
    let mut response = Response::new(full(status.to_json()));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// A line of text with a code, as Go's `http.Error` writes it.
pub fn text(code: StatusCode, message: &str) -> Response {
    let mut response = Response::new(full(format!("{message}\n")));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// 429 of priority and fairness, and of the in-flight limits.
pub fn too_many_requests(retry_after_seconds: u64) -> Response {
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after_seconds));
    response
}

/// 403 with who, what and where (`responsewriters.ForbiddenStatusError` upstream).
pub fn forbidden(attributes: &Attributes, reason: &str) -> Status {
    let message = sanitize(&forbidden_message(attributes));
    let why = if reason.is_empty() { message } else { format!("{message}: {reason}") };
    Status::forbidden(&attributes.group, &attributes.resource, &attributes.name, why)
}

fn forbidden_message(attributes: &Attributes) -> String {
    let Attributes { user, verb, group, namespace, .. } = attributes;
    let user = &user.name;
    if !attributes.is_resource {
        return format!("User {user:?} cannot {verb} path {:?}", attributes.path);
    }
    let resource = if attributes.subresource.is_empty() {
        attributes.resource.clone()
    } else {
        format!("{}/{}", attributes.resource, attributes.subresource)
    };
    let what = format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?}");
    if namespace.is_empty() {
        format!("{what} at the cluster scope")
    } else {
        format!("{what} in the namespace {namespace:?}")
    }
}

/// No error may look like HTML.
fn sanitize(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::UserInfo;

    #[test]
    fn refusals_are_worded_as_upstream() {
        let user = UserInfo { name: "jane".into(), ..Default::default() };
        let mut attributes = Attributes {
            user,
            verb: "list".into(),
            is_resource: true,
            namespace: "default".into(),
            resource: "pods".into(),
            ..Default::default()
        };
        assert_eq!(
            forbidden(&attributes, "").message,
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        attributes.namespace.clear();
        attributes.name = "web".into();
        attributes.subresource = "log".into();
        assert_eq!(
            forbidden(&attributes, "RBAC: x").message,
            r#"pods "web" is forbidden: User "jane" cannot list resource "pods/log" in API group "" at the cluster scope: RBAC: x"#
        );
        let path = Attributes {
            user: attributes.user.clone(),
            verb: "get".into(),
            path: "/metrics".into(),
            ..Default::default()
        };
        assert_eq!(forbidden(&path, "").message, r#"forbidden: User "jane" cannot get path "/metrics""#);
    }
}
