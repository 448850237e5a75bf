//! The table against upstream's populated objects: every path is a real field, and each row drops and keeps.

use std::sync::Arc;

use serde_json::{Value, json};

use super::path::pairs;
use super::rows::{Place, ROWS};
use super::*;
use crate::registry::facts_tests;
use crate::resources::rows;
use crate::resources::rows::{Row, Storage};
use crate::resources::schema::{DATA, type_name};

fn populated(place: &Place) -> Value {
    let of = |row: &Row| row.group == place.group && row.resource == place.resource;
    let own = |row: &Row| of(row) && matches!(row.storage, Storage::Own(_));
    if let Some((_, _, object)) = facts_tests::stored().into_iter().find(|(_, row, _)| own(row)) {
        return object;
    }
    let row = rows().iter().find(|row| own(row)).expect("a stored resource");
    let types: Value = serde_json::from_str(DATA).expect("the schema");
    let name = type_name(row.group, row.version, row.kind);
    filled(&types, &name, &mut Vec::new())
}

/// A value of a published type with something in every field.
fn filled(types: &Value, ty: &str, above: &mut Vec<String>) -> Value {
    if let Some(item) = ty.strip_prefix("[]") {
        return json!([filled(types, item, above)]);
    }
    if let Some(item) = ty.strip_prefix("map:") {
        return json!({"k": filled(types, item, above)});
    }
    let Some(fields) = types[ty]["fields"].as_object().filter(|_| !above.iter().any(|a| a == ty)) else {
        return json!("x");
    };
    above.push(ty.to_owned());
    let each = fields.iter().map(|(key, field)| {
        let ty = field.as_str().or_else(|| field["t"].as_str()).unwrap_or("");
        (key.clone(), filled(types, ty, above))
    });
    let object = Value::Object(each.collect());
    above.pop();
    object
}

fn set(row: &super::rows::Row, value: bool) -> Arc<Features> {
    Arc::new(row.gates.iter().fold(Features::default(), |features, gate| features.with(gate, value)))
}

/// The row's fields that the object has.
fn present(row: &super::rows::Row, place: &Place, object: &Value) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut object = object.clone();
    pairs(&Path::parse(place.root), &mut object, None, &mut |here, _| {
        found.extend(row.fields.iter().filter(|field| Path::parse(field).used(here)).copied());
    });
    found
}

#[test]
fn every_row_drops_and_keeps() {
    let mut tried = 0;
    for row in ROWS {
        for place in row.kinds {
            let about = format!("{:?} {} {:?}", row.gates, place.resource, row.fields);
            let full = populated(place);
            assert_eq!(present(row, place, &full), row.fields, "{about}: a field does not exist");
            let mut unused = full.clone();
            pairs(&Path::parse(place.root), &mut unused, None, &mut |here, _| {
                for path in row.fields.iter().chain(row.in_use) {
                    Path::parse(path).remove(here);
                }
            });
            let (on, off) = (set(row, true), set(row, false));
            let written = |features: &Arc<Features>, old: Option<&Value>, through| {
                let mut new = full.clone();
                let gated = Gated::new(Arc::clone(features), place.group, place.resource);
                gated.drop_disabled(&mut new, old, through);
                present(row, place, &new).len()
            };
            let all = row.fields.len();
            assert_eq!(written(&off, None, Through::Main), 0, "{about}: created");
            assert_eq!(written(&off, Some(&unused), Through::Main), 0, "{about}: added by an update");
            assert_eq!(written(&off, Some(&full), Through::Main), all, "{about}: was there");
            assert_eq!(written(&on, None, Through::Main), all, "{about}: on");
            let viewed = if row.main_only { all } else { 0 };
            assert_eq!(written(&off, Some(&unused), Through::View), viewed, "{about}: through a view");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn each_use_alone_keeps_what_belongs_to_it() {
    for row in ROWS.iter().filter(|row| !row.in_use.is_empty()) {
        let place = &row.kinds[0];
        let full = populated(place);
        for kept in row.in_use {
            let mut old = full.clone();
            pairs(&Path::parse(place.root), &mut old, None, &mut |here, _| {
                for path in row.in_use.iter().filter(|path| *path != kept) {
                    Path::parse(path).remove(here);
                }
            });
            let mut new = full.clone();
            let gated = Gated::new(set(row, false), place.group, place.resource);
            gated.drop_disabled(&mut new, Some(&old), Through::Main);
            assert_eq!(present(row, place, &new), row.fields, "{:?} with {kept}", row.gates);
        }
    }
}

#[test]
fn every_gate_of_the_table_exists_and_can_be_off() {
    let gates = include_str!("../../features/data/gates.txt");
    for gate in ROWS.iter().flat_map(|row| row.gates).filter(|gate| **gate != "DynamicKubeletConfig") {
        let line = gates.lines().find(|line| line.split(' ').next() == Some(gate));
        let line = line.unwrap_or_else(|| panic!("no gate {gate}"));
        assert!(!line.contains(" locked"), "{gate} is always on");
    }
}

#[test]
fn pod_group_templates_are_compared_one_by_one() {
    let gated = Gated::new(Arc::new(Features::default()), "scheduling.k8s.io", "workloads");
    let workload = |priorities: &[Option<i64>]| {
        let templates: Vec<Value> = priorities.iter().map(|p| json!({"name": "t", "priority": p})).collect();
        json!({"spec": {"podGroupTemplates": templates}})
    };
    let mut new = workload(&[Some(1), Some(2)]);
    gated.drop_disabled(&mut new, Some(&workload(&[None, Some(1)])), Through::Main);
    let left: Vec<&Value> = new["spec"]["podGroupTemplates"]
        .as_array()
        .expect("templates")
        .iter()
        .map(|t| &t["priority"])
        .collect();
    assert_eq!(left, [&Value::Null, &json!(2)]);
}
