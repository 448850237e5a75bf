//! Selectors of devices, in CEL.

use common::status::FieldErrors;

use super::lists::within;
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
