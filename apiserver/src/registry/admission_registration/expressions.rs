//! Expressions of policies and webhooks: what they may speak of, and what is said of those that do not compile
//! (`apiserver/pkg/admission/plugin/cel`).

use common::status::FieldErrors;

use crate::cel::library::authorizer::{AUTHORIZER, RESOURCE_CHECK};
use crate::cel::{Environment, Shape, Type};
use crate::registry::checks::At;

const VARIABLES: &str = "kubernetes.variables";

/// Compiles the expressions of one object.
pub(super) struct Expressions {
    env: Environment,
}

/// What else an expression may speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    Nothing,
    Authorizer,
    /// The types of patches, beside the authorizer.
    Patches,
}

impl Expressions {
    /// `params` is whether there is a kind of parameters.
    pub(super) fn new(params: bool) -> Self {
        let mut env = Environment::base()
            .variable("object", Type::Dyn)
            .variable("oldObject", Type::Dyn)
            .shaped("namespaceObject", &namespace(), "")
            .shaped("request", &request(), "");
        if params {
            env = env.variable("params", Type::Dyn);
        }
        Self { env }
    }

    /// `variables` is a name, whose fields [`Self::variable`] adds.
    pub(super) fn compose(&mut self) {
        self.env = self.env.clone().shaped("variables", &Shape::object(VARIABLES, Vec::new()), "");
    }

    /// A variable of a policy; later expressions may speak of it, also when it does not compile.
    pub(super) fn variable(&mut self, name: &str, place: &At<'_>, errors: &mut FieldErrors) {
        let text = place.text("expression");
        let ty = match self.environment(With::Authorizer).compile(text) {
            Ok(program) => composed(program.output()),
            Err(issues) => {
                errors.invalid(place.under("expression"), text, format!("compilation failed: {issues}"));
                Type::Dyn
            }
        };
        self.env.set_field(VARIABLES, name, ty);
    }

    /// Checks the expression at a key of a place. `shown` is what the error says it is, where that is not the
    /// same text.
    pub(super) fn check(
        &self,
        field: String,
        text: &str,
        shown: &str,
        with: With,
        wanted: &[Type],
        errors: &mut FieldErrors,
    ) {
        match self.environment(with).compile(text) {
            Err(issues) => errors.invalid(field, shown, format!("compilation failed: {issues}")),
            Ok(program) if wanted.contains(program.output()) => {}
            Ok(program) => {
                let got = program.output().declared();
                let names: Vec<String> = wanted.iter().map(Type::declared).collect();
                let detail = match names.as_slice() {
                    [one] => format!("must evaluate to {one} but got {got}"),
                    many => format!("must evaluate to one of [{}] but got {got}", many.join(" ")),
                };
                errors.invalid(field, shown, detail);
            }
        }
    }

    fn environment(&self, with: With) -> Environment {
        let env = self.env.clone();
        if with == With::Nothing {
            return env;
        }
        let env = env
            .variable("authorizer", Type::object(AUTHORIZER))
            .variable("authorizer.requestResource", Type::object(RESOURCE_CHECK));
        if with == With::Patches { env.with_patches() } else { env }
    }
}

/// The type that a variable has for later expressions: what is not simple is not known.
fn composed(ty: &Type) -> Type {
    match ty {
        Type::List(of) => Type::list(composed(of)),
        Type::Map(key, value) => Type::map(composed(key), composed(value)),
        Type::Optional(_)
        | Type::Opaque(_)
        | Type::Object(_)
        | Type::Type(_)
        | Type::Param(_)
        | Type::Error => Type::Dyn,
        simple => simple.clone(),
    }
}

fn texts() -> Shape {
    Shape::list(Shape::text(), 0)
}

fn time() -> Shape {
    Shape::plain(Type::Timestamp, 0, 0)
}

fn request() -> Shape {
    let text = Shape::text;
    let kind = || {
        Shape::object(
            "kubernetes.GroupVersionKind",
            vec![("group", text()), ("version", text()), ("kind", text())],
        )
    };
    let resource = || {
        let fields = vec![("group", text()), ("version", text()), ("resource", text())];
        Shape::object("kubernetes.GroupVersionResource", fields)
    };
    let user = Shape::object(
        "kubernetes.UserInfo",
        vec![
            ("username", text()),
            ("uid", text()),
            ("groups", texts()),
            ("extra", Shape::map(text(), texts(), 0)),
        ],
    );
    Shape::object(
        "kubernetes.AdmissionRequest",
        vec![
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", text()),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Shape::plain(Type::Bool, 0, 0)),
            ("options", Shape::plain(Type::Dyn, 0, 0)),
        ],
    )
}

fn namespace() -> Shape {
    let text = Shape::text;
    let number = || Shape::plain(Type::Int, 0, 0);
    let pairs = || Shape::map(text(), text(), 0);
    let condition = Shape::object(
        "kubernetes.NamespaceCondition",
        vec![
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", time()),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let status = vec![("conditions", Shape::list(condition, 0)), ("phase", text())];
    let metadata = vec![
        ("name", text()),
        ("generateName", text()),
        ("namespace", text()),
        ("labels", pairs()),
        ("annotations", pairs()),
        ("UID", text()),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", number()),
        ("deletionTimestamp", time()),
        ("generation", number()),
        ("resourceVersion", text()),
        ("finalizers", texts()),
    ];
    Shape::object(
        "kubernetes.Namespace",
        vec![
            ("metadata", Shape::object("kubernetes.NamespaceMetadata", metadata)),
            ("spec", Shape::object("kubernetes.NamespaceSpec", vec![("finalizers", texts())])),
            ("status", Shape::object("kubernetes.NamespaceStatus", status)),
        ],
    )
}
