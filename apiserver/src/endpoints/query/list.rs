//! Options of get, list, watch and deletecollection.

use common::fields::FieldSelector;
use common::labels::Selector;
use common::status::{FieldErrors, Status};

use super::{Query, invalid_options, unreadable_number};
use crate::cacher::{ListQuery, Selection, VersionMatch, WatchQuery};
use crate::resources::ResourceDef;
use crate::storage::Revision;

/// Options of list, watch and deletecollection.
#[derive(Debug, Clone)]
pub struct ListOptions {
    pub selection: Selection,
    pub resource_version: Option<Revision>,
    pub version_match: Option<VersionMatch>,
    pub limit: usize,
    pub continue_token: String,
    /// Negative for a watch that is over at once.
    pub timeout_seconds: Option<i64>,
    pub bookmarks: bool,
    pub send_initial_events: bool,
}

impl ListOptions {
    /// Reads and checks. `name` is the name in the path, for a watch of one object.
    ///
    /// # Errors
    /// 422 for combinations that upstream refuses, 400 for numbers and selectors that cannot be read.
    pub fn parse(
        query: &Query<'_>,
        def: &ResourceDef,
        namespace: &str,
        name: &str,
        watch: bool,
    ) -> Result<Self, Status> {
        let send_initial_events = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
        check_versions(query, watch, send_initial_events)?;
        let labels = Selector::parse(query.get("labelSelector"))
            .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
        let mut fields = FieldSelector::parse(query.get("fieldSelector"))
            .map_err(|e| Status::bad_request(e.to_string()))?;
        for term in &mut fields.terms {
            term.field = field_name(def, std::mem::take(&mut term.field))?;
        }
        if !name.is_empty() {
            if fields.is_everything() {
                fields.terms.push(common::fields::FieldTerm {
                    field: "metadata.name".to_owned(),
                    value: name.to_owned(),
                    equal: true,
                });
            } else if fields.required("metadata.name") != Some(name) {
                return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
            }
        }
        let limit = query.integer("limit")?.unwrap_or(0).max(0);
        let timeout_seconds = query.integer("timeoutSeconds")?;
        let version = query.get("resourceVersion");
        let resource_version = revision(version).map_err(|why| {
            if watch {
                unclassified(why)
            } else {
                Status::bad_request(format!("invalid resource version: {why}"))
            }
        })?;
        // `SetListOptionsDefaults`: a watch of old that begins nowhere begins with the state.
        let begins_nowhere =
            watch && matches!(version, "" | "0") && query.get("resourceVersionMatch").is_empty();
        let namespace = match fields.required("metadata.namespace") {
            Some(only) if def.namespaced && namespace.is_empty() && !only.contains('/') => only.to_owned(),
            _ => namespace.to_owned(),
        };
        Ok(Self {
            selection: Selection { namespace, labels, fields },
            resource_version,
            version_match: match query.get("resourceVersionMatch") {
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                _ => None,
            },
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            continue_token: query.get("continue").to_owned(),
            timeout_seconds,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: send_initial_events.unwrap_or(begins_nowhere),
        })
    }

    pub fn into_list(self) -> ListQuery {
        ListQuery {
            selection: self.selection,
            resource_version: self.resource_version,
            version_match: self.version_match,
            limit: self.limit,
            continue_token: self.continue_token,
        }
    }

    /// `ends_at` is when the caller will end the watch.
    pub fn into_watch(self, ends_at: tokio::time::Instant) -> WatchQuery {
        WatchQuery {
            selection: self.selection,
            resource_version: self.resource_version,
            bookmarks: self.bookmarks,
            send_initial_events: self.send_initial_events,
            ends_at: Some(ends_at),
            shares: false,
        }
    }
}

