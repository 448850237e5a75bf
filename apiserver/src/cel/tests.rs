//! Expressions that are true, and errors of those that fail, by library.

use std::rc::Rc;

use super::library::authorizer::{Asked, Authorizer, Decision, Question, Resource, Target};
use super::machine::{Failure, Machine};
use super::value::Val;
use super::{Environment, Type};

const STEPS_MAX: u64 = 1_000_000;

/// Allows `get` alone, and tells what it was asked.
struct OnlyGet;

impl Authorizer for OnlyGet {
    fn decide(&self, question: &Question) -> Decision {
        let target = match &question.target {
            Target::Path(path) => path.clone(),
            Target::Resource(resource) => {
                let Resource {
                    group,
                    resource,
                    subresource,
                    namespace,
                    name,
                    field_selector,
                    label_selector,
                } = resource.as_ref();
                let selectors = [field_selector, label_selector].map(|s| s.as_deref().unwrap_or("-"));
                format!("{group} {resource}/{subresource} {namespace}/{name} {}", selectors.join(" "))
            }
        };
        let who = question.service_account.as_ref().map_or("user", |(_, name)| name);
        Decision {
            allowed: question.verb == "get",
            reason: format!("{who} {target}"),
            error: (question.verb == "fail").then(|| "no answer".to_owned()),
        }
    }
}

fn eval(text: &str) -> Result<Val<'static>, Failure> {
    let resource = Resource { resource: "pods".to_owned(), name: "p".to_owned(), ..Resource::default() };
    let env = Environment::base()
        .with_bind()
        .with_patches()
        .variable("authorizer", Type::object("kubernetes.authorization.Authorizer"))
        .variable("authorizer.requestResource", Type::object("kubernetes.authorization.ResourceCheck"));
    let program = env.compile(text).unwrap_or_else(|issues| panic!("{issues}"));
    let mut machine = Machine::new(STEPS_MAX);
    machine.bind("authorizer", Val::Authorization(Rc::new(Asked::nothing(Rc::new(OnlyGet)))));
    let asked = Asked::resource(Rc::new(OnlyGet), resource);
    machine.bind("authorizer.requestResource", Val::Authorization(Rc::new(asked)));
    machine.run(&program)
}

