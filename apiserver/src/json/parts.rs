//! Parts of an object.

use serde_json::{Map, Value};

use super::{Cursor, Unexpected};

/// Which parts of a value are read. Lists are looked through.
#[derive(Debug, Clone)]
pub enum Parts {
    /// Everything in it.
    All,
    /// That it is there: null stands for it.
    Presence,
    /// As if it were not there.
    Nothing,
    /// Of an object these members, and what of each.
    These(Vec<(&'static str, Parts)>),
    /// Of an object these members as they say, and of every other what the last says.
    Rest(Vec<(&'static str, Parts)>, Box<Parts>),
}

impl Parts {
    /// By paths: `spec.containers.name` is that member of each element, `data.*` which members there are, and a path
    /// that ends has all below it.
    pub fn of(paths: &[&'static str]) -> Self {
        let mut parts = Self::These(Vec::new());
        for path in paths {
            parts.add(path);
        }
        parts
    }

    fn add(&mut self, path: &'static str) {
        let Self::These(members) = self else { return };
        let (head, rest) = path.split_once('.').unwrap_or((path, ""));
        let at = members.iter().position(|(name, _)| *name == head).unwrap_or_else(|| {
            members.push((head, Self::These(Vec::new())));
            members.len() - 1
        });
        match rest {
            "" => members[at].1 = Self::All,
            "*" => members[at].1 = Self::Rest(Vec::new(), Box::new(Self::Presence)),
            rest => members[at].1.add(rest),
        }
    }

    /// What is read of a member.
    fn member(&self, name: &str) -> Option<&Self> {
        let named =
            |members: &'_ [(&'static str, Self)]| members.iter().position(|(known, _)| *known == name);
        let found = match self {
            Self::All => self,
            Self::Presence | Self::Nothing => return None,
            Self::These(members) => &members[named(members)?].1,
            Self::Rest(members, rest) => named(members).map_or(rest.as_ref(), |at| &members[at].1),
        };
        (!matches!(found, Self::Nothing)).then_some(found)
    }
}

/// The text of one member of an object; what is behind it is not read.
///
/// # Errors
/// When the bytes are no JSON object as far as that.
pub fn member<'a>(json: &'a [u8], name: &str) -> Result<Option<&'a str>, Unexpected> {
    enum Stop<'a> {
        Found(&'a str),
        Unexpected(Unexpected),
    }
    impl From<Unexpected> for Stop<'_> {
        fn from(unexpected: Unexpected) -> Self {
            Self::Unexpected(unexpected)
        }
    }
    let walked = Cursor::new(json)?.members(|cursor, key| {
        let text = cursor.skip()?;
        if key == name { Err(Stop::Found(text)) } else { Ok(()) }
    });
    match walked {
        Ok(()) => Ok(None),
        Err(Stop::Found(text)) => Ok(Some(text)),
        Err(Stop::Unexpected(unexpected)) => Err(unexpected),
    }
}

/// An object's parts.
#[derive(Debug)]
pub struct Picked<'a> {
    pub tree: Value,
    /// The text of its metadata, whole.
    pub metadata: &'a str,
}

/// Reads parts of an object, in one pass over its bytes.
///
/// # Errors
/// When they are no JSON object with metadata.
pub fn pick<'a>(json: &'a [u8], parts: &Parts) -> Result<Picked<'a>, Unexpected> {
    let mut cursor = Cursor::new(json)?;
    let (mut tree, mut metadata) = (Map::new(), None);
    cursor.members(|cursor, key| {
        let begin = cursor.place()?;
        match parts.member(key) {
            Some(wanted) => {
                tree.insert(key.to_owned(), tree_of(cursor, wanted)?);
            }
            None => {
                cursor.skip()?;
            }
        }
        if key == "metadata" {
            metadata = Some(cursor.since(begin));
        }
        Ok::<_, Unexpected>(())
    })?;
    let metadata = metadata.ok_or_else(|| cursor.unexpected())?;
    cursor.end()?;
    Ok(Picked { tree: Value::Object(tree), metadata })
}

fn tree_of(cursor: &mut Cursor<'_>, parts: &Parts) -> Result<Value, Unexpected> {
    match (parts, cursor.peek()?) {
        (Parts::All, _) => cursor.value(),
        (Parts::Presence, _) => cursor.skip().map(|_| Value::Null),
        (_, b'{') => {
            let mut map = Map::new();
            cursor.members(|cursor, key| {
                match parts.member(key) {
                    Some(wanted) => {
                        map.insert(key.to_owned(), tree_of(cursor, wanted)?);
                    }
                    None => {
                        cursor.skip()?;
                    }
                }
                Ok::<_, Unexpected>(())
            })?;
            Ok(Value::Object(map))
        }
        (_, b'[') => {
            let mut list = Vec::new();
            cursor.elements(|cursor| {
                list.push(tree_of(cursor, parts)?);
                Ok::<_, Unexpected>(())
            })?;
            Ok(Value::Array(list))
        }
        _ => cursor.value(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_asked_for_is_read() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "a", "managedFields": [{"manager": "m"}]},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}, {"name": "d"}], "x": 1},
            "data": {"k": {"deep": 1}, "l": [2]}, "status": {"phase": "Running"}});
        let text = pod.to_string();
        let parts =
            Parts::of(&["metadata.name", "spec.nodeName", "spec.containers.name", "data.*", "status"]);
        let picked = pick(text.as_bytes(), &parts).expect("parts");
        assert_eq!(
            picked.tree,
            json!({"metadata": {"name": "a"}, "data": {"k": null, "l": null}, "status": {"phase": "Running"},
                "spec": {"nodeName": "n", "containers": [{"name": "c"}, {"name": "d"}]}})
        );
        assert_eq!(picked.metadata, pod["metadata"].to_string());
        let metadata = Parts::Rest(vec![("managedFields", Parts::Nothing)], Box::new(Parts::All));
        let but = vec![("spec", Parts::Nothing), ("metadata", metadata)];
        let but = Parts::Rest(but, Box::new(Parts::All));
        let picked = pick(text.as_bytes(), &but).expect("parts");
        assert_eq!(picked.tree["metadata"], json!({"name": "a"}));
        assert!(picked.tree.get("spec").is_none() && picked.tree["data"] == pod["data"]);
        assert!(pick(b"{}", &parts).is_err() && pick(br#"{"metadata":{}} x"#, &parts).is_err());
    }

    #[test]
    fn one_member_is_found_without_the_rest() {
        let text = br#"{"kind":"A","metadata":{"name":"a"},"spec":broken"#;
        assert_eq!(member(text, "metadata"), Ok(Some(r#"{"name":"a"}"#)));
        assert_eq!(member(br#"{"kind":"A"}"#, "metadata"), Ok(None));
        assert!(member(text, "status").is_err());
    }
}
