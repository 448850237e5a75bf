//! `PartialObjectMetadata`: an object's metadata alone.

use bytes::Bytes;
use common::status::Status;

use crate::json;

/// The metadata of an object, without reading it further.
///
/// # Errors
/// When the bytes are no object with metadata: never for bytes from the cache.
pub fn metadata(json: &[u8]) -> Result<Bytes, Status> {
    let metadata = json::member(json, "metadata").map_err(Status::internal)?;
    let metadata = metadata.ok_or_else(|| Status::internal("missing field `metadata`"))?;
    let mut out = Vec::with_capacity(metadata.len() + 80);
    put(metadata, &mut out);
    Ok(out.into())
}

/// Appends the object whose metadata this is.
pub fn put(metadata: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(metadata.as_bytes());
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metadata_is_left() {
        let out = metadata(br#"{"kind":"Pod","metadata":{"name":"a","labels":{"b":"c"}},"spec":{"x":1}}"#)
            .expect("partial");
        assert_eq!(
            out.as_ref(),
            br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","labels":{"b":"c"}}}"#
        );
    }
}
