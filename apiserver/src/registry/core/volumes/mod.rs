//! Persistent volumes and claims on them (`pkg/registry/core/persistentvolume`, `persistentvolumeclaim`).

mod claim;
mod volume;

pub use claim::{CLAIM, claim_spec};
pub use volume::{VOLUME, default_source, inline_spec};

use common::status::FieldErrors;

use crate::registry::checks::At;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// `accessModes` of either.
fn access_modes(spec: &At<'_>, errors: &mut FieldErrors) {
    let modes = spec.strings("accessModes");
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.not_supported(spec.under("accessModes"), mode, &ACCESS_MODES);
    }
    let others = modes.iter().any(|m| *m != "ReadWriteOncePod" && ACCESS_MODES.contains(m));
    if others && modes.contains(&"ReadWriteOncePod") {
        spec.forbidden("accessModes", "may not use ReadWriteOncePod with other access modes", errors);
    }
}
