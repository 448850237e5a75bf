use super::*;
use serde_json::json;

fn problems(rule: &str) -> Vec<String> {
    let schema = Structural::read(&json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-validations": [{"rule": rule}],
        "properties": {"n": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}},
            "b": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 10}},
            "t": {"type": "string", "format": "date-time"}, "q": {"x-kubernetes-int-or-string": true},
            "m": {"type": "object", "additionalProperties": {"type": "integer"}},
            "a-b": {"type": "string"}, "if": {"type": "boolean"}}}}}));
    check(&schema, "s").iter().map(|p| p.error.to_string()).collect()
}

#[test]
fn mistakes_are_found_before_a_rule_runs() {
    for good in [
        "self.n > 1",
        "self.b.all(x, self.b.exists(y, x == y))",
        "!has(self.n) || self.n == oldSelf.n",
        "self.l.all(x, x != '')",
        "self.q == 5 || self.q == '50%'",
        "self.a__dash__b == 'x' && self.__if__ && self.if",
        "self.m.all(k, v, k != '' && v > 0)",
        "self.t > timestamp('2026-01-01T00:00:00Z')",
        "self.?n.optMap(n, n + 1).orValue(0) > 0",
    ] {
        assert_eq!(problems(good), Vec::<String>::new(), "{good}");
    }
    for (bad, wanted) in [
        ("self.missing > 1", "ERROR: <input>:1:5: undefined field 'missing'\n | self.missing > 1\n | ....^"),
        ("selfish.n > 1", "undeclared reference to 'selfish' (in container '')"),
        ("self.n.bogus()", "undeclared reference to 'bogus' (in container '')"),
        ("self.n +", "compilation failed: ERROR: <input>:1:9: Syntax error: "),
        ("self.n", "cel expression must evaluate to a bool"),
        ("self.q", "cel expression must evaluate to a bool"),
        ("self.n == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.n.startsWith('a')", "found no matching overload for 'startsWith' applied to 'int.(string)'"),
        ("self.n.x == 1", "type 'int' does not support field selection"),
        (
            "self.n.all(x, x)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("self.l[0] == 1", "found no matching overload for '_==_' applied to '(string, int)'"),
        ("self.m['a'] == 'b'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.metadata.name == ''", "undefined field 'metadata'"),
        ("size(self.l) == 1 && math.greatest(1, 2) == 2", "undeclared reference to 'math' (in container '')"),
        ("self.a__dash__b.matches('(')", "invalid matches argument"),
        (
            "self.l.all(x, self.l.all(y, x == y))",
            "estimated rule cost exceeds budget by factor of more than 100x",
        ),
    ] {
        let found = problems(bad);
        assert!(found.iter().any(|f| f.contains(wanted)), "{bad}: {found:?}");
    }
}

#[test]
fn an_error_shows_the_whole_rule() {
    let found = problems("self.n");
    assert_eq!(
        found,
        [
            "s.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"self.n\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: cel expression must evaluate to a bool"
        ]
    );
}

#[test]
fn the_root_has_the_identity_of_objects_and_no_more() {
    let of = |rule: &str| {
        let schema =
            Structural::read(&json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}]}));
        check(&schema, "s").iter().map(|p| p.error.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of("self.metadata.name.startsWith('a') && self.kind != ''"), Vec::<String>::new());
    assert!(of("self.metadata.labels.size() == 0")[0].contains("undefined field 'labels'"));
}

/// Estimates that upstream's tests state for schemas like these.
#[test]
fn estimates_are_upstreams() {
    let cost = |schema: Value, rule: &str| {
        let schema = Structural::read(&schema);
        let shape = shapes::of(&schema, false).expect("a shape");
        let env = environment(&Environment::base(), &shape, false);
        most(&env.compile(rule).unwrap_or_else(|issues| panic!("{rule}: {issues}")), &shape)
    };
    let list = |item: Value, max: Option<i64>| {
        let mut list = json!({"type": "array", "items": item});
        if let Some(max) = max {
            list["maxItems"] = max.into();
        }
        list
    };
    let map = |item: Value, max: Option<i64>| {
        let mut map = json!({"type": "object", "additionalProperties": item});
        if let Some(max) = max {
            map["maxProperties"] = max.into();
        }
        map
    };
    let text = |max: Option<i64>| match max {
        Some(max) => json!({"type": "string", "maxLength": max}),
        None => json!({"type": "string"}),
    };
    let of = |ty: &str| json!({"type": ty});
    let all = "self.all(x, true)";
    for (schema, rule, wanted) in [
        (list(of("number"), None), all, 4_718_591),
        (list(of("number"), Some(10)), all, 32),
        (list(of("string"), None), all, 3_145_727),
        (list(of("boolean"), None), all, 1_887_437),
        (list(list(of("number"), None), Some(100)), all, 302),
        (list(json!({"x-kubernetes-int-or-string": true}), None), all, 4_718_591),
        (list(json!({"type": "string", "format": "date"}), None), all, 725_936),
        (list(json!({"type": "string", "format": "date-time"}), None), all, 428_963),
        (list(json!({"type": "string", "format": "duration"}), None), "self[0].getHours() == 2", 4),
        (map(of("number"), None), all, 1_348_169),
        (map(of("string"), Some(3)), all, 11),
        (map(of("boolean"), None), all, 943_718),
        (map(json!({"type": "string", "format": "date-time"}), None), "self['a'] == self['b']", 8),
        (map(of("integer"), None), "oldSelf.size() == self.size()", 5),
        (text(None), "self.contains('test')", 314_574),
        (text(Some(10)), "self.contains('test')", 5),
        (text(Some(15)), "self.startsWith('test')", 2),
        (text(None), "size(self + \"hello\") > size(\"hello\")", 314_578),
        (text(Some(4)), "size(self + \"hello\") > size(\"hello\")", 7),
        (list(of("number"), None), "self[1] == 0.0", 2),
        (list(of("string"), None), "self[1] == self[1]", 314_577),
        (list(of("number"), Some(10)), "self.all(x, self.all(y, true))", 352),
        (list(of("number"), Some(10)), "self.all(x, self.all(y, self.all(z, true)))", 3_552),
        (text(None), "self.matches(\"x\")", 314_574),
        (text(Some(50)), "self.matches(\"x\")", 22),
        (text(None), "\"\".matches(\"(((((((((())))))))))[0-9]\")", 7),
        (map(text(None), None), "self.all(x, x.contains(self[x]))", 2_752_507),
        (text(None), "self == \"x\"", 2),
        (list(of("number"), None), "self.all(x, x == 0.0)", 6_291_454),
        (list(list(of("number"), None), None), "self[0][0] == -1.0", 3),
        (text(None), "self.find('[0-9]+') == ''", 629_147),
        (text(Some(10)), "self.find('[0-9]+') == ''", 11),
    ] {
        assert_eq!(cost(schema.clone(), rule), wanted, "{rule} {schema}");
    }
}

#[test]
fn rules_may_be_too_dear_together() {
    let dear = json!({"type": "array", "items": {"type": "number"},
        "x-kubernetes-validations": [{"rule": "self.all(x, x == 0.0)"}]});
    let properties: serde_json::Map<String, Value> =
        (0..17).map(|i| (format!("p{i}"), dear.clone())).collect();
    let schema = Structural::read(&json!({"type": "object", "properties": properties}));
    let found: Vec<String> = check(&schema, "s").iter().map(|p| p.error.to_string()).collect();
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found[0].contains("contributed to estimated rule cost total exceeding cost limit"), "{found:?}");
    assert!(found[4].starts_with("s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of 1.069547x"), "{found:?}");
}
