//! Paths as definitions write them: `.spec.a`, `.metadata.labels['x']`.

use super::schema::Structural;

/// The steps of a path that names a field of a schema, without lists.
///
/// # Errors
/// Why it names none.
pub fn field_path(text: &str, schema: &Structural) -> Result<Vec<String>, String> {
    let steps = steps(text)?;
    let mut here = Some(schema);
    for step in &steps {
        let Some(at) = here else { return Err(format!("does not refer to a valid field: {step}")) };
        here = at.of_field(step);
        if here.is_none() && !(at.preserve_unknown || at.embedded || step == "metadata") {
            return Err("does not refer to a valid field".to_owned());
        }
    }
    Ok(steps)
}

/// The steps of a path.
///
/// # Errors
/// What is malformed.
pub fn steps(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let (key, after) = after.split_once("']").ok_or("unterminated ['")?;
            out.push(key.to_owned());
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                return Err("expected a field name after '.'".to_owned());
            }
            out.push(after[..end].to_owned());
            rest = &after[end..];
        } else {
            return Err(format!("expected [ or . but got: {}", &rest[..rest.ceil_char_boundary(1)]));
        }
    }
    if out.is_empty() { Err("empty path".to_owned()) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_are_read_and_checked() {
        assert_eq!(steps(".a['b.c'].d").expect("path"), ["a", "b.c", "d"]);
        assert!(steps("a").is_err() && steps(".a..b").is_err() && steps("").is_err());
        let schema = Structural::read(&json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"a": {"type": "string"}}}}}));
        assert!(field_path(".spec.a", &schema).is_ok());
        assert!(field_path(".spec.b", &schema).is_err());
    }
}
