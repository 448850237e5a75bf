//! Field selectors: `metadata.name=a,spec.nodeName!=b`.

use crate::labels::ParseError;

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldTerm {
    pub field: String,
    pub value: String,
    /// False for `!=`.
    pub equal: bool,
}

/// A conjunction of terms; without terms it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Reads the query form. `\,`, `\=` and `\\` are escapes in values.
    ///
    /// # Errors
    /// When a term has no operator or an escape is not one of the three.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut terms = Vec::new();
        for raw in split_unescaped(text) {
            if raw.is_empty() {
                continue;
            }
            terms.push(parse_term(text, &raw)?);
        }
        Ok(Self { terms })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// `lookup` returns a field's value; a field that the object does not have is the empty string.
    pub fn matches<'a>(&self, mut lookup: impl FnMut(&str) -> &'a str) -> bool {
        self.terms.iter().all(|term| (lookup(&term.field) == term.value) == term.equal)
    }

    /// The value that `field` must have, when a term pins it.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

fn split_unescaped(text: &str) -> Vec<String> {
    let (mut out, mut current, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == ',' && !escaped {
            out.push(std::mem::take(&mut current));
        } else {
            current.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    out.push(current);
    out
}

fn parse_term(whole: &str, raw: &str) -> Result<FieldTerm, ParseError> {
    let position = raw
        .find("!=")
        .map(|i| (i, 2, false))
        .filter(|(i, _, _)| raw.find('=').is_none_or(|eq| *i < eq))
        .or_else(|| raw.find("==").map(|i| (i, 2, true)))
        .or_else(|| raw.find('=').map(|i| (i, 1, true)));
    let Some((at, width, equal)) = position else {
        return Err(ParseError(format!("invalid selector: '{whole}'; can't understand '{raw}'")));
    };
    Ok(FieldTerm { field: raw[..at].trim().to_owned(), value: unescape(&raw[at + width..])?, equal })
}

fn unescape(text: &str) -> Result<String, ParseError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(e @ ('\\' | ',' | '=')) => out.push(e),
                other => {
                    let shown = other.map_or_else(|| "\\".to_owned(), |o| format!("\\{o}"));
                    return Err(ParseError(format!(
                        "invalid field selector: invalid escape sequence: {shown}"
                    )));
                }
            },
            '=' => {
                return Err(ParseError("invalid field selector: unescaped character in value: '='".into()));
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_escapes_and_errors() {
        let s = FieldSelector::parse(r"metadata.name=a,spec.x!=b\,c,y==d").expect("selector");
        assert_eq!(s.terms.len(), 3);
        assert_eq!(s.terms[1].value, "b,c");
        assert_eq!(s.required("metadata.name"), Some("a"));
        assert!(s.matches(|f| match f {
            "metadata.name" => "a",
            "y" => "d",
            _ => "",
        }));
        for bad in ["a", r"a=\x", "a=b=c"] {
            assert!(FieldSelector::parse(bad).is_err(), "{bad}");
        }
    }
}
