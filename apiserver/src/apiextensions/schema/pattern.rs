//! Regular expressions of schemas and rules, as RE2 reads them.
//!
//! The `regex` crate does the work; where it reads a pattern otherwise than RE2, the pattern is written anew:
//! `\d`, `\w`, `\s` and `\b` know only ASCII, and within brackets nothing nests and nothing is subtracted.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// A regular expression, compiled when it is first needed.
#[derive(Debug, Clone, Default)]
pub struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

/// A schema's pattern may not compile to more. Who repeats the letters of all scripts sixty times, as a host name's
/// pattern does, gets to ten million.
pub const SCHEMA_BYTES_MAX: usize = 16 << 20;
/// A pattern that a rule makes while it runs may not compile to more.
pub const RULE_BYTES_MAX: usize = 1 << 20;

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.into(), compiled: OnceLock::new() }
    }

    /// As it is written; empty when there is none.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a part of `text` matches. Nothing matches what is no pattern.
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled
            .get_or_init(|| compile(&self.text, SCHEMA_BYTES_MAX).ok())
            .as_ref()
            .is_some_and(|r| r.is_match(text))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Compiles a pattern to at most so many bytes.
///
/// # Errors
/// What is wrong with it, or that it is too large.
pub fn compile(pattern: &str, bytes_max: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&of_re2(pattern)).size_limit(bytes_max).build()
}

/// What a class stands for between brackets.
fn class(letter: char) -> Option<(bool, &'static str)> {
    Some(match letter {
        'd' => (false, "0-9"),
        'D' => (true, "0-9"),
        'w' => (false, "0-9A-Za-z_"),
        'W' => (true, "0-9A-Za-z_"),
        's' => (false, r"\t\n\f\r "),
        'S' => (true, r"\t\n\f\r "),
        _ => return None,
    })
}

fn of_re2(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut within = false;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => rest = escaped(rest, within, &mut out),
            '[' if !within => {
                within = true;
                out.push('[');
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
                // A bracket that closes nothing is one of the characters.
                if let Some(after) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = after;
                }
            }
            '[' => match rest.strip_prefix(':').and_then(|named| named.split_once(":]")) {
                Some((name, after)) => {
                    out.push_str("[:");
                    out.push_str(name);
                    out.push_str(":]");
                    rest = after;
                }
                None => out.push_str("\\["),
            },
            ']' if within => {
                within = false;
                out.push(']');
            }
            '&' | '~' if within => {
                out.push('\\');
                out.push(c);
            }
            '-' if within && rest.starts_with('-') => {
                out.push_str("-\\-");
                rest = &rest[1..];
            }
            c => out.push(c),
        }
    }
    out
}

/// After a backslash; returns what follows.
fn escaped<'p>(rest: &'p str, within: bool, out: &mut String) -> &'p str {
    let Some(letter) = rest.chars().next() else {
        out.push('\\');
        return rest;
    };
    let after = &rest[letter.len_utf8()..];
    match (class(letter), letter) {
        (Some((negated, set)), _) => match (within, negated) {
            (true, false) => out.push_str(set),
            (_, true) => {
                out.push_str("[^");
                out.push_str(set);
                out.push(']');
            }
            (false, false) => {
                out.push('[');
                out.push_str(set);
                out.push(']');
            }
        },
        (None, 'b') if !within => out.push_str(r"(?-u:\b)"),
        (None, 'Q') if !within => {
            let (literal, after) = after.split_once("\\E").unwrap_or((after, ""));
            out.push_str(&regex::escape(literal));
            return after;
        }
        (None, letter) => {
            out.push('\\');
            out.push(letter);
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_re2() {
        for (pattern, text, matches) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "\u{0663}", false),
            (r"^\w+$", "a_1", true),
            (r"^\w+$", "\u{e9}", false),
            (r"^\W$", "\u{e9}", true),
            (r"^\s$", " ", true),
            (r"^\s$", "\u{a0}", false),
            (r"^\s$", "\u{b}", false),
            (r"^[\w.-]+$", "a.b-c", true),
            (r"^[\w.-]+$", "\u{e9}", false),
            (r"^[^\s]+$", "\u{a0}", true),
            (r"^[\D]$", "\u{0663}", true),
            (r"^[[:alpha:]]$", "a", true),
            (r"^[[a]$", "[", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^[]a]+$", "]a", true),
            (r"^[+--]+$", ",", true),
            (r"\bx\b", "\u{e9}x", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^\[a\]$", "[a]", true),
            ("(?i)^ab$", "AB", true),
            (r"^\pL+$", "\u{e9}", true),
        ] {
            let regex = compile(pattern, RULE_BYTES_MAX).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(regex.is_match(text), matches, "{pattern} {text:?}");
        }
        assert!(compile("(", SCHEMA_BYTES_MAX).is_err());
    }

    #[test]
    fn patterns_have_a_size() {
        let host = r"^[0-9\pS\pL]([0-9-\pS\pL]{0,61}[0-9\pS\pL])?(\.[0-9\pS\pL]{1,63})*$";
        assert!(compile(host, RULE_BYTES_MAX).is_err());
        assert!(compile(host, SCHEMA_BYTES_MAX).is_ok_and(|regex| regex.is_match("www.\u{e9}.example")));
        assert!(compile("a{1000}{1000}", SCHEMA_BYTES_MAX).is_err());
    }
}
