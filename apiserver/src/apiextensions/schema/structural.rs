//! One node of an `openAPIV3Schema`, read from the tree of its definition.
//!
//! The same shape serves the structural part and what stands below `allOf`, `anyOf`, `oneOf` and `not`. Texts that
//! only a reader wants (descriptions, examples) stay in the definition.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pattern::Pattern;

/// A schema node. Absent and zero are told apart only where upstream does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Structural {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`; empty when not given.
    pub ty: Box<str>,
    pub nullable: bool,
    pub default: Option<Value>,
    pub items: Option<Box<Structural>>,
    pub properties: BTreeMap<Box<str>, Structural>,
    pub additional: Option<Additional>,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub int_or_string: bool,
    pub list_type: Option<Box<str>>,
    pub list_map_keys: Vec<Box<str>>,
    pub map_type: Option<Box<str>>,
    pub rules: Vec<Rule>,
    /// What restricts values; absent for most nodes.
    pub values: Option<Box<ValueRules>>,
}

/// `additionalProperties`.
#[derive(Debug, Clone, PartialEq)]
pub enum Additional {
    Allowed(bool),
    Schema(Box<Structural>),
}

/// The schema fields that restrict values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValueRules {
    pub format: Box<str>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Pattern,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub multiple_of: Option<f64>,
    pub choices: Vec<Value>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<Box<str>>,
    pub all_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub not: Option<Box<Structural>>,
}

/// One of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    pub reason: String,
    pub field_path: String,
    pub optional_old_self: Option<bool>,
}

impl Structural {
    /// Reads a JSONSchemaProps. Fields of a wrong type read as absent: the definition was checked against its
    /// own type before.
    pub fn read(tree: &Value) -> Self {
        let text = |key: &str| tree.get(key).and_then(Value::as_str).unwrap_or("").into();
        let flag = |key: &str| tree.get(key).and_then(Value::as_bool).unwrap_or(false);
        let maybe = |key: &str| tree.get(key).and_then(Value::as_str).map(Into::into);
        Self {
            ty: text("type"),
            nullable: flag("nullable"),
            default: tree.get("default").filter(|v| !v.is_null()).cloned(),
            items: tree.get("items").filter(|v| v.is_object()).map(|v| Box::new(Self::read(v))),
            properties: map_of(tree.get("properties")),
            additional: match tree.get("additionalProperties") {
                Some(Value::Bool(allowed)) => Some(Additional::Allowed(*allowed)),
                Some(schema @ Value::Object(_)) => Some(Additional::Schema(Box::new(Self::read(schema)))),
                _ => None,
            },
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list_type: maybe("x-kubernetes-list-type"),
            list_map_keys: strings(tree.get("x-kubernetes-list-map-keys")),
            map_type: maybe("x-kubernetes-map-type"),
            rules: list(tree.get("x-kubernetes-validations")).iter().map(Rule::read).collect(),
            values: ValueRules::read(tree),
        }
    }

    /// The schema of a property by name; `additionalProperties` where it is not named.
    pub fn of_field(&self, name: &str) -> Option<&Structural> {
        self.properties.get(name).or(match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        })
    }

    /// The schema of all properties that have no name in it.
    pub fn additional_schema(&self) -> Option<&Structural> {
        match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        }
    }

    /// Whether anything in it fills in a default.
    pub fn has_defaults(&self) -> bool {
        self.default.is_some()
            || self.items.as_ref().is_some_and(|s| s.has_defaults())
            || self.properties.values().any(Self::has_defaults)
            || self.additional_schema().is_some_and(Self::has_defaults)
    }

    /// Whether any node says `test`; the nodes below `allOf` and its like are not asked.
    pub fn any(&self, test: &dyn Fn(&Self) -> bool) -> bool {
        test(self)
            || self.items.as_ref().is_some_and(|s| s.any(test))
            || self.properties.values().any(|s| s.any(test))
            || self.additional_schema().is_some_and(|s| s.any(test))
    }

    pub fn list_type(&self) -> &str {
        self.list_type.as_deref().unwrap_or("")
    }
}

impl ValueRules {
    fn read(tree: &Value) -> Option<Box<Self>> {
        let text = |key: &str| tree.get(key).and_then(Value::as_str).unwrap_or("").into();
        let flag = |key: &str| tree.get(key).and_then(Value::as_bool).unwrap_or(false);
        let whole = |key: &str| tree.get(key).and_then(Value::as_i64);
        let number = |key: &str| tree.get(key).and_then(Value::as_f64);
        let all = |key: &str| list(tree.get(key)).iter().map(Structural::read).collect();
        let out = Self {
            format: text("format"),
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            max_length: whole("maxLength"),
            min_length: whole("minLength"),
            pattern: Pattern::new(tree.get("pattern").and_then(Value::as_str).unwrap_or("")),
            max_items: whole("maxItems"),
            min_items: whole("minItems"),
            unique_items: flag("uniqueItems"),
            multiple_of: number("multipleOf"),
            choices: list(tree.get("enum")).to_vec(),
            max_properties: whole("maxProperties"),
            min_properties: whole("minProperties"),
            required: strings(tree.get("required")),
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: tree.get("not").filter(|v| v.is_object()).map(|v| Box::new(Structural::read(v))),
        };
        (out != Self::default()).then(|| Box::new(out))
    }
}

impl Rule {
    fn read(tree: &Value) -> Self {
        let text = |key: &str| tree.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        Self {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old_self: tree.get("optionalOldSelf").and_then(Value::as_bool),
        }
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn strings(value: Option<&Value>) -> Vec<Box<str>> {
    list(value).iter().filter_map(|v| v.as_str().map(Into::into)).collect()
}

fn map_of(value: Option<&Value>) -> BTreeMap<Box<str>, Structural> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(name, schema)| (name.as_str().into(), Structural::read(schema))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_is_read_as_it_is_written() {
        let schema = Structural::read(&json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string", "default": "x"}}}},
            "b": {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}}}}));
        assert!(schema.has_defaults());
        assert_eq!(schema.properties["a"].list_map_keys, ["k".into()]);
        assert!(schema.properties["b"].of_field("anything").is_some_and(|s| s.int_or_string));
        assert_eq!(schema.values.as_ref().map(|v| v.required.len()), Some(1));
        assert!(schema.properties["b"].values.is_none());
    }
}
