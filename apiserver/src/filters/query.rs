//! Query strings as Go's `url.Values` reads them, as far as the filters need it.

/// The decoded pairs; malformed escapes drop their pair.
pub fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(key, true)?, decode(value, true)?))
    })
}

/// The first value of `key`.
pub fn first(query: &str, key: &str) -> Option<String> {
    pairs(query).find(|(k, _)| k == key).map(|(_, value)| value)
}

/// Percent-decodes; `None` for a malformed escape or what is no UTF-8.
pub fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' if plus_is_space => out.push(b' '),
            b'%' => {
                let high = (bytes.next()? as char).to_digit(16)?;
                let low = (bytes.next()? as char).to_digit(16)?;
                out.push((high * 16 + low) as u8);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        assert_eq!(
            first("a=1&fieldSelector=metadata.name%3Dx+y", "fieldSelector").unwrap(),
            "metadata.name=x y"
        );
        assert_eq!(first("watch", "watch").as_deref(), Some(""));
        assert_eq!(first("a=%zz", "a"), None);
        assert_eq!(decode("a+b", false).as_deref(), Some("a+b"));
    }
}
