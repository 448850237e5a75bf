//! Options of create, update and patch.

use common::status::{FieldErrors, Status};

use super::{Query, invalid_options};
use crate::fieldmanager::is_printable;

/// The name of a manager of fields may not be longer (`FieldManagerMaxLength`).
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// What to do with fields that a kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Options of create, update and patch.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    pub field_manager: String,
    /// An apply takes what others own.
    pub force: bool,
}

impl WriteOptions {
    /// # Errors
    /// 422 about `kind` (`CreateOptions` ...) for values that do not exist.
    pub fn parse(query: &Query<'_>, kind: &str) -> Result<Self, Status> {
        Self::read(query, kind, false)
    }

    /// Options of a server-side apply.
    ///
    /// # Errors
    /// 422 without a manager, and as [`WriteOptions::parse`].
    pub fn parse_apply(query: &Query<'_>) -> Result<Self, Status> {
        Self::read(query, "PatchOptions", true)
    }

    fn read(query: &Query<'_>, kind: &str, apply: bool) -> Result<Self, Status> {
        let mut errors = FieldErrors::new();
        let field_manager = query.get("fieldManager");
        if apply && field_manager.is_empty() {
            errors.required("fieldManager", "is required for apply patch");
        }
        if !apply && kind == "PatchOptions" && query.has("force") {
            errors.forbidden("force", "may not be specified for non-apply patch");
        }
        check_manager(field_manager, || "fieldManager".to_owned(), &mut errors);
        let values: Vec<&str> = query.all("dryRun").collect();
        let dry_run = check_dry_run(&values, &mut errors);
        let field_validation = match query.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                errors.not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]);
                FieldValidation::Warn
            }
        };
        invalid_options(kind, &errors)?;
        Ok(Self {
            dry_run,
            field_validation,
            field_manager: field_manager.to_owned(),
            force: apply && query.flag("force"),
        })
    }
}

/// `ValidateFieldManager`. Each character that cannot be printed is an error with the whole name in it, so that of a
/// name that is too long only that is said.
pub(in super::super) fn check_manager(name: &str, field: impl Fn() -> String, errors: &mut FieldErrors) {
    if name.len() > FIELD_MANAGER_BYTES_MAX {
        errors.too_long(field(), FIELD_MANAGER_BYTES_MAX);
        return;
    }
    for (at, c) in name.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.invalid(field(), name, why);
    }
}

/// True when the values ask for a dry run; notes values that do not exist.
pub fn check_dry_run(values: &[&str], errors: &mut FieldErrors) -> bool {
    if values.iter().any(|v| *v != "All") {
        errors.not_supported("dryRun", values, &["All"]);
    }
    !values.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_options_are_checked() {
        assert!(WriteOptions::parse(&Query::parse("dryRun=All"), "CreateOptions").expect("valid").dry_run);
        let error = WriteOptions::parse(&Query::parse("dryRun=Some"), "CreateOptions").expect_err("invalid");
        assert_eq!(error.code, 422);
    }

    #[test]
    fn faults_of_a_managers_name_stay_few() {
        let found = |name: &str| {
            let mut errors = FieldErrors::new();
            check_manager(name, || "fieldManager".to_owned(), &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(found("kubectl").is_empty());
        let bell = found("a\u{7}b\u{7}");
        assert_eq!(bell.len(), 2, "{bell:?}");
        assert!(bell[1].ends_with("invalid character U+0007 (at position 3)"), "{bell:?}");
        let long = found(&"\u{7}".repeat(40_000));
        assert!(matches!(&long[..], [only] if only.starts_with("fieldManager: Too long")), "{long:?}");
    }
}
