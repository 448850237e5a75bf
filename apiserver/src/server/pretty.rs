//! JSON for people: indented when `pretty=true` says so, or when a browser or a command line tool asks.
//!
//! The rule of who is a person is upstream's (`negotiation.isPrettyPrint`); the layout is Go's `json.Indent`.

use bytes::Bytes;

use crate::filters::query;

/// Clients whose answers people read.
const READERS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];
const INDENT: &[u8] = b"  ";

/// Whether the answer to a request is to be indented.
pub fn is_wanted(raw_query: &str, user_agent: &str) -> bool {
    if raw_query.contains("pretty")
        && let Some(value) = query::first(raw_query, "pretty").filter(|value| !value.is_empty())
    {
        return matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    READERS.iter().any(|reader| user_agent.starts_with(reader))
}

/// Indents by two spaces. Takes whatever it is given: what is no JSON comes out as no JSON.
pub fn indent(json: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped, mut opened) = (0_usize, false, false, false);
    for &byte in json {
        if in_string {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        // An empty object or list stays in one line.
        if opened && !closes {
            new_line(&mut out, depth);
        }
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !opened {
                    new_line(&mut out, depth);
                }
            }
            _ => {}
        }
        opened = matches!(byte, b'{' | b'[');
        out.push(byte);
        match byte {
            b',' => new_line(&mut out, depth),
            b':' => out.push(b' '),
            b'"' => in_string = true,
            _ => {}
        }
    }
    out.into()
}

fn new_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    for _ in 0..depth {
        out.extend_from_slice(INDENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_lines() {
        assert!(is_wanted("pretty=true", "kubectl/v1.36") && is_wanted("", "curl/7.88.1"));
        assert!(!is_wanted("pretty=false", "curl/7.88.1") && !is_wanted("", "kubectl/v1.36"));
        assert!(is_wanted("pretty=", "Mozilla/5.0 (X11)") && !is_wanted("pretty=what", ""));
    }

    #[test]
    fn the_layout_is_gos() {
        let json = br#"{"a":[1,{"b":"x, y: {\"z\"}"}],"c":{},"d":[],"e":null}"#;
        let lines = "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x, y: {\\\"z\\\"}\"\n    }\n  ],\n  \"c\": {},\n  \"d\": [],\n  \"e\": null\n}";
        assert_eq!(indent(json), lines);
        let value: serde_json::Value = serde_json::from_slice(json).unwrap();
        assert_eq!(serde_json::to_string_pretty(&value).unwrap(), lines);
        assert_eq!(indent(lines.as_bytes()), lines);
    }
}
