use crate::cel::{Environment, Type};

fn env() -> Environment {
    Environment::base()
        .variable("s", Type::Str)
        .variable("i", Type::Int)
        .variable("d", Type::Dyn)
        .variable("l", Type::list(Type::Str))
        .variable("m", Type::map(Type::Str, Type::Int))
        .variable("o", Type::optional(Type::Int))
        .variable("authorizer", Type::object("kubernetes.authorization.Authorizer"))
        .variable("authorizer.requestResource", Type::object("kubernetes.authorization.ResourceCheck"))
}

#[test]
fn expressions_have_types() {
    for (text, wanted) in [
        ("i + 1", "int"),
        ("s + 'a'", "string"),
        ("d + 1", "int"),
        ("d.a.b", "dyn"),
        ("d == 1", "bool"),
        ("l + ['a']", "list(string)"),
        ("l[0]", "string"),
        ("m['a']", "int"),
        ("m.a", "int"),
        ("[1, 2].map(x, string(x))", "list(string)"),
        ("l.filter(x, x != '')", "list(string)"),
        ("l.exists_one(x, x == s)", "bool"),
        ("l.transformList(i, v, i)", "list(int)"),
        ("l.transformMap(i, v, v + 'a')", "map(int, string)"),
        ("m.transformMapEntry(k, v, {v: k})", "map(int, string)"),
        ("l.sortBy(x, size(x))", "list(string)"),
        ("l.?0", "type error"),
        ("l[?0]", "optional_type(string)"),
        ("m.?a", "optional_type(int)"),
        ("d.?a.b", "optional_type(dyn)"),
        ("o.orValue(1)", "int"),
        ("o.optMap(x, string(x))", "optional_type(string)"),
        ("optional.none()", "optional_type(dyn)"),
        ("[?o, 1]", "list(int)"),
        ("{?'a': o}", "map(string, int)"),
        ("[]", "list(dyn)"),
        ("i > 0 ? [] : ['a']", "list(string)"),
        ("type(i)", "type(int)"),
        ("type(i) == int", "bool"),
        ("type(ip('::1')) == net.IP", "bool"),
        ("duration('1h')", "google.protobuf.Duration"),
        ("null", "null_type"),
        ("quantity('1').add(1)", "kubernetes.Quantity"),
        ("semver('1.0.0')", "kubernetes.Semver"),
        ("url('https://a').getQuery()", "map(string, list(string))"),
        ("cidr('10.0.0.0/8').ip()", "net.IP"),
        ("format.named('x').value().validate('a')", "optional_type(list(string))"),
        ("authorizer.group('apps').resource('x').check('get').allowed()", "bool"),
        ("authorizer.requestResource.check('get')", "kubernetes.authorization.Decision"),
        ("1 < 2.0 && 1u < 2", "bool"),
        ("'%s'.format([1, 'a', null])", "string"),
        ("dyn(1) == 'a'", "bool"),
        ("has(d.x) || 'a' in m || 'a' in l", "bool"),
    ] {
        let found = match env().compile(text) {
            Ok(program) => program.output().declared(),
            Err(_) if wanted == "type error" => continue,
            Err(issues) => panic!("{text}: {issues}"),
        };
        assert_eq!(found, wanted, "{text}");
    }
}

