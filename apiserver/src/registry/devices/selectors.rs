//! Selectors of devices, in CEL. What an expression may say depends on gates, so it is compiled apart.

use common::status::FieldErrors;

use super::expressions::Selectors;
use super::lists::within;
use crate::features::Features;
use crate::registry::checks::At;

const SELECTORS_MAX: usize = 32;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;

pub(super) fn selectors(owner: &At<'_>, errors: &mut FieldErrors) {
    if !within(owner, "selectors", SELECTORS_MAX, errors) {
        return;
    }
    for selector in owner.each("selectors") {
        let cel = selector.at("cel");
        if !cel.present() {
            errors.required(&cel.path, "");
        } else if cel.text("expression").len() > EXPRESSION_BYTES_MAX {
            errors.too_long(cel.under("expression"), EXPRESSION_BYTES_MAX);
        }
    }
}

/// What cannot be compiled of those that [`selectors`] finds nothing wrong with.
pub(super) fn expressions<'a>(
    owners: impl Iterator<Item = At<'a>>,
    features: &Features,
    errors: &mut FieldErrors,
) {
    let mut compiler = None;
    for owner in owners {
        let selectors = owner.each("selectors");
        if selectors.len() > SELECTORS_MAX {
            continue;
        }
        for cel in selectors.iter().map(|selector| selector.at("cel")).filter(At::present) {
            let expression = cel.text("expression");
            if expression.len() <= EXPRESSION_BYTES_MAX {
                let compiler = compiler.get_or_insert_with(|| Selectors::new(features));
                compiler.check(cel.under("expression"), expression, errors);
            }
        }
    }
}
