//! The words of a conflict between managers.

use common::status::{Status, StatusCause, reason};

use super::fieldpath::Element;
use super::managers::{Identity, Operation};

/// A field that an apply changes and that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub owner: Identity,
    pub api_version: String,
    pub path: Vec<Element>,
}

impl Conflict {
    fn owner_text(&self) -> String {
        let mut text = format!("{:?}", self.owner.manager);
        if !self.owner.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.owner.subresource));
        }
        if self.owner.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn path_text(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }
}

/// The 409 that names every conflict: one in a line, more by owner.
pub fn status(conflicts: &[Conflict]) -> Status {
    let mut sorted: Vec<&Conflict> = conflicts.iter().collect();
    sorted.sort_by(|a, b| {
        (&a.owner.manager, a.owner.operation, &a.api_version, &a.owner.subresource).cmp(&(
            &b.owner.manager,
            b.owner.operation,
            &b.api_version,
            &b.owner.subresource,
        ))
    });
    let message = match sorted.as_slice() {
        [one] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", one.owner_text(), one.path_text())
        }
        many => {
            let mut lines: Vec<String> = Vec::new();
            let mut owner: Option<&Identity> = None;
            for conflict in many {
                if owner != Some(&conflict.owner) {
                    owner = Some(&conflict.owner);
                    lines.push(format!("conflicts with {}:", conflict.owner_text()));
                }
                lines.push(format!("- {}", conflict.path_text()));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let causes = sorted.iter().map(|conflict| StatusCause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", conflict.owner_text()),
        field: conflict.path_text(),
    });
    Status::failure(409, reason::CONFLICT, message).because(causes.collect())
}
