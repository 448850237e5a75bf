//! Name checks with upstream's messages (`apimachinery/pkg/util/validation`).

use common::labels;

pub const LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub const DNS1035_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
pub const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
pub const QUALIFIED_NAME_MESSAGE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn too_long(name: &str, max: usize, out: &mut Vec<String>) {
    if name.len() > max {
        out.push(format!("must be no more than {max} characters"));
    }
}

fn label_shape(name: &str, first: impl Fn(u8) -> bool) -> bool {
    let bytes = name.as_bytes();
    let end = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    match (bytes.first(), bytes.last()) {
        (Some(f), Some(l)) => first(*f) && end(*l) && bytes.iter().all(|b| end(*b) || *b == b'-'),
        _ => false,
    }
}

/// Pods, config maps and most kinds.
pub fn dns1123_subdomain(name: &str) -> Vec<String> {
    let mut out = Vec::new();
    too_long(name, 253, &mut out);
    let parts_fit =
        name.split('.').all(|part| label_shape(part, |b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    if !parts_fit {
        out.push(SUBDOMAIN_MESSAGE.to_owned());
    }
    out
}

/// Namespaces, stateful sets, container names.
pub fn dns1123_label(name: &str) -> Vec<String> {
    let mut out = Vec::new();
    too_long(name, 63, &mut out);
    if !label_shape(name, |b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        let whole = labels::is_dns1123_subdomain(name);
        out.push(if whole { "must not contain dots".to_owned() } else { LABEL_MESSAGE.to_owned() });
    }
    out
}

/// Services.
pub fn dns1035_label(name: &str) -> Vec<String> {
    let mut out = Vec::new();
    too_long(name, 63, &mut out);
    if !label_shape(name, |b| b.is_ascii_lowercase()) {
        out.push(DNS1035_MESSAGE.to_owned());
    }
    out
}

/// RBAC's four, storage versions, custom names: anything that fits in one path segment.
pub fn path_segment(name: &str) -> Vec<String> {
    let mut out = Vec::new();
    if name == "." || name == ".." {
        out.push(format!("may not be '{name}'"));
    }
    for bad in ['/', '%'] {
        if name.contains(bad) {
            out.push(format!("may not contain '{bad}'"));
        }
    }
    out
}

/// Label values.
pub fn label_value(value: &str) -> Vec<String> {
    let mut out = Vec::new();
    if value.len() > 63 {
        out.push("must be no more than 63 bytes".to_owned());
    }
    let bytes = value.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = match (bytes.first(), bytes.last()) {
        (Some(f), Some(l)) => {
            f.is_ascii_alphanumeric() && l.is_ascii_alphanumeric() && bytes.iter().all(inner)
        }
        _ => true,
    };
    if !fits {
        out.push(LABEL_VALUE_MESSAGE.to_owned());
    }
    out
}

/// `[prefix/]name`, as labels, annotations, resources and taints are keyed.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut parts = value.split('/');
    let (first, second, third) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    let name = match (second, third) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                out.push("prefix part must be non-empty".to_owned());
            } else {
                out.extend(dns1123_subdomain(first).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        (Some(_), Some(_)) => {
            return vec![format!(
                "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        out.push("name part must be no more than 63 bytes".to_owned());
    }
    let bytes = name.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(inner);
    if !fits {
        out.push(QUALIFIED_NAME_MESSAGE.to_owned());
    }
    out
}

/// Keys of config maps and secrets.
pub fn config_map_key(key: &str) -> Vec<String> {
    let mut out = Vec::new();
    too_long(key, 253, &mut out);
    let fits =
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !fits {
        out.push("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".to_owned());
    }
    if key == "." {
        out.push("must not be '.'".to_owned());
    } else if key == ".." {
        out.push("must not be '..'".to_owned());
    } else if key.starts_with("..") {
        out.push("must not start with '..'".to_owned());
    }
    out
}

/// Named ports (`IsValidPortName`).
pub fn port_name(name: &str) -> Vec<String> {
    let mut out = Vec::new();
    if name.len() > 15 {
        out.push("must be no more than 15 characters".to_owned());
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') || name.is_empty() {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        out.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        out.push("must not begin or end with a hyphen".to_owned());
    }
    out
}

/// Port numbers.
pub fn port_number(port: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&port)).then_some("must be between 1 and 65535, inclusive")
}

/// Environment variable names (relaxed: any printable ASCII but '=').
pub fn env_var_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    let fits = name.bytes().all(|b| (0x20..=0x7e).contains(&b) && b != b'=');
    if fits {
        Vec::new()
    } else {
        vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_or_say_why() {
        assert!(dns1123_subdomain("a.b-c").is_empty());
        assert_eq!(dns1123_subdomain("A"), [SUBDOMAIN_MESSAGE]);
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns1123_label("-a"), [LABEL_MESSAGE]);
        assert_eq!(dns1035_label("1a"), [DNS1035_MESSAGE]);
        assert_eq!(path_segment("a/b"), ["may not contain '/'"]);
        assert!(path_segment("system:node").is_empty());
        assert!(qualified_name("example.com/a").is_empty());
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert!(config_map_key("a.b_c").is_empty());
        assert_eq!(config_map_key("..a"), ["must not start with '..'"]);
        assert_eq!(port_name("1"), ["must contain at least one letter (a-z)"]);
    }
}
