//! Classes of devices.

use super::configuration::{CONFIGS_MAX, opaque};
use super::lists::within;
use super::selectors::selectors;
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::rules::Rules;

pub const DEVICE_CLASS: Rules = Rules {
    validate: |class, errors| {
        let spec = At::root(class).at("spec");
        selectors(&spec, errors);
        if within(&spec, "config", CONFIGS_MAX, errors) {
            for config in spec.each("config") {
                opaque(&config, errors);
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
    },
    ..Rules::COUNTED
};
