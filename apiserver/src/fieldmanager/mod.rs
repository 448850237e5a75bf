//! Who owns which field of an object: `metadata.managedFields` on every write, and server-side apply.
//!
//! [`FieldManager::update`] notes what a create, update or patch changed; [`FieldManager::apply`] merges a
//! partial object, refuses it where it would change what others own, and removes what its manager owned and
//! no longer mentions. Both work on trees and a schema, alike for built-in and custom kinds: `fieldpath` is
//! the sets, `typed` the walks of objects by their types, `managers` the entries as they are written.
//!
//! Pure: no store, no clock but the time passed in, no request.
//!
//! Upstream: `apimachinery/pkg/util/managedfields` and `structured-merge-diff/merge`.

mod apply;
mod conflict;
mod fieldpath;
mod last_applied;
mod managers;
mod ownership;
pub mod scale;
mod times;
mod typed;
mod update;
mod version;

#[cfg(test)]
mod tests;

pub use apply::{Applied, ApplyError};
pub use fieldpath::{Element, Set};
pub use managers::{Identity, Manager, Managers, Operation};
pub use times::keep_times;
pub use version::{Version, Versions};

use std::ops::Deref;

use serde_json::Value;

use crate::object::{Object, metadata_mut};

/// Paths of fields: `&[&["metadata", "labels"]]`.
pub type FieldPaths = &'static [&'static [&'static str]];

/// Never owned: identity, and what the server keeps itself.
const SYSTEM_FIELDS: FieldPaths = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// A manager's name may not be longer (`FieldManagerMaxLength`).
const NAME_BYTES_MAX: usize = 128;

/// The ownership of fields as one endpoint sees it.
pub struct FieldManager<'a> {
    /// The version of the request.
    version: Version,
    versions: Versions<'a>,
    /// Empty for the resource itself.
    subresource: &'a str,
    /// What the endpoint resets: nobody owns it through here.
    reset: Set,
}

impl<'a> FieldManager<'a> {
    pub fn new(version: Version, versions: Versions<'a>, subresource: &'a str, reset: FieldPaths) -> Self {
        Self { version, versions, subresource, reset: Set::of_fields(reset) }
    }

    /// The version of that name; `None` when the kind has no such version any more.
    fn at(&self, api_version: &str) -> Option<At<'_>> {
        if self.version.api_version() == api_version {
            return Some(At::Mine(&self.version));
        }
        (self.versions)(api_version).map(At::Other)
    }
}

/// The version of the request, or another.
enum At<'v> {
    Mine(&'v Version),
    Other(Version),
}

impl Deref for At<'_> {
    type Target = Version;

    fn deref(&self) -> &Version {
        match self {
            Self::Mine(version) => version,
            Self::Other(version) => version,
        }
    }
}

/// The manager of a request: the name given, or the user agent's before its first slash.
pub fn manager_name(given: &str, user_agent: &str) -> String {
    if !given.is_empty() {
        return given.to_owned();
    }
    let mut out = String::new();
    let prefix = user_agent.split('/').next().unwrap_or("");
    for c in prefix.chars().filter(|c| is_printable(*c)) {
        if out.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out
}

/// What Go's `unicode.IsPrint` says of all but rare characters: spaces other than the plain one and controls
/// are not.
pub fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace() || is_invisible(c))
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{fffb}')
}

/// `metadata.managedFields`; null when there are none.
fn entries(object: &Object) -> &Value {
    object.pointer("/metadata/managedFields").unwrap_or(&Value::Null)
}

fn set_entries(object: &mut Object, entries: Option<Value>) {
    match entries {
        Some(entries) => metadata_mut(object).insert("managedFields".to_owned(), entries),
        None => metadata_mut(object).remove("managedFields"),
    };
}
