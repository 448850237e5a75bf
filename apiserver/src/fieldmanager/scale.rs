//! Owners of `spec.replicas` as the scale subresource shows and changes them.
//!
//! Upstream: `managedfields/scalehandler.go`.

use serde_json::Value;

use super::fieldpath::{Element, Set};
use super::managers::{Identity, Manager, Managers, ManagersError};

/// Versions of a resource with the path of its replicas; no path for a custom resource's version without the
/// subresource.
pub type Mappings = [(String, Option<Vec<Element>>)];

const SCALE_VERSION: &str = "autoscaling/v1";

fn replicas_in_scale() -> Set {
    Set::of_fields(&[&["spec", "replicas"]])
}

fn path<'m>(mappings: &'m Mappings, version: &str) -> Option<&'m Option<Vec<Element>>> {
    mappings.iter().find(|(v, _)| v == version).map(|(_, path)| path)
}

/// The entries that own the replicas, in the words of a Scale.
///
/// # Errors
/// When the entries cannot be read.
pub fn to_scale(entries: &Value, mappings: &Mappings) -> Result<Option<Value>, ManagersError> {
    let mut out = Managers::default();
    for manager in Managers::read(entries)?.iter() {
        let Some(Some(path)) = path(mappings, &manager.api_version) else { continue };
        if manager.set.has(path) {
            out.put(Manager {
                api_version: SCALE_VERSION.to_owned(),
                set: replicas_in_scale(),
                ..manager.clone()
            });
        }
    }
    Ok(out.write())
}

/// The resource's entries after a write of its Scale. `version` is the resource's version of the request.
///
/// # Errors
/// When either list cannot be read.
pub fn to_parent(
    entries: &Value,
    scale_entries: &Value,
    version: &str,
    mappings: &Mappings,
) -> Result<Option<Value>, ManagersError> {
    let mut of_scale = Managers::read(scale_entries)?;
    let mut out = Managers::default();
    for manager in Managers::read(entries)?.iter() {
        let Some(path) = path(mappings, &manager.api_version) else { continue };
        let owned = path.as_ref().filter(|path| manager.set.has(path));
        let Some(path) = owned else {
            out.put(manager.clone());
            continue;
        };
        // Entries keep their identity on the way to the Scale and back, in the version they had.
        if take_same(&mut of_scale, &manager.identity) {
            out.put(manager.clone());
            continue;
        }
        let mut replicas = Set::default();
        replicas.insert(path);
        let set = manager.set.difference(&replicas);
        if !set.is_empty() {
            out.put(Manager { set, ..manager.clone() });
        }
    }
    if let Some(Some(path)) = path(mappings, version) {
        let in_scale = [Element::field("spec"), Element::field("replicas")];
        for manager in of_scale.iter().filter(|m| m.set.has(&in_scale)) {
            let mut set = Set::default();
            set.insert(path);
            let identity = &manager.identity;
            let identity =
                Identity::new(identity.operation, &identity.manager, version, &identity.subresource);
            // As upstream, which has no time for who came through the Scale.
            out.put(Manager { identity, api_version: version.to_owned(), set, time: None });
        }
    }
    Ok(out.write())
}

fn take_same(managers: &mut Managers, identity: &Identity) -> bool {
    let in_scale = Identity::new(identity.operation, &identity.manager, SCALE_VERSION, &identity.subresource);
    managers.take(&in_scale).is_some()
}
