//! Selectors of devices, in CEL.

use common::status::FieldErrors;

use super::expressions::Selectors;
use super::lists::within;
use crate::registry::checks::At;

const SELECTORS_MAX: usize = 32;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;

pub(super) fn selectors(owner: &At<'_>, errors: &mut FieldErrors) {
    if !within(owner, "selectors", SELECTORS_MAX, errors) {
        return;
    }
    let selectors = owner.each("selectors");
    if selectors.is_empty() {
        return;
    }
    let compiler = Selectors::new();
    for selector in selectors {
        let cel = selector.at("cel");
        let expression = cel.text("expression");
        if !cel.present() {
            errors.required(&cel.path, "");
        } else if expression.len() > EXPRESSION_BYTES_MAX {
            errors.too_long(cel.under("expression"), EXPRESSION_BYTES_MAX);
        } else {
            compiler.check(cel.under("expression"), expression, errors);
        }
    }
}
