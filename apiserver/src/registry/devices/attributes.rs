//! Attributes of devices: one value or one list of values each.

use common::status::FieldErrors;
use serde_json::Value;

use super::names::{entry, qualified};
use crate::registry::checks::At;
use crate::registry::tree::{field, is_zero, items};

const VALUE_BYTES_MAX: usize = 64;
/// Of one device, items of lists counted one by one.
const VALUES_MAX: usize = 48;
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

pub(super) fn attributes(device: &At<'_>, errors: &mut FieldErrors) {
    let path = device.under("attributes");
    let all = field(device.value, "attributes").as_object();
    let count: usize = all.into_iter().flatten().map(|(_, value)| values(value)).sum();
    if count > VALUES_MAX {
        let detail = format!("the total number of attribute values must not exceed {VALUES_MAX}");
        errors.invalid(&device.path, count, detail);
    }
    for (name, value) in all.into_iter().flatten() {
        qualified(name, &path, errors);
        attribute(&At { value, path: entry(&path, name) }, errors);
    }
}

fn values(attribute: &Value) -> usize {
    LISTS.iter().map(|key| items(attribute, key).len()).sum::<usize>().max(1)
}

fn attribute(attribute: &At<'_>, errors: &mut FieldErrors) {
    let present = |keys: &[&str]| keys.iter().filter(|key| attribute.has(key)).count();
    if attribute.has("string") {
        text(attribute.text("string"), &attribute.under("string"), errors);
    }
    if attribute.has("version") {
        version(attribute.text("version"), &attribute.under("version"), errors);
    }
    for key in LISTS.iter().filter(|key| attribute.has(key)) {
        if is_zero(field(attribute.value, key)) {
            attribute.invalid(key, "must not be empty if specified", errors);
        }
    }
    for (key, check) in [("strings", text as fn(&str, &str, &mut FieldErrors)), ("versions", version)] {
        for (i, value) in attribute.strings(key).iter().enumerate() {
            check(value, &format!("{}[{i}]", attribute.under(key)), errors);
        }
    }
    match present(&["bool", "int", "string", "version"]) + present(&LISTS) {
        0 => errors.invalid(&attribute.path, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(&attribute.path, attribute.value, "exactly one value must be specified"),
    }
}

fn text(value: &str, path: &str, errors: &mut FieldErrors) {
    if value.len() > VALUE_BYTES_MAX {
        errors.too_long(path, VALUE_BYTES_MAX);
    }
}

fn version(value: &str, path: &str, errors: &mut FieldErrors) {
    if !is_semantic(value) {
        errors.invalid(path, value, "must be a string compatible with semver.org spec 2.0.0");
    }
    text(value, path, errors);
}

/// semver.org 2.0.0: `1.2.3-pre.1+build.2`.
fn is_semantic(version: &str) -> bool {
    let number = |part: &str| part == "0" || !part.starts_with('0') && is_decimal(part);
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, b)| (rest, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, p)| (core, Some(p)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (number(part) || !is_decimal(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(device: Value, expected: &[&str]) {
        let mut errors = FieldErrors::new();
        attributes(&At { value: &device, path: "d".to_owned() }, &mut errors);
        let errors: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(errors, expected, "{device}");
    }

    #[test]
    fn an_attribute_has_one_value() {
        let one = |value: Value| json!({"attributes": {"x": value}});
        for value in
            [json!({"int": 0}), json!({"bool": false}), json!({"string": ""}), json!({"ints": [1, 2]})]
        {
            check(one(value), &[]);
        }
        check(one(json!({})), &["d.attributes[x]: Invalid value: \"\": exactly one value must be specified"]);
        check(
            one(json!({"bools": []})),
            &["d.attributes[x].bools: Invalid value: []: must not be empty if specified"],
        );
        check(
            one(json!({"int": 1, "bool": true})),
            &[
                "d.attributes[x]: Invalid value: {\"bool\":true,\"int\":1}: exactly one value must be specified",
            ],
        );
        check(
            one(json!({"versions": ["1.2.3", "1.02.3"]})),
            &[
                "d.attributes[x].versions[1]: Invalid value: \"1.02.3\": must be a string compatible with semver.org spec 2.0.0",
            ],
        );
        check(
            one(json!({"strings": ["a".repeat(65)]})),
            &["d.attributes[x].strings[0]: Too long: may not be more than 64 bytes"],
        );
    }

    #[test]
    fn versions_are_semantic() {
        for good in ["1.2.3", "1.2.3-alpha.1+build.02", "0.0.0", "1.0.0-0a.-", "1.0.0+a-b"] {
            assert!(is_semantic(good), "{good}");
        }
        for bad in
            ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-01", "1.2.3-", "1.2.3+", "1.2.3-a..b", "v1.2.3"]
        {
            assert!(!is_semantic(bad), "{bad}");
        }
    }

    #[test]
    fn items_of_lists_count_one_by_one() {
        let list = |n: i64| json!({"ints": (0..n).collect::<Vec<_>>()});
        check(json!({"attributes": {"a": list(24), "b": list(23), "c": {"int": 1}}}), &[]);
        check(
            json!({"attributes": {"a": list(24), "b": list(25)}}),
            &["d: Invalid value: 49: the total number of attribute values must not exceed 48"],
        );
    }
}
