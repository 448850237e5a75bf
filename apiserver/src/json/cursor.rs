//! A place in a document.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

/// Deeper documents are refused, as `serde_json` does.
const DEPTH_MAX: u8 = 127;
/// Integers of this many digits need no further look.
const PLAIN_DIGITS_MAX: usize = 18;

/// What comes next is not what belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unexpected JSON at byte {0}")]
pub struct Unexpected(pub usize);

/// Walks a document from its beginning to its end. Every method that takes a value leaves the cursor behind it; after
/// an error the place is of no use.
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: u8,
}

/// What is in a string beside characters that stand for themselves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    Simple,
    /// `\u`, which must be looked at to be known as valid.
    Unicode,
}

impl<'a> Cursor<'a> {
    /// # Errors
    /// When the bytes are not UTF-8.
    pub fn new(json: &'a [u8]) -> Result<Self, Unexpected> {
        let text = std::str::from_utf8(json).map_err(|error| Unexpected(error.valid_up_to()))?;
        Ok(Self { text, at: 0, depth: 0 })
    }

    /// That something else should stand here.
    pub fn unexpected(&self) -> Unexpected {
        Unexpected(self.at)
    }

    /// The first byte of what comes next.
    ///
    /// # Errors
    /// At the end.
    pub fn peek(&mut self) -> Result<u8, Unexpected> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(self.unexpected()),
            }
        }
    }

    /// Where the next value begins, for [`Self::since`].
    ///
    /// # Errors
    /// At the end.
    pub fn place(&mut self) -> Result<usize, Unexpected> {
        self.peek()?;
        Ok(self.at)
    }

    /// What was taken since a place.
    pub fn since(&self, place: usize) -> &'a str {
        &self.text[place..self.at]
    }

    /// # Errors
    /// When something follows.
    pub fn end(mut self) -> Result<(), Unexpected> {
        match self.peek() {
            Ok(_) => Err(self.unexpected()),
            Err(_) => Ok(()),
        }
    }

    fn take(&mut self, wanted: u8) -> Result<(), Unexpected> {
        if self.peek()? != wanted {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    /// Takes what stands between two brackets, item by item.
    fn between<E: From<Unexpected>>(
        &mut self,
        [open, close]: [u8; 2],
        mut item: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(open)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.unexpected().into());
        }
        if self.peek()? != close {
            loop {
                item(self)?;
                if self.peek()? == close {
                    break;
                }
                self.take(b',')?;
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Takes an object. `each` is given the keys and must take their values.
    ///
    /// # Errors
    /// When there is none, and as `each`.
    pub fn members<E: From<Unexpected>>(
        &mut self,
        mut each: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        self.between(*b"{}", |cursor| {
            let key = cursor.string()?;
            cursor.take(b':')?;
            each(cursor, &key)
        })
    }

    /// Takes a list. `each` must take one element.
    ///
    /// # Errors
    /// When there is none, and as `each`.
    pub fn elements<E: From<Unexpected>>(
        &mut self,
        each: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.between(*b"[]", each)
    }

    /// Takes a string.
    ///
    /// # Errors
    /// When there is none.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Unexpected> {
        self.peek()?;
        let start = self.at;
        let escapes = self.pass_string()?;
        if escapes == Escapes::None {
            return Ok(Cow::Borrowed(&self.text[start + 1..self.at - 1]));
        }
        serde_json::from_str(&self.text[start..self.at]).map(Cow::Owned).map_err(|_| Unexpected(start))
    }

    fn pass_string(&mut self) -> Result<Escapes, Unexpected> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let mut escapes = Escapes::None;
        loop {
            self.at = plain_until(bytes, self.at);
            match (bytes.get(self.at), bytes.get(self.at + 1)) {
                (Some(b'"'), _) => {
                    self.at += 1;
                    return Ok(escapes);
                }
                (Some(b'\\'), Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => {
                    if escapes == Escapes::None {
                        escapes = Escapes::Simple;
                    }
                }
                (Some(b'\\'), Some(b'u')) => escapes = Escapes::Unicode,
                _ => return Err(self.unexpected()),
            }
            self.at += 2;
        }
    }

    /// Takes a number.
    ///
    /// # Errors
    /// When there is none, or none that a double holds.
    pub fn number(&mut self) -> Result<Number, Unexpected> {
        self.peek()?;
        let start = self.at;
        let plain = self.pass_number();
        let token = &self.text[start..self.at];
        if plain && let Ok(number) = token.parse::<i64>() {
            return Ok(if number < 0 { number.into() } else { number.cast_unsigned().into() });
        }
        serde_json::from_str(token).map_err(|_| Unexpected(start))
    }

    /// True for an integer as it must be written, of few enough digits.
    fn pass_number(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let sign = usize::from(bytes[start] == b'-');
        let mut plain = true;
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'0'..=b'9' => {}
                b'-' if self.at == start => {}
                b'.' | b'e' | b'E' | b'+' | b'-' => plain = false,
                _ => break,
            }
            self.at += 1;
        }
        let digits = &bytes[start + sign..self.at];
        let zero = digits == b"0" && sign == 0;
        plain && (zero || digits.first().is_some_and(|d| *d != b'0') && digits.len() <= PLAIN_DIGITS_MAX)
    }

    /// Takes a truth.
    ///
    /// # Errors
    /// When there is none.
    pub fn boolean(&mut self) -> Result<bool, Unexpected> {
        let value = self.peek()? == b't';
        self.literal(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// Takes null.
    ///
    /// # Errors
    /// When there is none.
    pub fn null(&mut self) -> Result<(), Unexpected> {
        self.literal("null")
    }

    fn literal(&mut self, word: &str) -> Result<(), Unexpected> {
        self.peek()?;
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.unexpected());
        }
        self.at += word.len();
        Ok(())
    }

    /// Takes whatever value comes next and gives its text.
    ///
    /// # Errors
    /// When there is none.
    pub fn skip(&mut self) -> Result<&'a str, Unexpected> {
        self.peek()?;
        let start = self.at;
        self.pass()?;
        Ok(&self.text[start..self.at])
    }

    fn pass(&mut self) -> Result<(), Unexpected> {
        match self.peek()? {
            b'{' => self.between(*b"{}", |cursor| {
                cursor.peek()?;
                cursor.pass_text()?;
                cursor.take(b':')?;
                cursor.pass()
            }),
            b'[' => self.elements(Self::pass),
            b'"' => self.pass_text(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => {
                let start = self.at;
                if !self.pass_number() {
                    self.at = start;
                    self.number()?;
                }
                Ok(())
            }
        }
    }

    /// A string whose value nobody wants.
    fn pass_text(&mut self) -> Result<(), Unexpected> {
        let start = self.at;
        if self.pass_string()? == Escapes::Unicode {
            self.at = start;
            self.string()?;
        }
        Ok(())
    }

    /// Takes whatever value comes next as a tree.
    ///
    /// # Errors
    /// When there is none.
    pub fn value(&mut self) -> Result<Value, Unexpected> {
        match self.peek()? {
            b'{' => {
                let mut map = Map::new();
                self.members(|cursor, key| {
                    let value = cursor.value()?;
                    map.insert(key.to_owned(), value);
                    Ok::<_, Unexpected>(())
                })?;
                Ok(Value::Object(map))
            }
            b'[' => {
                let mut list = Vec::new();
                self.elements(|cursor| {
                    list.push(cursor.value()?);
                    Ok::<_, Unexpected>(())
                })?;
                Ok(Value::Array(list))
            }
            b'"' => self.string().map(|text| Value::String(text.into_owned())),
            b't' | b'f' => self.boolean().map(Value::Bool),
            b'n' => self.null().map(|()| Value::Null),
            _ => self.number().map(Value::Number),
        }
    }
}