#[test]
fn functions_do_what_upstreams_do() {
    for text in [
        // Strings.
        "'%s|%d|%.2f|%x|%e|%%'.format(['a', 42, 1.5, 255, 1234.5]) == 'a|42|1.50|ff|1.234500\u{d7}10\u{2070}\u{b3}|%'",
        "'%s'.format([[1, 'a', {'k': true}]]) == '[1, a, {k: true}]'",
        "'%b %o %X'.format([5, 8, 'hi']) == '101 10 6869'",
        "strings.quote('a\"b\\n') == '\"a\\\\\"b\\\\n\"'",
        "'tacocat'.replace('c', 'k', 1) == 'takocat' && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'abc'.charAt(1) == 'b' && 'abcab'.lastIndexOf('ab') == 3 && ' a '.trim() == 'a'",
        // Lists.
        "[[1], [2, 3]].flatten() == [1, 2, 3] && [3, 1, 2].sort() == [1, 2, 3]",
        "[1, 2, 2].distinct() == [1, 2] && [1, 2, 3].slice(1, 3) == [2, 3] && [1, 2].reverse() == [2, 1]",
        "['bb', 'a'].sortBy(x, size(x)) == ['a', 'bb'] && lists.range(2) == [0, 1]",
        "[1].first().value() == 1 && ![].last().hasValue()",
        "[optional.of(1), optional.none()].unwrapOpt() == [1] && optional.unwrap([optional.of(1)]) == [1]",
        // Macros of two variables.
        "[1, 2].all(i, v, v == i + 1) && {'a': 1}.exists(k, v, k == 'a' && v == 1)",
        "[1, 1].existsOne(i, v, i == 0) && [3, 4].transformList(i, v, v > 3, i) == [1]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && {'a': 1}.transformMapEntry(k, v, {v: k}) == {1: 'a'}",
        "cel.bind(x, 2, x * x) == 4",
        "optional.of(2).optMap(x, x + 1).value() == 3 && optional.of(2).optFlatMap(x, optional.of(x)).value() == 2",
        "[?optional.none(), 1] == [1] && {?'a': optional.of(1)} == {'a': 1}",
        // Conversions.
        "int(duration('1s')) == 1000000000 && uint(3.7) == 3u && string(true) == 'true'",
        "type(1) == int && type(semver('1.0.0')) != type(1) && type(ip('::1')) == net.IP",
        "timestamp('2011-08-18T19:03:37.010Z').getHours('01:00') == 20 && timestamp('2011-08-18T19:03:37.010Z').getHours('-02:30') == 16",
        "type(duration('1s')) == google.protobuf.Duration && \"\"\"a\nb\"\"\" == 'a\\nb'",
        // Kubernetes'.
        "semver('1.2.3').isGreaterThan(semver('1.2.3-rc.1')) && semver('v1.01', true).minor() == 1",
        "!isSemver('v1.0') && isSemver('v1.0', true) && semver('1.0.0+a').compareTo(semver('1.0.0')) == 0",
        "jsonpatch.escapeKey('a~b/c') == 'a~0b~1c'",
        "ip.isCanonical('::1') && string(ip('::1')) == '::1' && sign(quantity('-1')) == -1",
        "'a\\u00e9'.find('[a-z]+') == 'a' && !'\\u0663'.matches('\\\\d')",
        // Patches.
        "Object{spec: Object.spec{replicas: 1}}.spec.replicas == 1",
        "[JSONPatch{op: 'add', path: '/a', value: 1}][0].op == 'add'",
        // The authorizer.
        "authorizer.path('/healthz').check('get').allowed()",
        "!authorizer.path('/healthz').check('post').allowed()",
        "authorizer.group('apps').resource('deployments').subresource('scale').namespace('n').name('d').check('get').reason() == 'user apps deployments/scale n/d - -'",
        "authorizer.serviceAccount('n', 'sa').group('').resource('pods').labelSelector('a=b').check('get').reason() == 'sa  pods/ / - a=b'",
        "authorizer.requestResource.check('get').reason() == 'user  pods/ /p - -'",
        "authorizer.path('/a').check('fail').errored() && authorizer.path('/a').check('fail').error() == 'no answer'",
    ] {
        assert_eq!(eval(text), Ok(Val::Bool(true)), "{text}");
    }
}

#[test]
fn what_fails_when_it_runs_says_why() {
    for (text, wanted) in [
        ("authorizer.group('').resource('').check('get').allowed()", "resource must not be empty"),
        ("semver('1')", "No Major.Minor.Patch elements found"),
        ("optional.none().value()", "optional.none() dereference"),
        ("[1, 2].transformMapEntry(i, v, {'a': v})", "insert failed: key a already exists"),
        ("[1][2]", "index out of bounds: 2"),
        ("'%d'.format(['a'])", "could not evaluate formatting clause %d"),
    ] {
        let Err(Failure::Error(why)) = eval(text) else { panic!("{text} does not fail") };
        assert!(why.contains(wanted), "{text}: {why}");
    }
}

#[test]
fn many_decisions_are_too_dear() {
    let text = "[1, 2, 3].all(x, authorizer.path('/a').check('get').allowed())";
    assert_eq!(eval(text), Err(Failure::Cost));
}

#[test]
fn deep_expressions_are_evaluated_on_a_small_stack() {
    for text in [
        format!("{}1{} != []", "[".repeat(200), "]".repeat(200)),
        format!("1{} > 1", " + 1".repeat(200)),
        format!("{}true{}", "true ? (".repeat(100), ") : false".repeat(100)),
    ] {
        assert_eq!(eval(&text), Ok(Val::Bool(true)), "{text}");
        let program = Environment::base().compile(&text).expect("compiles");
        assert!(super::cost::estimate(&program, &|_| None) < u64::MAX);
    }
}
