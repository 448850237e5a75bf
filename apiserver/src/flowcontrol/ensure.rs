//! Keeps the default objects as they should be: those that are missing are made, mandatory ones are put right,
//! suggested ones only while nobody has taken them over (`apf.kubernetes.io/autoupdate-spec`).
//!
//! Answers to `pkg/registry/flowcontrol/ensurer` and `rest` upstream.

use common::status::{Status, reason};
use serde_json::Value;

use super::GROUP;
use super::defaults::{self, AUTO_UPDATE};
use super::objects::{FlowSchemaSpec, PriorityLevelSpec};
use crate::bootstrap::Loopback;
use crate::object::{self, Object, str_at};
use crate::resources::Registry;

/// Compares the specifications of a wanted and a stored object of one kind.
type SameSpec = fn(&Object, &Object) -> bool;

/// Brings the stored objects up to the defaults.
///
/// # Errors
/// The server's refusal; what was done stays done.
pub async fn ensure(loopback: &Loopback, registry: &Registry) -> Result<(), Status> {
    let (levels, schemas) = ("prioritylevelconfigurations", "flowschemas");
    let suggested = [
        (levels, defaults::suggested_level_objects(), same_level as SameSpec),
        (schemas, defaults::suggested_schema_objects(), same_schema),
    ];
    let mandatory = [
        (levels, defaults::mandatory_level_objects(), same_level as SameSpec),
        (schemas, defaults::mandatory_schema_objects(), same_schema),
    ];
    for (always, set) in [(false, suggested), (true, mandatory)] {
        for (resource, objects, same) in set {
            for wanted in objects {
                one(loopback, registry, resource, &wanted, always, same).await?;
            }
        }
    }
    for (resource, all) in [
        (schemas, [defaults::suggested_schema_objects(), defaults::mandatory_schema_objects()].concat()),
        (levels, [defaults::suggested_level_objects(), defaults::mandatory_level_objects()].concat()),
    ] {
        remove_former(loopback, registry, resource, &all).await?;
    }
    Ok(())
}

fn collection(resource: &str) -> String {
    format!("/apis/{GROUP}/v1/{resource}")
}

async fn one(
    loopback: &Loopback,
    registry: &Registry,
    resource: &str,
    wanted: &Object,
    always: bool,
    same: SameSpec,
) -> Result<(), Status> {
    let name = object::name(wanted);
    let Some(current) = registry.store(GROUP, resource).cached("", name) else {
        return loopback.create(&collection(resource), wanted).await;
    };
    let Some(revised) = revised(&current.tree(), wanted, always, same) else { return Ok(()) };
    match loopback.update(&format!("{}/{name}", collection(resource)), &revised).await {
        // Someone else was faster; the next round looks again.
        Err(status) if status.reason == reason::CONFLICT => Ok(()),
        result => result,
    }
}

/// What the stored object should be changed to, if anything.
fn revised(current: &Object, wanted: &Object, always: bool, same: SameSpec) -> Option<Object> {
    let annotation = auto_update(current);
    let updates = always || annotation.unwrap_or_else(|| generation(current) == 1);
    let spec_differs = updates && !same(wanted, current);
    if annotation == Some(updates) && !spec_differs {
        return None;
    }
    let mut object = current.clone();
    if spec_differs {
        object["spec"] = wanted["spec"].clone();
    }
    object::map_at_mut(&mut object, &["metadata", "annotations"])
        .insert(AUTO_UPDATE.to_owned(), updates.to_string().into());
    Some(object)
}

/// Objects that the server made in an earlier version and no longer has.
async fn remove_former(
    loopback: &Loopback,
    registry: &Registry,
    resource: &str,
    wanted: &[Object],
) -> Result<(), Status> {
    for stored in registry.store(GROUP, resource).cached_list("") {
        let is_wanted = wanted.iter().any(|object| object::name(object) == stored.name);
        if !is_wanted && auto_update(&stored.tree()) == Some(true) {
            loopback.delete(&format!("{}/{}", collection(resource), stored.name)).await?;
        }
    }
    Ok(())
}

/// The annotation as Go's `ParseBool` reads it.
fn auto_update(object: &Object) -> Option<bool> {
    match str_at(object, &["metadata", "annotations", AUTO_UPDATE]) {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn generation(object: &Object) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

fn spec<T: serde::de::DeserializeOwned>(object: &Object) -> Option<T> {
    serde_json::from_value(object["spec"].clone()).ok()
}

fn same_schema(wanted: &Object, stored: &Object) -> bool {
    spec::<FlowSchemaSpec>(wanted) == spec::<FlowSchemaSpec>(stored)
}

/// The exempt level's shares are an administrator's to choose.
fn same_level(wanted: &Object, stored: &Object) -> bool {
    let (Some(mut wanted), Some(stored)) =
        (spec::<PriorityLevelSpec>(wanted), spec::<PriorityLevelSpec>(stored))
    else {
        return false;
    };
    if let (Some(wanted), Some(stored)) = (&mut wanted.exempt, &stored.exempt) {
        *wanted = stored.clone();
    }
    wanted == stored
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(annotation: Option<&str>, generation: i64, shares: u32) -> Object {
        let mut level = defaults::suggested_level_objects().remove(0);
        level["metadata"]["generation"] = generation.into();
        level["metadata"]["annotations"] = match annotation {
            Some(value) => json!({ AUTO_UPDATE: value }),
            None => json!({}),
        };
        level["spec"]["limited"]["nominalConcurrencyShares"] = shares.into();
        level
    }

    #[test]
    fn suggested_objects_are_kept_until_someone_takes_them_over() {
        let wanted = defaults::suggested_level_objects().remove(0);
        let check = |current: &Object, always| {
            revised(current, &wanted, always, same_level).map(|object| {
                (
                    object["spec"]["limited"]["nominalConcurrencyShares"].as_u64().unwrap(),
                    str_at(&object, &["metadata", "annotations", AUTO_UPDATE]).to_owned(),
                )
            })
        };
        assert_eq!(check(&stored(Some("true"), 1, 30), false), None);
        assert_eq!(check(&stored(Some("true"), 3, 7), false), Some((30, "true".into())));
        assert_eq!(check(&stored(Some("false"), 3, 7), false), None);
        assert_eq!(check(&stored(None, 1, 7), false), Some((30, "true".into())));
        assert_eq!(check(&stored(None, 2, 7), false), Some((7, "false".into())));
        assert_eq!(check(&stored(Some("false"), 3, 7), true), Some((30, "true".into())));
    }

    #[test]
    fn the_exempt_levels_shares_are_the_administrators() {
        let wanted = defaults::mandatory_level_objects().remove(1);
        let mut current = wanted.clone();
        current["spec"]["exempt"]["nominalConcurrencyShares"] = 9.into();
        assert!(revised(&current, &wanted, true, same_level).is_none());
    }
}
