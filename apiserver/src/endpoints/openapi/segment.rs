//! Parts of a document, compressed each on its own and joined without being compressed again.
//!
//! A part is a run of deflate blocks that ends on a whole byte and refers to nothing before it, so that parts
//! behind each other, with gzip's header and trailer around them, are one gzip member of all they say.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use sha2::{Digest, Sha512};

/// Magic number, deflate, no flags, no time, no hint, an unknown system (RFC 1952).
const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last block, empty (RFC 1951).
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

/// A part of a document.
pub(super) struct Segment {
    deflated: Bytes,
    crc: Crc,
    digest: [u8; 64],
}

impl Segment {
    /// How many bytes it says.
    pub(super) fn plain_len(&self) -> usize {
        self.crc.amount() as usize
    }
}

/// A finished document.
#[derive(Clone)]
pub(super) struct Document {
    /// One gzip member, in pieces that other documents may share.
    gzip: Arc<[Bytes]>,
    /// Upper case hex, without quotes.
    pub hash: String,
}

impl Document {
    pub(super) fn join<'s>(segments: impl Iterator<Item = &'s Segment>) -> Self {
        let mut gzip = vec![Bytes::from_static(HEADER)];
        let (mut crc, mut digests) = (Crc::new(), Vec::new());
        for segment in segments {
            gzip.push(segment.deflated.clone());
            crc.combine(&segment.crc);
            digests.push(segment.digest);
        }
        let mut end = LAST_BLOCK.to_vec();
        end.extend(crc.sum().to_le_bytes());
        end.extend(crc.amount().to_le_bytes());
        gzip.push(end.into());
        let hash = match digests.as_slice() {
            [only] => *only,
            all => Sha512::digest(all.concat()).into(),
        };
        Self { gzip: gzip.into(), hash: hex::encode_upper(hash) }
    }

    /// Compressed, as it is sent.
    pub(super) fn gzip(&self) -> Bytes {
        self.gzip.concat().into()
    }
}

/// Makes segments of what is written to it. Memory is that of the compressed bytes.
pub(super) struct Compressor {
    deflate: DeflateEncoder<Vec<u8>>,
    crc: Crc,
    digest: Sha512,
}

impl Compressor {
    pub(super) fn new() -> Self {
        let deflate = DeflateEncoder::new(Vec::new(), Compression::default());
        Self { deflate, crc: Crc::new(), digest: Sha512::new() }
    }

    pub(super) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.deflate.write_all(bytes).expect("a vector takes every write");
        self.crc.update(bytes);
        self.digest.update(bytes);
    }

    /// What was written since the last cut.
    pub(super) fn cut(&mut self) -> Segment {
        let mut deflated = Vec::new();
        // A stream that was given no byte would be ended here instead of cut.
        if self.crc.amount() > 0 {
            self.deflate.flush().expect("a vector takes every write");
            deflated = std::mem::take(self.deflate.get_mut());
            self.deflate.reset(Vec::new()).expect("a vector takes every write");
        }
        Segment {
            deflated: deflated.into(),
            crc: std::mem::take(&mut self.crc),
            digest: self.digest.finalize_reset().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn plain(document: &Document) -> String {
        let mut text = String::new();
        let bytes = document.gzip();
        let mut decoder = flate2::bufread::GzDecoder::new(&bytes[..]);
        decoder.read_to_string(&mut text).expect("gzip with a right trailer");
        assert!(decoder.into_inner().is_empty(), "one member, and nothing behind");
        text
    }

    #[test]
    fn segments_join_in_any_order() {
        let mut compressor = Compressor::new();
        let texts = ["one ".repeat(5000), String::new(), "two".to_owned(), "three, three".to_owned()];
        let segments: Vec<Segment> = texts
            .iter()
            .map(|text| {
                compressor.write(text);
                compressor.cut()
            })
            .collect();
        for order in [vec![0, 1, 2, 3], vec![3, 0], vec![1], vec![2, 2, 2]] {
            let document = Document::join(order.iter().map(|i| &segments[*i]));
            let wanted: String = order.iter().map(|i| texts[*i].as_str()).collect();
            assert_eq!(plain(&document), wanted);
        }
        assert_eq!(segments[0].plain_len(), 20_000);
        assert!(segments[0].deflated.len() < 1000);
    }

    #[test]
    fn a_hash_is_that_of_the_content() {
        let hash = |texts: &[&str]| {
            let mut compressor = Compressor::new();
            let mut segments = Vec::new();
            for text in texts {
                compressor.write(text);
                segments.push(compressor.cut());
            }
            Document::join(segments.iter()).hash
        };
        assert_eq!(hash(&["a"]), hex::encode_upper(Sha512::digest("a")));
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
        assert_ne!(hash(&["a", "b"]), hash(&["b", "a"]));
    }
}
