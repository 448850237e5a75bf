//! One populated object of every kind, in both encodings, as a stock server writes them.

use std::io::Read;

use serde_json::Value;

/// `data/objects.tar.gz`: `<group>.<version>.<kind>.json` and `.pb`.
const ARCHIVE: &[u8] = include_bytes!("data/objects.tar.gz");
const BLOCK: usize = 512;

/// A kind's object.
pub struct Fixture {
    /// `core.v1.Pod`.
    pub name: String,
    pub json: String,
    pub protobuf: Vec<u8>,
}

impl Fixture {
    pub fn tree(&self) -> Value {
        serde_json::from_str(&self.json).unwrap()
    }
}

/// All of them.
pub fn all() -> Vec<Fixture> {
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(ARCHIVE).read_to_end(&mut tar).unwrap();
    let mut files = std::collections::BTreeMap::new();
    let mut rest = tar.as_slice();
    // A ustar header: the name, and from byte 124 on the size in octal.
    while rest.len() >= BLOCK && rest[0] != 0 {
        let (header, body) = rest.split_at(BLOCK);
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).trim_matches(|c: char| c == '\0' || c == ' ').to_owned()
        };
        let size = usize::from_str_radix(&text(&header[124..136]), 8).unwrap();
        files.insert(text(&header[..100]), body[..size].to_vec());
        rest = &body[size.div_ceil(BLOCK) * BLOCK..];
    }
    let mut out = Vec::new();
    for (name, content) in &files {
        if let Some(name) = name.strip_suffix(".json") {
            let protobuf = files[&format!("{name}.pb")].clone();
            let json = String::from_utf8(content.clone()).unwrap();
            out.push(Fixture { name: name.to_owned(), json, protobuf });
        }
    }
    assert_eq!(out.len(), 92);
    out
}

/// The one of this name.
pub fn one(name: &str) -> Fixture {
    all().into_iter().find(|fixture| fixture.name == name).unwrap_or_else(|| panic!("no fixture {name}"))
}
