//! `metadata.managedFields`: who owns which fields, read and written.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::fieldpath::{FieldsError, Set};

/// Entries of updates beyond this many are merged, oldest first (`DefaultMaxUpdateManagers`).
const UPDATE_MANAGERS_MAX: usize = 10;

/// Who the merged entries belong to.
const ANCIENT: &str = "ancient-changes";

/// How an entry came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What makes one entry another one than the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub operation: Operation,
    pub manager: String,
    /// Empty for an apply: who applies in another version is the same manager still.
    api_version: String,
    pub subresource: String,
}

impl Identity {
    pub fn new(operation: Operation, manager: &str, api_version: &str, subresource: &str) -> Self {
        let api_version = match operation {
            Operation::Apply => "",
            Operation::Update => api_version,
        };
        Self {
            operation,
            manager: manager.to_owned(),
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    pub identity: Identity,
    /// The version whose paths the set holds.
    pub api_version: String,
    /// RFC 3339, in whole seconds.
    pub time: Option<String>,
    pub set: Set,
}

/// Entries that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagersError {
    #[error("managedFields is not a list")]
    NotAList,
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    NoVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    NoFieldsType(usize),
    #[error("invalid fieldsType {1:?} in managed fields entry {0}")]
    FieldsType(usize, String),
    #[error("error decoding set: {0}")]
    Fields(#[from] FieldsError),
}

/// All entries of one object, each identity once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managers(BTreeMap<Identity, Manager>);

impl Managers {
    /// Reads `metadata.managedFields`; nothing is nobody.
    ///
    /// # Errors
    /// For an entry that is not whole.
    pub fn read(entries: &Value) -> Result<Self, ManagersError> {
        let list = match entries {
            Value::Null => return Ok(Self::default()),
            Value::Array(list) => list,
            _ => return Err(ManagersError::NotAList),
        };
        let mut out = Self::default();
        for (index, entry) in list.iter().enumerate() {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("");
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(ManagersError::Operation),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err(ManagersError::NoVersion);
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(ManagersError::NoFieldsType(index)),
                other => return Err(ManagersError::FieldsType(index, other.to_owned())),
            }
            let time = text("time");
            out.put(Manager {
                identity: Identity::new(operation, text("manager"), api_version, text("subresource")),
                api_version: api_version.to_owned(),
                time: (!time.is_empty()).then(|| time.to_owned()),
                set: Set::from_fields(entry.get("fieldsV1").unwrap_or(&Value::Null))?,
            });
        }
        Ok(out)
    }

    /// As `metadata.managedFields`, in upstream's order: applies first, then by time and name. `None` when
    /// nobody owns anything.
    pub fn write(self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        let mut sorted: Vec<Manager> = self.0.into_values().collect();
        sorted.sort_by(|a, b| {
            let (x, y) = (&a.identity, &b.identity);
            x.operation
                .cmp(&y.operation)
                .then_with(|| a.time.cmp(&b.time))
                .then_with(|| x.manager.cmp(&y.manager))
                .then_with(|| a.api_version.cmp(&b.api_version))
                .then_with(|| x.subresource.cmp(&y.subresource))
        });
        Some(sorted.into_iter().map(entry).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Manager> {
        self.0.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Manager> {
        self.0.values_mut()
    }

    pub fn get(&self, identity: &Identity) -> Option<&Manager> {
        self.0.get(identity)
    }

    /// Adds, or replaces the one of the same identity.
    pub fn put(&mut self, manager: Manager) {
        self.0.insert(manager.identity.clone(), manager);
    }

    pub fn take(&mut self, identity: &Identity) -> Option<Manager> {
        self.0.remove(identity)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&Manager) -> bool) {
        self.0.retain(|_, manager| keep(manager));
    }

    /// Merges the oldest updates of each version until there are few enough.
    pub fn cap(&mut self) {
        let is_update = |m: &&Manager| m.identity.operation == Operation::Update;
        let mut count = self.iter().filter(is_update).count();
        if count <= UPDATE_MANAGERS_MAX {
            return;
        }
        let mut oldest: Vec<(Option<String>, Identity)> =
            self.iter().filter(is_update).map(|m| (m.time.clone(), m.identity.clone())).collect();
        oldest.sort_by(|a, b| match a.0.cmp(&b.0) {
            Ordering::Equal => by_text(&a.1, &b.1),
            other => other,
        });
        let mut firsts: HashMap<String, Identity> = HashMap::new();
        for (time, identity) in oldest {
            if count <= UPDATE_MANAGERS_MAX {
                break;
            }
            let Some(version) = self.get(&identity).map(|m| m.api_version.clone()) else { continue };
            let Some(first) = firsts.get(&version).cloned() else {
                firsts.insert(version, identity);
                continue;
            };
            let bucket = Identity::new(Operation::Update, ANCIENT, &version, "");
            if self.get(&bucket).is_none()
                && let Some(mut manager) = self.take(&first)
            {
                manager.identity = bucket.clone();
                self.put(manager);
            }
            if identity == bucket {
                continue;
            }
            let Some(merged) = self.take(&identity) else { continue };
            if let Some(manager) = self.0.get_mut(&bucket) {
                manager.set = manager.set.union(&merged.set);
                // The one merged last is the newest of them.
                manager.time = time;
            }
            count -= 1;
        }
    }
}

/// The order of upstream's identifiers, which are JSON with the manager's name first.
fn by_text(a: &Identity, b: &Identity) -> Ordering {
    (&a.manager, &a.api_version, &a.subresource).cmp(&(&b.manager, &b.api_version, &b.subresource))
}

fn entry(manager: Manager) -> Value {
    let Manager { identity, api_version, time, set } = manager;
    let mut out = Map::new();
    let mut put = |key: &str, value: String| {
        if !value.is_empty() {
            out.insert(key.to_owned(), Value::String(value));
        }
    };
    put("manager", identity.manager);
    put("operation", identity.operation.text().to_owned());
    put("apiVersion", api_version);
    put("time", time.unwrap_or_default());
    put("fieldsType", "FieldsV1".to_owned());
    put("subresource", identity.subresource);
    out.insert("fieldsV1".to_owned(), set.to_fields());
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn update(name: &str, second: u32) -> Manager {
        Manager {
            identity: Identity::new(Operation::Update, name, "v1", ""),
            api_version: "v1".into(),
            time: Some(format!("2026-01-01T00:00:{second:02}Z")),
            set: Set::of_fields(&[&[name]]),
        }
    }

    #[test]
    fn entries_are_sorted_and_survive() {
        let mut managers = Managers::default();
        managers.put(update("b", 2));
        managers.put(update("a", 1));
        managers.put(Manager {
            identity: Identity::new(Operation::Apply, "z", "v1", "status"),
            api_version: "v1".into(),
            time: Some("2026-01-01T00:00:09Z".into()),
            set: Set::of_fields(&[&["status", "x"]]),
        });
        let written = managers.write().expect("not empty");
        let names: Vec<&str> =
            written.as_array().expect("a list").iter().filter_map(|e| e["manager"].as_str()).collect();
        assert_eq!(names, ["z", "a", "b"]);
        assert_eq!(
            written[0],
            json!({"manager": "z", "operation": "Apply", "apiVersion": "v1", "subresource": "status",
                "time": "2026-01-01T00:00:09Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {"f:x": {}}}})
        );
        assert_eq!(Managers::read(&written).expect("valid").write(), Some(written));
    }

    #[test]
    fn broken_entries_are_refused() {
        let fields = json!({"f:a": {}});
        for (entry, why) in [
            (json!({"operation": "Create"}), "operation must be `Apply` or `Update`"),
            (json!({"operation": "Update"}), "apiVersion must not be empty"),
            (
                json!({"operation": "Update", "apiVersion": "v1"}),
                "missing fieldsType in managed fields entry 0",
            ),
            (
                json!({"operation": "Update", "apiVersion": "v1", "fieldsType": "V2", "fieldsV1": fields}),
                "invalid fieldsType \"V2\" in managed fields entry 0",
            ),
        ] {
            assert_eq!(Managers::read(&json!([entry])).expect_err("broken").to_string(), why);
        }
    }

    #[test]
    fn old_updates_are_merged() {
        let mut managers = Managers::default();
        for second in 0..13 {
            managers.put(update(&format!("m{second:02}"), second));
        }
        managers.cap();
        assert_eq!(managers.iter().count(), 10);
        let ancient = managers.iter().find(|m| m.identity.manager == ANCIENT).expect("merged");
        assert_eq!(ancient.set, Set::of_fields(&[&["m00"], &["m01"], &["m02"], &["m03"]]));
        assert_eq!(ancient.time.as_deref(), Some("2026-01-01T00:00:03Z"));
        managers.put(update("new", 30));
        managers.cap();
        assert_eq!(managers.iter().count(), 10);
    }
}
