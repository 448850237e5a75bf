//! Remembers owners that were found to be gone, so that a thousand dependents do not ask a thousand times.
//!
//! A uid does not come back, so what is remembered stays true. The whole reference is the key: another one may
//! name the same uid in another place, where it lives.

use std::collections::VecDeque;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use parking_lot::Mutex;

/// The oldest are forgotten first.
const ABSENT_MAX: usize = 500;

#[derive(Debug, PartialEq, Eq)]
struct Reference {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Debug, Default)]
pub struct Absent(Mutex<VecDeque<Reference>>);

fn reference(namespace: &str, owner: &OwnerReference) -> Reference {
    Reference {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        namespace: namespace.to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    }
}

impl Absent {
    /// Whether `owner`, as a dependent in `namespace` names it, is known to be gone.
    pub fn contains(&self, namespace: &str, owner: &OwnerReference) -> bool {
        self.0.lock().contains(&reference(namespace, owner))
    }

    pub fn insert(&self, namespace: &str, owner: &OwnerReference) {
        let (mut known, new) = (self.0.lock(), reference(namespace, owner));
        if known.contains(&new) {
            return;
        }
        if known.len() >= ABSENT_MAX {
            known.pop_front();
        }
        known.push_back(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.into(), name: "o".into(), ..OwnerReference::default() }
    }

    #[test]
    fn a_place_is_part_of_the_memory_and_the_oldest_goes() {
        let absent = Absent::default();
        absent.insert("a", &owner("0"));
        assert!(absent.contains("a", &owner("0")));
        assert!(!absent.contains("b", &owner("0")));
        for n in 1..=ABSENT_MAX {
            absent.insert("a", &owner(&n.to_string()));
        }
        assert!(!absent.contains("a", &owner("0")));
        assert!(absent.contains("a", &owner("1")));
    }
}
