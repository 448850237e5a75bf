//! Header blocks: names and values, zlib-compressed with the dictionary of the SPDY/3 draft (section 2.6.10).
//!
//! One compressor and one decompressor live as long as the connection, so every block must pass through, in
//! the order of the wire, also for streams nobody wants.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::{MAX_HEADER_BLOCK, MAX_HEADERS, SpdyError};

/// Words of the dictionary, each preceded by its length as four bytes.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// What follows the words, without lengths.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
    403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
    text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS {
        bytes.put_u32(u32::try_from(word.len()).unwrap_or(0));
        bytes.put_slice(word.as_bytes());
    }
    bytes.put_slice(TAIL.as_bytes());
    bytes
}

/// Headers of a stream. Names are lower case; a name may repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line; the name is lowered, as the wire demands.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.push(name, value);
        self
    }

    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_ascii_lowercase(), value.into()));
    }

    /// The first value of a name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    fn block(&self) -> Vec<u8> {
        // A name stands once; its values are joined by NUL.
        let mut joined: Vec<(&str, String)> = Vec::new();
        for (name, value) in self.iter() {
            match joined.iter_mut().find(|(n, _)| *n == name) {
                Some((_, values)) => {
                    values.push('\0');
                    values.push_str(value);
                }
                None => joined.push((name, value.to_owned())),
            }
        }
        let mut out = Vec::new();
        out.put_u32(joined.len() as u32);
        for (name, value) in joined {
            out.put_u32(name.len() as u32);
            out.put_slice(name.as_bytes());
            out.put_u32(value.len() as u32);
            out.put_slice(value.as_bytes());
        }
        out
    }

    fn parse(mut block: &[u8]) -> Result<Self, SpdyError> {
        if block.is_empty() {
            return Ok(Self::default());
        }
        let count = block.try_get_u32().map_err(|_| SpdyError::Headers("cut short"))? as usize;
        if count > MAX_HEADERS {
            return Err(SpdyError::Headers("too many lines"));
        }
        let mut headers = Self::default();
        for _ in 0..count {
            let name = text(&mut block)?;
            let values = text(&mut block)?;
            if name.is_empty() {
                return Err(SpdyError::Headers("a name is empty"));
            }
            for value in values.split('\0').take(MAX_HEADERS) {
                headers.push(&name, value);
            }
        }
        Ok(headers)
    }
}

fn text(block: &mut &[u8]) -> Result<String, SpdyError> {
    let short = SpdyError::Headers("cut short");
    let Ok(length) = block.try_get_u32() else { return Err(short) };
    let length = length as usize;
    if length > block.len() {
        return Err(short);
    }
    let (head, rest) = block.split_at(length);
    *block = rest;
    String::from_utf8(head.to_vec()).map_err(|_| SpdyError::Headers("not utf-8"))
}

/// Compresses the blocks a connection sends.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Result<Self, SpdyError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress
            .set_dictionary(&dictionary())
            .map_err(|_| SpdyError::Headers("the compressor refused its dictionary"))?;
        Ok(Self(compress))
    }

    pub(super) fn block(&mut self, headers: &Headers) -> Result<Vec<u8>, SpdyError> {
        let plain = headers.block();
        if plain.len() > MAX_HEADER_BLOCK {
            return Err(SpdyError::Headers("too large"));
        }
        let start = self.0.total_in();
        let mut out = Vec::with_capacity(plain.len() + 64);
        loop {
            out.reserve(256);
            let used = (self.0.total_in() - start) as usize;
            self.0
                .compress_vec(&plain[used.min(plain.len())..], &mut out, FlushCompress::Sync)
                .map_err(|_| SpdyError::Headers("compression failed"))?;
            // A sync flush is complete once the output was not filled to the brim.
            if (self.0.total_in() - start) as usize == plain.len() && out.len() < out.capacity() {
                return Ok(out);
            }
        }
    }
}

/// Decompresses the blocks a connection receives.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn headers(&mut self, compressed: &[u8]) -> Result<Headers, SpdyError> {
        Headers::parse(&self.block(compressed)?)
    }

    fn block(&mut self, compressed: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let start = self.0.total_in();
        let mut out = Vec::with_capacity(512);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= MAX_HEADER_BLOCK {
                    return Err(SpdyError::Headers("too large"));
                }
                out.reserve(out.len().max(512));
            }
            let (used, had) = ((self.0.total_in() - start) as usize, out.len());
            let rest = &compressed[used.min(compressed.len())..];
            match self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync) {
                Ok(_) => {
                    let now = (self.0.total_in() - start) as usize;
                    if out.len() < out.capacity()
                        && (now >= compressed.len() || now == used && out.len() == had)
                    {
                        break;
                    }
                }
                Err(error) => {
                    if error.needs_dictionary().is_none() || self.0.set_dictionary(&dictionary()).is_err() {
                        return Err(SpdyError::Headers("not a zlib stream"));
                    }
                }
            }
        }
        if ((self.0.total_in() - start) as usize) < compressed.len() {
            return Err(SpdyError::Headers("bytes after the end of the zlib stream"));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_drafts() {
        let (mut a, mut b) = (1u32, 0u32);
        let bytes = dictionary();
        for byte in &bytes {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((bytes.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_share_one_compression_context() {
        let (mut deflate, mut inflate) = (Deflater::new().unwrap(), Inflater::new());
        for n in 0..50 {
            let headers = Headers::new()
                .with("streamType", "data")
                .with("port", n.to_string())
                .with("x", "1")
                .with("x", "2")
                .with("long", "ab".repeat(n * 100));
            assert_eq!(inflate.headers(&deflate.block(&headers).unwrap()).unwrap(), headers);
        }
        assert_eq!(inflate.headers(&deflate.block(&Headers::new()).unwrap()).unwrap(), Headers::new());
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(&dictionary()).unwrap();
        let mut out = Vec::with_capacity(1 << 20);
        compress.compress_vec(&vec![0; 16 << 20], &mut out, FlushCompress::Sync).unwrap();
        assert!(matches!(Inflater::new().headers(&out), Err(SpdyError::Headers("too large"))));
    }
}
