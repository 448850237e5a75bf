//! Media types: what the client sent, and what it wants back.
//!
//! A media type has an encoding (JSON, YAML) and may ask for another shape of the answer by
//! `as=...;g=...;v=...`. A combination that is not served is passed over for the next one in Accept.

use std::sync::Arc;

use common::status::Status;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};

/// What can be read and written, in upstream's order. Protobuf is JSON by the time it comes here, and becomes
/// protobuf again on the way out: see [`crate::server`] and [`PrefersProtobuf`].
pub const SUPPORTED: &[&str] = &["application/json", "application/yaml", crate::protobuf::MEDIA_TYPE];

/// An encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
}

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// The shape of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The object or list itself.
    Object,
    /// Only kind, apiVersion and metadata (`PartialObjectMetadata`, or its list).
    PartialMetadata,
    /// Columns and cells for people (`Table`).
    Table,
}

/// What the answer is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    pub encoding: Encoding,
    pub shape: Shape,
}

impl Output {
    /// Plain JSON.
    pub const JSON: Self = Self { encoding: Encoding::Json, shape: Shape::Object };
}

/// An extension of a request whose client prefers protobuf, while its Accept says JSON. Lists and watches are written
/// in it where they are made, without a detour; of other answers the server makes it. Its absence from an answer is no
/// mistake: every client reads JSON.
#[derive(Clone)]
pub struct PrefersProtobuf {
    pub messages: Arc<crate::protobuf::Table>,
    /// As [`accepts_gzip`] was before the header was taken away.
    pub gzip: bool,
}

/// One entry of an Accept header.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaRange<'a> {
    pub media_type: &'a str,
    pub quality: f32,
    pub parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaRange<'a> {
    pub fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map_or("", |(_, v)| v)
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media_type {
            "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            _ => None,
        }
    }
}

/// The entries of Accept, best first; equal ones as written.
pub fn accepted(headers: &HeaderMap) -> Vec<MediaRange<'_>> {
    let mut ranges: Vec<MediaRange<'_>> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(media_range)
        .collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

fn media_range(text: &str) -> Option<MediaRange<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().filter(|t| !t.is_empty())?;
    let mut range = MediaRange { media_type, quality: 1.0, parameters: Vec::new() };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim_matches('"');
        if key == "q" {
            range.quality = value.parse().unwrap_or(1.0);
        } else {
            range.parameters.push((key, value));
        }
    }
    Some(range)
}

/// What Accept would say if the client read JSON instead of protobuf; `None` when protobuf is not its choice.
pub fn protobuf_as_json(headers: &HeaderMap) -> Option<String> {
    for range in accepted(headers) {
        let parameters = [range.parameter("as"), range.parameter("g"), range.parameter("v")];
        let object = parameters[0].is_empty();
        let partial = matches!(
            parameters,
            ["PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1"]
        );
        if range.media_type == crate::protobuf::MEDIA_TYPE {
            match (object, partial) {
                (true, _) => return Some("application/json".to_owned()),
                (_, true) => {
                    let [shape, group, version] = parameters;
                    return Some(format!("application/json;as={shape};g={group};v={version}"));
                }
                // Tables have no protobuf form.
                _ => {}
            }
        } else if range.encoding().is_some()
            && (object
                || partial
                || parameters == ["Table", "meta.k8s.io", "v1"]
                || parameters == ["APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"])
        {
            return None;
        }
    }
    None
}

/// Chooses the output. `shapes` says whether other shapes than the object are served here.
///
/// # Errors
/// 406 when nothing in Accept is served.
pub fn output(headers: &HeaderMap, shapes: bool) -> Result<Output, Status> {
    let ranges = accepted(headers);
    if ranges.is_empty() {
        return Ok(Output::JSON);
    }
    for range in &ranges {
        let Some(encoding) = range.encoding() else { continue };
        let shape = match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
            ("", _, _) => Shape::Object,
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") if shapes => {
                Shape::PartialMetadata
            }
            ("Table", "meta.k8s.io", "v1") if shapes => Shape::Table,
            _ => continue,
        };
        return Ok(Output { encoding, shape });
    }
    Err(Status::not_acceptable(SUPPORTED))
}

/// The encoding of a request's body; JSON when not said.
///
/// # Errors
/// 415 for anything else.
pub fn input(headers: &HeaderMap) -> Result<Encoding, Status> {
    match media_type(headers).as_str() {
        "" | "application/json" | "text/json" => Ok(Encoding::Json),
        "application/yaml" | "application/x-yaml" => Ok(Encoding::Yaml),
        _ => Err(Status::unsupported_media_type(SUPPORTED)),
    }
}

/// Content-Type without parameters, in lower case; empty when absent.
pub fn media_type(headers: &HeaderMap) -> String {
    headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase()
}

/// The client takes gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.split(';').next().is_some_and(|name| name.trim() == "gzip"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOBUF_FIRST: &str = "application/vnd.kubernetes.protobuf,application/json";

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("header"));
        headers
    }

    #[test]
    fn the_first_served_type_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(output(&headers(table), true).expect("table").shape, Shape::Table);
        assert_eq!(output(&headers(table), false).expect("json"), Output::JSON);
        assert_eq!(output(&headers(PROTOBUF_FIRST), true).expect("json"), Output::JSON);
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(output(&headers(partial), true).expect("partial").shape, Shape::PartialMetadata);
        assert_eq!(output(&headers("application/yaml"), true).expect("yaml").encoding, Encoding::Yaml);
        assert_eq!(output(&headers("*/*"), true).expect("any"), Output::JSON);
        let protobuf = |accept: &str| protobuf_as_json(&headers(accept));
        assert_eq!(protobuf(PROTOBUF_FIRST).as_deref(), Some("application/json"));
        assert_eq!(protobuf("application/json,application/vnd.kubernetes.protobuf"), None);
        let partial = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(
            protobuf(&format!("application/vnd.kubernetes.protobuf{partial},application/json")),
            Some(format!("application/json{partial}"))
        );
        let table = ";as=Table;g=meta.k8s.io;v=v1";
        assert_eq!(protobuf(&format!("application/vnd.kubernetes.protobuf{table}")), None);
        let error = output(&headers("text/plain"), true).expect_err("not served");
        assert_eq!(error.code, 406);
        let quality = "application/json;q=0.5,application/yaml";
        assert_eq!(output(&headers(quality), true).expect("yaml").encoding, Encoding::Yaml);
    }
}
