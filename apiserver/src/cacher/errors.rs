//! Store errors as Statuses: the one place that words them.

use common::status::{Status, StatusCause, reason};

use super::entry::EntryError;
use crate::storage::{Revision, StoreError};

/// Seconds a client should wait when the store did not answer.
const RETRY_AFTER_SECONDS: u32 = 2;
/// Seconds a client should wait for a revision to arrive.
const RETRY_FUTURE_SECONDS: u32 = 1;

/// Which resource and operation an error is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) group: &'a str,
    pub(super) resource: &'a str,
    pub(super) name: &'a str,
    /// get, list, create, update, delete: the word in messages.
    pub(super) operation: &'a str,
}

pub(super) fn status(error: StoreError, about: About<'_>) -> Status {
    let About { group, resource, name, operation } = about;
    match error {
        StoreError::Exists(_) => Status::already_exists(group, resource, name),
        StoreError::Conflict { current: None, .. } => Status::not_found(group, resource, name),
        StoreError::Conflict { .. } => Status::conflict(group, resource, name, OBJECT_MODIFIED),
        StoreError::Compacted { .. } => list_expired(),
        StoreError::Future { requested, newest } => too_large(requested, newest),
        StoreError::TooLarge { bytes } => Status::failure(
            413,
            reason::REQUEST_ENTITY_TOO_LARGE,
            format!(
                "Request entity too large: etcdserver: request is too large ({bytes} bytes as stored; the store \
                 takes 1.5 MiB unless etcd is told otherwise)"
            ),
        )
        .about(group, resource, name),
        StoreError::Unavailable(why) => {
            tracing::warn!(resource, operation, error = why, "store did not answer");
            let what = common::status::qualified(group, resource);
            Status::failure(
                500,
                reason::SERVER_TIMEOUT,
                format!(
                    "The {operation} operation against {what} could not be completed at this time, please try again."
                ),
            )
            .about(group, resource, operation)
            .retry_after(RETRY_AFTER_SECONDS)
        }
        StoreError::Corrupt(why) => Status::internal(why),
    }
}

/// What a conflicting update is told.
const OBJECT_MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// A value that is there and cannot be read.
pub(super) fn unreadable(error: &EntryError) -> Status {
    Status::internal(error)
}

/// 409 for a precondition, in the words of upstream's storage error.
pub(super) fn precondition(about: About<'_>, key: &str, what: &str, wanted: &str, found: &str) -> Status {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
    );
    Status::conflict(about.group, about.resource, about.name, why)
}

/// 410 of a watch that starts before the history kept.
pub(super) fn watch_expired(requested: Revision, oldest: Revision) -> Status {
    Status::expired(format!("too old resource version: {requested} ({oldest})"))
}

/// 410 of a list at a revision that is gone.
pub(super) fn list_expired() -> Status {
    Status::expired("The resourceVersion for the provided list is too old.")
}

/// 410 of a continued list, with a token that goes on inconsistently.
pub(super) fn continue_expired(token: String) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new \
         list without the continue parameter, or use the continue token in this response to retrieve the \
         remainder of the results. Continuing with the provided token results in an inconsistent list - \
         objects that were created, modified, or deleted between the time the first chunk was returned and \
         now may show up in the list.",
    );
    status.metadata.continue_token = token;
    status
}

/// 400 of a page that names a revision of its own.
pub(super) fn version_with_continue() -> Status {
    Status::bad_request("specifying resource version is not allowed when using continue")
}

/// 504 of a revision that has not been reached in time.
pub(super) fn too_large(requested: Revision, current: Revision) -> Status {
    Status::timeout(format!("Too large resource version: {requested}, current: {current}"))
        .because(vec![StatusCause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            ..Default::default()
        }])
        .retry_after(RETRY_FUTURE_SECONDS)
}

/// 429 while the first state is being read.
pub(super) fn initializing() -> Status {
    Status::too_many_requests("storage is (re)initializing", 1)
}
