//! What a selector's expression may speak of: `device` (`dynamic-resource-allocation/cel`).

use std::rc::Rc;

use common::status::FieldErrors;

use crate::cel::{Environment, Shape, Type, cost};
use crate::features::Features;

/// What a selector may be estimated to cost (`CELSelectorExpressionMaxCost`).
const COST_MAX: u64 = 1_000_000;
const DOMAIN_MAX: u64 = 63;
const ID_MAX: u64 = 32;
const DRIVER_MAX: u64 = 63;
const VALUE_MAX: u64 = 64;
/// Attributes and capacities of a device.
const ATTRIBUTES_MAX: u64 = 32;

/// Whether an attribute is a value or has it in its list.
const INCLUDES: &str = "includes: dyn.(dyn) -> bool";

/// Checks one expression.
pub(super) struct Selectors {
    env: Environment,
    device: Shape,
    /// An attribute may be a list.
    lists: bool,
}

impl Selectors {
    pub(super) fn new(features: &Features) -> Self {
        let lists = features.enabled("DRAListTypeAttributes");
        let device = device(lists, features.enabled("DRAConsumableCapacity"));
        let mut env = Environment::base().with_bind().shaped("device", &device, "");
        if lists {
            env = env.with_functions(&[INCLUDES]);
        }
        Self { env, device, lists }
    }

    pub(super) fn check(&self, field: String, text: &str, errors: &mut FieldErrors) {
        let program = match self.env.compile(text) {
            Ok(program) => program,
            Err(issues) => return errors.invalid(field, text, format!("compilation failed: {issues}")),
        };
        // The value of an attribute has a type only at run time.
        let fits = match program.output() {
            Type::Bool | Type::Any => true,
            Type::Dyn => self.lists,
            _ => false,
        };
        if !fits {
            let got = program.output().declared();
            return errors.invalid(
                field,
                text,
                format!("must evaluate to bool or the unknown type, not {got}"),
            );
        }
        let size_of = |path: &[Rc<str>]| match path {
            // Whatever an attribute is called, it is as large as any.
            [name, key, domain, id]
                if name.as_ref() == "device" && key.as_ref() == "attributes" && !id.starts_with('@') =>
            {
                cost::below(&self.device, &[key.clone(), domain.clone(), "@values".into()])
            }
            [name, below @ ..] if name.as_ref() == "device" => cost::below(&self.device, below),
            _ => None,
        };
        if cost::estimate(&program, &size_of) > COST_MAX {
            errors.forbidden(field, "too complex, exceeds cost limit");
        }
    }
}

fn device(lists: bool, consumable: bool) -> Shape {
    let text = |max| Shape::plain(Type::Str, max, 2);
    let by_domain = |values: Shape| {
        Shape::map(text(DOMAIN_MAX), Shape::map(text(ID_MAX), values, ATTRIBUTES_MAX), ATTRIBUTES_MAX)
    };
    let quantity = Shape::plain(Type::object("kubernetes.Quantity"), 0, 8);
    // A list has fewer values than a text may have bytes.
    let attribute = Shape::plain(if lists { Type::Dyn } else { Type::Any }, VALUE_MAX, 1);
    let mut fields = vec![
        ("driver", text(DRIVER_MAX)),
        ("attributes", by_domain(attribute)),
        ("capacity", by_domain(quantity)),
    ];
    if consumable {
        fields.push(("allowMultipleAllocations", Shape::plain(Type::Bool, 1, 4)));
    }
    Shape::object("kubernetes.DRADevice", fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_selector_may_say_depends_on_gates() {
        let problem = |gate: &'static str, on: bool, text: &str| {
            let mut errors = FieldErrors::new();
            Selectors::new(&Features::default().with(gate, on)).check("f".to_owned(), text, &mut errors);
            errors.0.first().map(|error| error.detail.clone()).unwrap_or_default()
        };
        let lists = |on: bool, text: &str| problem("DRAListTypeAttributes", on, text);
        for text in [
            "device.attributes['a.b'].x.includes(1)",
            "device.attributes['a.b'].x.exists(v, v == 'y')",
            "device.attributes['a.b'].x",
            "'y' in device.attributes['a.b'].x",
        ] {
            assert_eq!(lists(true, text), "", "{text}");
        }
        assert!(lists(false, "device.attributes['a.b'].x.includes(1)").contains("undeclared reference"));
        assert!(lists(true, "device.driver").ends_with("or the unknown type, not string"));
        let consumable = |on: bool| problem("DRAConsumableCapacity", on, "device.allowMultipleAllocations");
        assert_eq!(consumable(true), "");
        assert!(consumable(false).contains("undefined field 'allowMultipleAllocations'"));
    }

    #[test]
    fn selectors_are_checked_as_upstream_checks_them() {
        let selectors = Selectors::new(&Features::default());
        for (text, wanted) in [
            ("true", ""),
            ("device.driver == 'a.b'", ""),
            ("device.attributes['a.b'].x == 'y' && device.attributes['a.b']['z'] > 1", ""),
            ("device.attributes['a.b'].flag", ""),
            ("device.attributes['a.b'].version.isGreaterThan(semver('1.0.0'))", ""),
            ("device.capacity['a.b'].memory.compareTo(quantity('1Gi')) >= 0", ""),
            ("cel.bind(dra, device.attributes['a.b'], dra.x > 1 && dra.y)", ""),
            ("device.allowMultipleAllocations", ""),
            ("device.driver", "must evaluate to bool or the unknown type, not string"),
            (
                "device.capacity['a.b'].memory",
                "must evaluate to bool or the unknown type, not kubernetes.Quantity",
            ),
            ("device.nope == 1", "compilation failed: ERROR: <input>:1:7: undefined field 'nope'"),
            (
                "devices.driver == ''",
                "compilation failed: ERROR: <input>:1:1: undeclared reference to 'devices' (in container '')",
            ),
            (
                "device.attributes['a.b'].x.includes(1)",
                "compilation failed: ERROR: <input>:1:36: undeclared reference to 'includes' (in container '')",
            ),
            ("noSuchVar", "compilation failed: ERROR: <input>:1:1: undeclared reference to 'noSuchVar'"),
            (
                "device.attributes.map(s, s.lowerAscii().replace('a', device.driver)).all(x, device.attributes.all(y, device.attributes.all(z, (x + y + z).matches(device.driver))))",
                "too complex, exceeds cost limit",
            ),
        ] {
            let mut errors = FieldErrors::new();
            selectors.check("f".to_owned(), text, &mut errors);
            let found: Vec<&str> = errors.0.iter().map(|error| error.detail.as_str()).collect();
            match wanted {
                "" => assert!(found.is_empty(), "{text}: {found:?}"),
                wanted => assert!(found.len() == 1 && found[0].starts_with(wanted), "{text}: {found:?}"),
            }
        }
    }
}
