//! The table of messages.

use std::collections::HashMap;

use super::special::Special;
use super::wire::Scalar;

/// Facts: message name to `[json name, number, type, flags]`; `$` stands for `k8s.io.api.`, `@` for
/// `k8s.io.apimachinery.pkg.`, flag `i` for an inlined field, `p` for a pointer.
const DATA: &str = include_str!("data/messages.json");
const META: &str = "@apis.meta.v1";

/// Kinds every group shares; discovery's are of version `v1` alone.
const API_MACHINERY: [&str; 8] = [
    "Status",
    "WatchEvent",
    "APIVersions",
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
];

/// See the module.
pub struct Messages {
    ids: HashMap<String, u32>,
    fields: Vec<Vec<Field>>,
    /// For each message its fields' places in the order of their names.
    by_name: Vec<Vec<u16>>,
    /// For each message those whose fields stand among its own, owners first.
    inlined: Vec<Vec<Inlined>>,
}

/// A message whose fields stand among another's.
pub struct Inlined {
    pub number: u32,
    pub id: u32,
    /// The place of the inlined message that this one is inlined in; `None` in the message itself.
    pub owner: Option<usize>,
}

/// In JSON's order of names the next field is rarely further than this from the last.
const NEAR: usize = 6;

/// One field of a message.
pub struct Field {
    pub json: String,
    pub number: u32,
    pub kind: Kind,
    pub repeated: bool,
    pub map: bool,
    pub inline: bool,
    pub pointer: bool,
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    String,
    Bytes,
    Bool,
    Int,
    Double,
    Special(Special),
    Message(u32),
}

impl Kind {
    /// What a value that was not written stands for.
    pub fn empty(&self) -> Scalar<'static> {
        match self {
            Self::Bool | Self::Int => Scalar::Varint(0),
            Self::Double => Scalar::Fixed64(0),
            _ => Scalar::Bytes(&[]),
        }
    }
}

type Row = (String, u32, String, String);

impl Messages {
    /// The messages of this API level.
    ///
    /// # Panics
    /// When the data built into the program is damaged.
    pub fn builtin() -> Self {
        let data: HashMap<String, Vec<Row>> =
            serde_json::from_str(DATA).expect("the table of messages is JSON");
        let ids: HashMap<String, u32> =
            data.keys().enumerate().map(|(id, name)| (name.clone(), id as u32)).collect();
        let mut fields: Vec<Vec<Field>> = Vec::new();
        fields.resize_with(ids.len(), Vec::new);
        for (name, rows) in data {
            let id = ids[&name] as usize;
            fields[id] = rows.into_iter().filter_map(|row| field(row, &ids)).collect();
        }
        let by_name = fields
            .iter()
            .map(|fields| {
                let mut places: Vec<u16> = (0..fields.len() as u16).collect();
                places.sort_by(|a, b| fields[usize::from(*a)].json.cmp(&fields[usize::from(*b)].json));
                places
            })
            .collect();
        let inlined = (0..fields.len() as u32)
            .map(|id| {
                let mut found = Vec::new();
                find_inlined(&fields, id, None, &mut found);
                found
            })
            .collect();
        Self { ids, fields, by_name, inlined }
    }

    /// The message of a kind; the options that deletes and the like carry are known in every version.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<u32> {
        if kind.ends_with("Options") || API_MACHINERY.contains(&kind) {
            let found = self.ids.get(&format!("{META}.{kind}"));
            if found.is_some() {
                return found.copied();
            }
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let package = match group {
            "" => "core",
            group => group.split('.').next().unwrap_or(group),
        };
        // The groups whose package is not the first part of their name.
        let package = match group {
            "flowcontrol.apiserver.k8s.io" => "flowcontrol",
            "internal.apiserver.k8s.io" => "apiserverinternal",
            _ => package,
        };
        self.ids.get(&format!("${package}.{version}.{kind}")).copied()
    }

    /// A message's field by its name in JSON; inlined ones have none. `next` is where the search begins, 0 at first,
    /// and is left behind what was found: fields that come in the order of their names are found at once.
    pub fn field(&self, message: u32, name: &str, next: &mut usize) -> Option<&Field> {
        let fields = self.fields(message);
        let places = &self.by_name[message as usize];
        let at = |place: &u16| &fields[usize::from(*place)];
        let near = places.iter().skip(*next).take(NEAR).position(|place| at(place).json == name);
        let found = match near {
            Some(steps) => *next + steps,
            None => places.binary_search_by(|place| at(place).json.as_str().cmp(name)).ok()?,
        };
        *next = found + 1;
        Some(at(&places[found])).filter(|field| !field.inline)
    }

    /// The messages whose fields stand among a message's own, owners first.
    pub fn inlined(&self, message: u32) -> &[Inlined] {
        &self.inlined[message as usize]
    }

    pub fn fields(&self, message: u32) -> &[Field] {
        &self.fields[message as usize]
    }
}

fn find_inlined(fields: &[Vec<Field>], id: u32, owner: Option<usize>, found: &mut Vec<Inlined>) {
    for field in fields[id as usize].iter().filter(|field| field.inline) {
        if let Kind::Message(inner) = field.kind {
            let at = found.len();
            found.push(Inlined { number: field.number, id: inner, owner });
            find_inlined(fields, inner, Some(at), found);
        }
    }
}

fn field((json, number, text, flags): Row, ids: &HashMap<String, u32>) -> Option<Field> {
    let (map, text) = text.strip_prefix("map ").map_or((false, text.as_str()), |t| (true, t));
    let (repeated, text) = text.strip_prefix("repeated ").map_or((false, text), |t| (true, t));
    let kind = match text {
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "bool" => Kind::Bool,
        "int32" | "int64" => Kind::Int,
        "double" => Kind::Double,
        name => match Special::of(name) {
            Some(special) => Kind::Special(special),
            None => Kind::Message(*ids.get(name)?),
        },
    };
    let (inline, pointer) = (flags.contains('i'), flags.contains('p'));
    Some(Field { json, number, kind, repeated, map, inline, pointer })
}