/// Where the first quote, backslash or control character is; eight bytes at a time, since most of an object is text.
fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // The high bit of the first byte that is zero is set, and of no byte before it.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes were taken"));
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quote | backslash | control) & HIGH;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Result<Value, Unexpected> {
        let mut cursor = Cursor::new(json.as_bytes())?;
        let value = cursor.value()?;
        cursor.end().map(|()| value)
    }

    #[test]
    fn what_is_read_is_what_serde_reads() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for json in [
            "null",
            " true ",
            "false",
            "0",
            "-0",
            "-1",
            "01",
            "-01",
            "-",
            "1.",
            "1.5",
            "1e3",
            "1e999",
            "+1",
            "1-2",
            "999999999999999999",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            r#""""#,
            r#""plain text longer than eight bytes""#,
            r#""a\"b\\c\/\b\f\n\r\t""#,
            r#""\u00e9\ud83d\ude00 é 😀""#,
            r#""\ud800""#,
            r#""\u12""#,
            r#""\x""#,
            "\"control \u{1} character\"",
            "\"no end",
            r#"{"a":1,"b":[1,{"c":null}],"a":2}"#,
            r#"{ "a" : [ ] , "b" : { } }"#,
            "{,}",
            "[1,]",
            "[1 2]",
            "{\"a\" 1}",
            "{1:2}",
            "[}",
            "{]",
            "nul",
            "",
            "1 1",
            &deep(127),
            &deep(128),
        ] {
            assert_eq!(value(json).ok(), serde_json::from_str(json).ok(), "{json}");
            let mut cursor = Cursor::new(json.as_bytes()).expect("UTF-8");
            let skipped = cursor.skip().ok().filter(|_| cursor.end().is_ok());
            assert_eq!(skipped, value(json).ok().map(|_| json.trim()), "{json}");
        }
        assert!(Cursor::new(b"\"\xff\"").is_err());
    }
}
