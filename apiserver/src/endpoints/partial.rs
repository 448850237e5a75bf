//! `PartialObjectMetadata`: an object's metadata alone.

use bytes::Bytes;
use common::status::Status;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct OnlyMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// The metadata of an object, without reading it further.
pub fn metadata(json: &[u8]) -> Result<Bytes, Status> {
    let only: OnlyMetadata<'_> = serde_json::from_slice(json).map_err(Status::internal)?;
    let mut out = Vec::with_capacity(only.metadata.get().len() + 80);
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(only.metadata.get().as_bytes());
    out.push(b'}');
    Ok(out.into())
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
