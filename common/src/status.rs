//! `meta/v1` Status: the one shape of every error on the wire, with upstream's reasons and wording.
//!
//! Source of the rules: the API conventions ("Response Status Kind") and the behaviour that clients match on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `metav1.StatusReason`, as far as this product answers with it.
pub mod reason {
    pub const UNKNOWN: &str = "";
    pub const UNAUTHORIZED: &str = "Unauthorized";
    pub const FORBIDDEN: &str = "Forbidden";
    pub const NOT_FOUND: &str = "NotFound";
    pub const ALREADY_EXISTS: &str = "AlreadyExists";
    pub const CONFLICT: &str = "Conflict";
    pub const GONE: &str = "Gone";
    pub const EXPIRED: &str = "Expired";
    pub const INVALID: &str = "Invalid";
    pub const SERVER_TIMEOUT: &str = "ServerTimeout";
    pub const STORE_READ_ERROR: &str = "StorageReadError";
    pub const TIMEOUT: &str = "Timeout";
    pub const TOO_MANY_REQUESTS: &str = "TooManyRequests";
    pub const BAD_REQUEST: &str = "BadRequest";
    pub const METHOD_NOT_ALLOWED: &str = "MethodNotAllowed";
    pub const NOT_ACCEPTABLE: &str = "NotAcceptable";
    pub const REQUEST_ENTITY_TOO_LARGE: &str = "RequestEntityTooLarge";
    pub const UNSUPPORTED_MEDIA_TYPE: &str = "UnsupportedMediaType";
    pub const INTERNAL_ERROR: &str = "InternalError";
    pub const SERVICE_UNAVAILABLE: &str = "ServiceUnavailable";
}

/// An error answer of the API, or one received from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    #[serde(default = "status_kind")]
    pub kind: String,
    #[serde(default = "status_api_version")]
    pub api_version: String,
    #[serde(default)]
    pub metadata: ListMetaEmpty,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    #[serde(default)]
    pub code: u16,
}

/// The `metadata` that every Status carries, empty but for an expired list that may be continued.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListMetaEmpty {
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
}

/// `metav1.StatusDetails`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// `metav1.StatusCause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn status_kind() -> String {
    "Status".into()
}

fn status_api_version() -> String {
    "v1".into()
}

/// `pods`, or `deployments.apps`: how messages name a resource.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    /// A failure with `code`, `reason` and `message`; details are added by the constructors below.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: status_kind(),
            api_version: status_api_version(),
            metadata: ListMetaEmpty::default(),
            status: "Failure".into(),
            message: message.into(),
            reason: reason.into(),
            details: None,
            code,
        }
    }

    /// Adds the object the failure is about. For most reasons `kind` holds the resource, for Invalid the kind.
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.group = group.into();
        details.kind = kind.into();
        details.name = name.into();
        self
    }

    /// Adds causes.
    pub fn because(mut self, causes: Vec<StatusCause>) -> Self {
        self.details.get_or_insert_default().causes = causes;
        self
    }

    /// Adds a hint of when to try again; becomes the Retry-After header too.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// 404 `pods "a" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(group, resource));
        Self::failure(404, reason::NOT_FOUND, message).about(group, resource, name)
    }

    /// 404 for a path that no handler serves.
    pub fn path_not_found() -> Self {
        Self::failure(404, reason::NOT_FOUND, "the server could not find the requested resource")
            .about("", "", "")
    }

    /// 409 `pods "a" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(group, resource));
        Self::failure(409, reason::ALREADY_EXISTS, message).about(group, resource, name)
    }

    /// 409 `Operation cannot be fulfilled on pods "a": ...`.
    pub fn conflict(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Self::failure(409, reason::CONFLICT, message).about(group, resource, name)
    }

    /// 403 `pods "a" is forbidden: ...`; without a name `pods is forbidden: ...`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let what = qualified(group, resource);
        let message = match (what.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{what} is forbidden: {why}"),
            (false, false) => format!("{what} \"{name}\" is forbidden: {why}"),
        };
        Self::failure(403, reason::FORBIDDEN, message).about(group, resource, name)
    }

    /// 401, worded as upstream's authentication filter.
    pub fn unauthorized() -> Self {
        Self::failure(401, reason::UNAUTHORIZED, "Unauthorized")
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, reason::BAD_REQUEST, message)
    }

    /// 405 for a verb that a resource does not have.
    pub fn method_not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let message =
            format!("{verb} is not supported on resources of kind \"{}\"", qualified(group, resource));
        Self::failure(405, reason::METHOD_NOT_ALLOWED, message).about(group, resource, "")
    }

    /// 406, listing what could be served.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::failure(406, reason::NOT_ACCEPTABLE, message)
    }

    /// 410 Expired: the revision is gone from history; the client must list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, reason::EXPIRED, message)
    }

    /// 413.
    pub fn entity_too_large(limit_bytes: usize) -> Self {
        let message = format!("limit is {limit_bytes}");
        Self::failure(413, reason::REQUEST_ENTITY_TOO_LARGE, format!("Request entity too large: {message}"))
    }

    /// 415, listing what could be read.
    pub fn unsupported_media_type(supported: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            supported.join(", ")
        );
        Self::failure(415, reason::UNSUPPORTED_MEDIA_TYPE, message)
    }

    /// 422 `Pod "a" is invalid: ...`; takes the kind, not the resource.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &FieldErrors) -> Self {
        let what = qualified(group, kind);
        let list = errors.0.iter().map(ToString::to_string).collect::<Vec<_>>();
        let detail = match list.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes = errors
            .0
            .iter()
            .map(|e| StatusCause { reason: e.kind.cause().into(), message: e.body(), field: e.field.clone() })
            .collect();
        Self::failure(422, reason::INVALID, format!("{what} \"{name}\" is invalid: {detail}"))
            .about(group, kind, name)
            .because(causes)
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::failure(429, reason::TOO_MANY_REQUESTS, message).retry_after(retry_after_seconds)
    }

    /// 500 `Internal error occurred: ...`.
    pub fn internal(error: impl fmt::Display) -> Self {
        let text = error.to_string();
        Self::failure(500, reason::INTERNAL_ERROR, format!("Internal error occurred: {text}"))
            .because(vec![StatusCause { message: text, ..Default::default() }])
    }

    /// 503.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, reason::SERVICE_UNAVAILABLE, message)
    }

    /// 504 Timeout.
    pub fn timeout(message: impl fmt::Display) -> Self {
        Self::failure(504, reason::TIMEOUT, format!("Timeout: {message}"))
    }

    /// The answer to a delete that removed the object at once.
    pub fn success_deleted(group: &str, resource: &str, name: &str, uid: &str) -> Self {
        let mut status = Self::failure(0, "", "").about(group, resource, name);
        status.status = "Success".into();
        if let Some(details) = &mut status.details {
            details.uid = uid.into();
        }
        status
    }

    /// JSON of the whole, as it goes on the wire.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a Status holds only strings and numbers")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

