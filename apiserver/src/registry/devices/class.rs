//! Classes of devices.

use common::status::FieldErrors;

use super::configuration::{CONFIGS_MAX, opaque};
use super::lists::within;
use super::selectors::{expressions, selectors};
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::rules::Rules;
use crate::registry::tree::{field, same};

pub const DEVICE_CLASS: Rules = Rules {
    validate: |class, errors| spec(&At::root(class).at("spec"), None, errors),
    update_validates: false,
    validate_update: |new, old, errors| {
        spec(&At::root(new).at("spec"), Some(&At::root(old).at("spec")), errors);
    },
    gated: |class, _, features, errors| {
        expressions(std::iter::once(At::root(class).at("spec")), features, errors);
    },
    ..Rules::COUNTED
};

fn spec(spec: &At<'_>, old: Option<&At<'_>>, errors: &mut FieldErrors) {
    selectors(spec, errors);
    let stored = old.is_some_and(|old| same(field(old.value, "config"), field(spec.value, "config")));
    if within(spec, "config", CONFIGS_MAX, errors) {
        for config in spec.each("config") {
            opaque(&config, stored, errors);
        }
    }
    if spec.has("extendedResourceName") {
        let name = spec.text("extendedResourceName");
        let native = !name.contains('/') || name.contains("kubernetes.io/");
        let fits = !native
            && !name.starts_with("requests.")
            && names::qualified_name(&format!("requests.{name}")).is_empty();
        if !fits {
            spec.invalid("extendedResourceName", "must be a valid extended resource name", errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use serde_json::json;

    #[test]
    fn configuration_that_grew_too_long_may_stay() {
        const TOO_LONG: &str = "spec.config[0].opaque.parameters: Too long: may not be more than 10240 bytes";
        let parameters = json!({"a": "x".repeat(10 * 1024)});
        let class = json!({"spec": {"config": [{"opaque": {"driver": "d", "parameters": parameters}}]}});
        assert_eq!(found(DEVICE_CLASS, &class), [TOO_LONG]);
        let label = |new: &mut serde_json::Value| new["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(found_on_update(DEVICE_CLASS, &class, label), [""; 0]);
        let driver = |new: &mut serde_json::Value| new["spec"]["config"][0]["opaque"]["driver"] = json!("e");
        assert_eq!(found_on_update(DEVICE_CLASS, &class, driver), [TOO_LONG]);
    }

    #[test]
    fn extended_resources_have_a_domain() {
        let check = |name: &str, fits: bool| {
            let errors = found(DEVICE_CLASS, &json!({"spec": {"extendedResourceName": name}}));
            assert_eq!(errors.is_empty(), fits, "{name}: {errors:?}");
        };
        check("example.com/gpu", true);
        for name in ["gpu", "kubernetes.io/gpu", "requests.example.com/gpu", "example.com/"] {
            check(name, false);
        }
    }
}