/// `ValidateListOptions` upstream.
fn check_versions(query: &Query<'_>, watch: bool, send_initial_events: Option<bool>) -> Result<(), Status> {
    const MATCH: &str = "resourceVersionMatch";
    let wanted = query.get(MATCH);
    let continues = !query.get("continue").is_empty();
    let mut errors = FieldErrors::new();
    if watch {
        if send_initial_events.is_some() && wanted != "NotOlderThan" {
            errors
                .forbidden(MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !wanted.is_empty() {
            if send_initial_events.is_none() {
                errors.forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if wanted != "NotOlderThan" {
                errors.not_supported(MATCH, wanted, &["NotOlderThan"]);
            }
            if continues {
                errors.forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
        }
    } else {
        if !wanted.is_empty() {
            if query.get("resourceVersion").is_empty() {
                errors
                    .forbidden(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if continues {
                errors.forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
            if !matches!(wanted, "Exact" | "NotOlderThan") {
                errors.not_supported(MATCH, wanted, &["Exact", "NotOlderThan", ""]);
            }
            if wanted == "Exact" && query.get("resourceVersion") == "0" {
                errors.forbidden(
                    MATCH,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                );
            }
        }
        if send_initial_events.is_some() {
            errors.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
    }
    invalid_options("ListOptions", &errors)
}

/// The stored form's name of a selectable field.
fn field_name(def: &ResourceDef, field: String) -> Result<String, Status> {
    let known = def.selectable_field_names;
    match field.as_str() {
        "metadata.name" => return Ok(field),
        "metadata.namespace" if def.namespaced || (known.is_empty() && def.custom.is_none()) => {
            return Ok(field);
        }
        _ => {}
    }
    if !def.field_aliases.is_empty() || def.custom.is_some() {
        if let Some((_, stored)) = def.field_aliases.iter().find(|(alias, _)| *alias == field) {
            return Ok(stored.to_string());
        }
    } else if known.contains(&field.as_str()) {
        return Ok(field);
    }
    Err(Status::bad_request(if known.is_empty() && def.custom.is_none() {
        format!("\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    }))
}

/// Options of get.
///
/// # Errors
/// 500 for a version that is no number, as upstream.
pub fn get_resource_version(query: &Query<'_>) -> Result<Option<Revision>, Status> {
    if query.has("export") && query.flag("export") {
        return Err(Status::bad_request(
            "the export parameter, deprecated since v1.14, is no longer supported",
        ));
    }
    revision(query.get("resourceVersion")).map_err(unclassified)
}

/// # Errors
/// What is wrong with the text, in upstream's words.
fn revision(text: &str) -> Result<Option<Revision>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // Go's parser knows no plus sign.
    let digits = if text.starts_with('+') { "+" } else { text };
    digits.parse().map(|n| Some(Revision(n))).map_err(|error| {
        let why = unreadable_number("ParseUint", text, &error);
        format!("resourceVersion: Invalid value: {text:?}: {why}")
    })
}

/// An error that upstream gives no reason.
fn unclassified(message: String) -> Status {
    Status::failure(500, "", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_versions_are_refused() {
        let check = |text: &str, watch| {
            let query = Query::parse(text);
            let initial = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
            check_versions(&query, watch, initial)
        };
        assert!(check("resourceVersion=5&resourceVersionMatch=Exact", false).is_ok());
        let error = check("resourceVersionMatch=Exact", false).expect_err("no version");
        assert_eq!(error.code, 422);
        assert_eq!(
            error.message,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        );
        assert!(check("sendInitialEvents=true", true).is_err());
        assert!(check("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true).is_ok());
    }

    #[test]
    fn every_combination_is_decided_as_upstream_decides_it() {
        // (query, watch, messages or what is forbidden)
        let cases: &[(&str, bool, &[&str])] = &[
            ("", false, &[]),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan&limit=5", false, &[]),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                false,
                &["Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""],
            ),
            (
                "resourceVersionMatch=Newer&continue=x",
                false,
                &[
                    "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
                    "Forbidden: resourceVersionMatch is forbidden when continue is provided",
                    "Unsupported value: \"Newer\": supported values: \"\", \"Exact\", \"NotOlderThan\"",
                ],
            ),
            ("sendInitialEvents=false", false, &["Forbidden: sendInitialEvents is forbidden for list"]),
            (
                "resourceVersionMatch=Exact&resourceVersion=5",
                true,
                &[
                    "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    "Unsupported value: \"Exact\": supported values: \"NotOlderThan\"",
                ],
            ),
            (
                "sendInitialEvents=false",
                true,
                &["Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"],
            ),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x",
                true,
                &["Forbidden: resourceVersionMatch is forbidden when continue is provided"],
            ),
            ("resourceVersion=5", true, &[]),
        ];
        for (text, watch, expected) in cases {
            let query = Query::parse(text);
            let initial = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
            let checked = check_versions(&query, *watch, initial);
            let Err(error) = checked else {
                assert!(expected.is_empty(), "{text} must be refused");
                continue;
            };
            assert_eq!(error.code, 422, "{text}");
            let causes = error.details.expect("details").causes;
            let told: Vec<&str> = causes.iter().map(|cause| cause.message.as_str()).collect();
            assert_eq!(told, *expected, "{text}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_refused_in_gos_words() {
        let read = |text: &str| {
            let query = Query::parse(text);
            (query.integer("limit").err(), revision(query.get("resourceVersion")).err())
        };
        let (limit, version) = read("limit=ten&resourceVersion=-1");
        assert_eq!(limit.expect("refused").message, "strconv.ParseInt: parsing \"ten\": invalid syntax");
        assert_eq!(
            version.expect("refused"),
            "resourceVersion: Invalid value: \"-1\": strconv.ParseUint: parsing \"-1\": invalid syntax"
        );
        let (limit, version) = read("limit=&resourceVersion=99999999999999999999");
        assert_eq!(limit.expect("refused").message, "strconv.ParseInt: parsing \"\": invalid syntax");
        assert!(version.expect("refused").ends_with("value out of range"));
        assert!(revision("+5").is_err());
    }
}