/// The kinds of field error, `field.ErrorType` upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    InternalError,
    TypeInvalid,
}

impl FieldErrorKind {
    /// The words in a message.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::InternalError => "Internal error",
        }
    }

    /// The reason in a StatusCause.
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::InternalError => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One field error: `spec.containers[0].name: Required value: ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    /// Dotted path with indexes, `spec.containers[0].name`.
    pub field: String,
    /// The offending value as it is shown (already quoted where it is a string), empty for kinds without.
    pub value: String,
    pub detail: String,
}

impl FieldError {
    /// The message without the path.
    pub fn body(&self) -> String {
        let shows_value = !matches!(
            self.kind,
            FieldErrorKind::Required
                | FieldErrorKind::Forbidden
                | FieldErrorKind::TooLong
                | FieldErrorKind::InternalError
        ) && !self.value.is_empty();
        let head = if shows_value {
            format!("{}: {}", self.kind.text(), self.value)
        } else {
            self.kind.text().to_owned()
        };
        if self.detail.is_empty() { head } else { format!("{head}: {}", self.detail) }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// A list of field errors in the order they were found (`field.ErrorList` upstream).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn extend(&mut self, other: FieldErrors) {
        self.0.extend(other.0);
    }

    fn push(
        &mut self,
        kind: FieldErrorKind,
        field: impl Into<String>,
        value: String,
        detail: impl Into<String>,
    ) {
        self.0.push(FieldError { kind, field: field.into(), value, detail: detail.into() });
    }

    pub fn required(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.push(FieldErrorKind::Required, field, String::new(), detail);
    }

    /// `value` is shown as JSON: strings quoted, numbers bare.
    pub fn invalid(&mut self, field: impl Into<String>, value: impl Serialize, detail: impl Into<String>) {
        self.push(FieldErrorKind::Invalid, field, shown(value), detail);
    }

    pub fn duplicate(&mut self, field: impl Into<String>, value: impl Serialize) {
        self.push(FieldErrorKind::Duplicate, field, shown(value), "");
    }

    /// `supported` is listed sorted and quoted, as upstream does.
    pub fn not_supported(&mut self, field: impl Into<String>, value: impl Serialize, supported: &[&str]) {
        let mut names: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        names.sort();
        let detail = format!("supported values: {}", names.join(", "));
        self.push(FieldErrorKind::NotSupported, field, shown(value), detail);
    }

    pub fn forbidden(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.push(FieldErrorKind::Forbidden, field, String::new(), detail);
    }

    pub fn not_found(&mut self, field: impl Into<String>, value: impl Serialize) {
        self.push(FieldErrorKind::NotFound, field, shown(value), "");
    }

    pub fn too_long(&mut self, field: impl Into<String>, max_bytes: usize) {
        self.push(
            FieldErrorKind::TooLong,
            field,
            String::new(),
            format!("may not be more than {max_bytes} {}", if max_bytes == 1 { "byte" } else { "bytes" }),
        );
    }

    pub fn too_many(&mut self, field: impl Into<String>, actual: usize, max: usize) {
        self.push(
            FieldErrorKind::TooMany,
            field,
            actual.to_string(),
            format!("must have at most {max} {}", if max == 1 { "item" } else { "items" }),
        );
    }
}

fn shown(value: impl Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_lists_every_field_once() {
        let mut errors = FieldErrors::new();
        errors.required("spec.containers", "");
        assert_eq!(
            Status::invalid("", "Pod", "a", &errors).message,
            r#"Pod "a" is invalid: spec.containers: Required value"#
        );
        errors.not_supported("spec.restartPolicy", "Sometimes", &["OnFailure", "Always", "Never"]);
        let status = Status::invalid("apps", "Deployment", "a", &errors);
        assert_eq!(
            status.message,
            r#"Deployment.apps "a" is invalid: [spec.containers: Required value, spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"]"#
        );
        assert_eq!(status.details.expect("details").causes.len(), 2);
    }

    #[test]
    fn forbidden_names_what_it_can() {
        assert_eq!(Status::forbidden("", "pods", "", "no").message, "pods is forbidden: no");
        assert_eq!(Status::forbidden("apps", "x", "n", "no").message, "x.apps \"n\" is forbidden: no");
    }
}