#[test]
fn what_does_not_fit_is_told_as_cel_go_tells_it() {
    for (text, wanted) in [
        ("foo + 1", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo + 1\n | ^"),
        (
            "i + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | i + 'a'\n | ..^",
        ),
        (
            "l.join(1)",
            "ERROR: <input>:1:7: found no matching overload for 'join' applied to 'list(string).(int)'\n | l.join(1)\n | ......^",
        ),
        ("i && true", "ERROR: <input>:1:1: expected type 'bool' but found 'int'\n | i && true\n | ^"),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        (
            "true &&\n  foo",
            "ERROR: <input>:2:3: undeclared reference to 'foo' (in container '')\n |   foo\n | ..^",
        ),
        (
            "'\u{e9}' + foo",
            "ERROR: <input>:1:7: undeclared reference to 'foo' (in container '')\n | '\u{e9}' + foo\n | .\u{ff0e}....^",
        ),
        (
            "a + b",
            "ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a + b\n | ^\nERROR: <input>:1:5: undeclared reference to 'b' (in container '')\n | a + b\n | ....^",
        ),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('x')\n | .........^"),
        (
            "[d, 1].size()",
            "ERROR: <input>:1:5: expected type 'dyn' but found 'int'\n | [d, 1].size()\n | ....^",
        ),
        (
            "Object{}",
            "ERROR: <input>:1:7: undeclared reference to 'Object' (in container '')\n | Object{}\n | ......^",
        ),
    ] {
        let found = env().compile(text).expect_err(text).to_string();
        assert_eq!(found, wanted, "{text}");
    }
    for (text, wanted) in [
        ("i.all(x, x)", "cannot be range of a comprehension (must be list, map, or dynamic)"),
        ("has(i)", "invalid argument to has() macro"),
        ("l.all(1, true)", "argument must be a simple name"),
        ("l.all(a, a, true)", "duplicate variable name: a"),
        ("s.x", "type 'string' does not support field selection"),
        ("quantity('1').x", "unexpected failed resolution of 'kubernetes.Quantity'"),
        ("authorizer.check('get')", "found no matching overload for 'check' applied to"),
        ("cel.bind(x, 1, x)", "undeclared reference to 'cel'"),
        ("math.abs(-1)", "undeclared reference to 'math'"),
        ("jsonpatch.escapeKey('a')", "undeclared reference to 'jsonpatch'"),
        ("s.matches('[')", "invalid matches argument"),
        ("timestamp('x')", "invalid timestamp argument"),
        ("timestamp(-62135596801)", "invalid timestamp argument"),
        ("duration('1us') < duration('1nns')", "ERROR: <input>:1:28: invalid duration argument"),
        ("1 +", "Syntax error"),
        ("a.`b`", "unsupported syntax: '`'"),
    ] {
        let found = env().compile(text).expect_err(text).to_string();
        assert!(found.contains(wanted), "{text}: {found}");
    }
}

#[test]
fn a_chain_of_macros_stays_small() {
    let text = format!("o{}.hasValue()", ".optMap(x, x + 1)".repeat(60));
    assert_eq!(*env().compile(&text).expect("compiles").output(), Type::Bool);
}

#[test]
fn a_type_does_not_double_for_ever() {
    let depth = 30;
    let open: String = (1..depth).map(|i| format!("[{{a{0}: a{0}}}].exists(a{i}, ", i - 1)).collect();
    let text = format!("[{{1: 1}}].exists(a0, {open}true{}", ")".repeat(depth));
    assert_eq!(*env().compile(&text).expect("compiles").output(), Type::Bool);
}

#[test]
fn deep_and_long_expressions_are_refused_or_read() {
    let wrap = |open: &str, n: usize, close: &str| format!("{}1{}", open.repeat(n), close.repeat(n));
    assert!(env().compile(&wrap("(", 200, ")")).is_ok());
    assert!(env().compile(&wrap("[", 200, "]")).is_ok());
    assert!(env().compile(&wrap("(", 300, ")")).is_err());
    assert!(env().compile(&format!("d{}", "[0]".repeat(200))).is_ok());
    for (text, wanted) in [
        (format!("1{}", " + 1".repeat(500)), "ERROR: <input>:-1:0: max recursion depth exceeded"),
        (format!("d{}", ".a".repeat(500)), "ERROR: <input>:-1:0: max recursion depth exceeded"),
        (
            format!("'{}'", "a".repeat(100_000)),
            "ERROR: <input>:-1:0: expression code point size exceeds limit: size: 100002, limit 100000",
        ),
    ] {
        assert_eq!(env().compile(&text).expect_err("too much").to_string(), wanted);
    }
    // Logical operators are balanced, however many there are.
    assert!(env().compile(&format!("true{}", " && true".repeat(300))).is_ok());
}

#[test]
fn patches_have_types_of_their_own() {
    let env = env().with_patches().with_bind();
    for (text, wanted) in [
        ("Object{spec: Object.spec{replicas: d.a}}", "Object"),
        ("[JSONPatch{op: 'add', path: '/' + jsonpatch.escapeKey(s), value: 1}]", "list(JSONPatch)"),
        ("cel.bind(x, i + 1, x > 1)", "bool"),
        ("Object.spec.containers{name: 'a'}", "Object.spec.containers"),
    ] {
        let program = env.compile(text).unwrap_or_else(|issues| panic!("{text}: {issues}"));
        assert_eq!(program.output().declared(), wanted, "{text}");
    }
    for (text, wanted) in [
        ("JSONPatch{op: 1}", "expected type of field 'op' is 'string' but provided type is 'int'"),
        ("JSONPatch{nope: 1}", "undefined field 'nope'"),
        ("Other{}", "undeclared reference to 'Other'"),
    ] {
        let found = env.compile(text).expect_err(text).to_string();
        assert!(found.contains(wanted), "{text}: {found}");
    }
}
