//! Why a reconcile did not finish; the queue tries it again whatever the reason.

/// A reconcile's failure. It is logged once, by the worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed; `what` says what it was for.
    #[error("{what}: {}", message_of(source))]
    Api { what: String, source: kube::Error },
    /// The caches have not caught up with an earlier write.
    #[error("waiting for the cache: {0}")]
    Behind(String),
    /// Several independent steps failed; the first one's text stands for all.
    #[error("{failed} of {total} steps failed, first: {first}")]
    Several { failed: usize, total: usize, first: String },
    /// Something about an object that retrying alone will not mend, but an edit may.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// For `map_err`: names the step.
    pub fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source }
    }

    /// The server's message alone where it is a server's error.
    pub fn detail(&self) -> String {
        match self {
            Self::Api { source, .. } => message_of(source),
            other => other.to_string(),
        }
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source: kube::Error::Api(status), .. } => Some(status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|s| s.code == 404)
    }

    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|s| s.code == 409 && s.reason == "Conflict")
    }

    pub fn is_namespace_terminating(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_namespace_terminating(source))
    }
}

/// The text an operator should read: the server's own message where there is one.
pub fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => {
            // Transport errors hide the cause in the chain.
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(inner) = source {
                let inner_text = inner.to_string();
                if !text.contains(&inner_text) {
                    text.push_str(": ");
                    text.push_str(&inner_text);
                }
                source = inner.source();
            }
            text
        }
    }
}

pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(s) if s.code == 404)
}

pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(s) if s.code == 409 && s.reason == "Conflict")
}

pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(s) if s.code == 409 && s.reason == "AlreadyExists")
}

/// A create refused because its namespace is going away: nothing to do about it, ever.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}
