//! A list from its objects' JSON, in pieces: nothing of it is copied into one whole.

use bytes::Bytes;

use super::encode::{ENVELOPE_END, envelope_start};
use super::messages::{Kind, Messages};
use super::stream;

/// A piece is done when it has this size: as pieces of JSON lists.
const PIECE_BYTES: usize = 64 * 1024;

/// An enveloped list: what [`super::transcode`] makes of the same list's JSON, cut into pieces. `metadata` is the list's.
/// `None` when the kind has no message, or an object is not as its message has it.
pub fn list<'a>(
    table: &Messages,
    api_version: &str,
    kind: &str,
    metadata: &[u8],
    items: impl Iterator<Item = &'a [u8]>,
) -> Option<Vec<Bytes>> {
    let id = table.of_kind(api_version, kind)?;
    let field = table.field(id, "items", &mut 0).filter(|field| field.repeated)?;
    let Kind::Message(item_id) = field.kind else { return None };
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    if !stream::write_field(table, table.field(id, "metadata", &mut 0)?, metadata, &mut piece) {
        return None;
    }
    // The envelope's beginning says how long the rest is.
    let mut pieces = vec![Bytes::new()];
    let mut length = 0;
    for item in items {
        if !stream::write_item(table, item_id, field.number, item, &mut piece) {
            return None;
        }
        if piece.len() >= PIECE_BYTES {
            // The next one has room for an object beyond its size.
            let room = piece.len() + piece.len() / 4;
            length += piece.len();
            pieces.push(std::mem::replace(&mut piece, Vec::with_capacity(room)).into());
        }
    }
    length += piece.len();
    piece.extend_from_slice(ENVELOPE_END);
    pieces.push(piece.into());
    pieces[0] = envelope_start(api_version, kind, length).into();
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::{fixtures, transcode};

    #[test]
    fn a_list_in_pieces_is_the_whole_list() {
        let table = Messages::builtin();
        let metadata = r#"{"resourceVersion":"7","remainingItemCount":3}"#;
        let mut known = 0;
        for fixture in fixtures::all() {
            let tree = fixture.tree();
            let (Some(kind), Some(version)) = (tree["kind"].as_str(), tree["apiVersion"].as_str()) else {
                continue;
            };
            let kind = format!("{kind}List");
            // `APIGroupList` has groups.
            if table.of_kind(version, &kind).is_none_or(|id| table.field(id, "items", &mut 0).is_none()) {
                continue;
            }
            known += 1;
            let item = crate::object::encode(&tree);
            for count in [0, 1, 3, 200_000 / item.len()] {
                let items = vec![item.as_ref(); count];
                let json = [
                    format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":["#)
                        .as_bytes(),
                    &items.join(&b","[..]),
                    b"]}",
                ]
                .concat();
                let whole = transcode(&table, &json).expect("a list");
                let pieces = list(&table, version, &kind, metadata.as_bytes(), items.into_iter());
                let pieces = pieces.unwrap_or_else(|| panic!("{kind} in pieces"));
                assert!(pieces.concat() == whole, "{kind}");
            }
        }
        assert!(known > 60, "{known} kinds of lists");
        assert!(list(&table, "example.com/v1", "WidgetList", b"{}", std::iter::empty()).is_none());
        assert!(list(&table, "v1", "PodList", b"{}", std::iter::once(&b"{\"spec\":1}"[..])).is_none());
    }
}
