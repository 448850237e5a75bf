//! In which order a merged list comes.

use common::status::Status;
use serde_json::Value;

use super::lists::{bad_argument, no_merge_key};
use super::{DELETE, DIRECTIVE, SET_ELEMENT_ORDER, go, misused};

/// What a list patches must come in the order that is asked for beside it.
pub(super) fn check_order(items: &[Value], order: &[Value], key: Option<&str>) -> Result<(), Status> {
    if items.is_empty() || order.is_empty() {
        return Ok(());
    }
    if key.is_some()
        && let Some(scalar) = items.iter().find(|item| !item.is_object())
    {
        return Err(bad_argument("map[string]interface {}", scalar));
    }
    let deletes =
        |item: &&Value| key.is_some() && item.get(DIRECTIVE).and_then(Value::as_str) == Some(DELETE);
    let mut rest = order.iter();
    for item in items.iter().filter(|item| !deletes(item)) {
        if item.get(DIRECTIVE).is_some() && rest.len() > 0 {
            continue;
        }
        loop {
            let Some(wanted) = rest.next() else {
                return Err(misused(format!(
                    "The order in patch list:\n{}\n doesn't match {} list:\n{}\n",
                    go::list(items),
                    SET_ELEMENT_ORDER.trim_end_matches('/'),
                    go::list(order)
                )));
            };
            if merge_value(item, key)? == merge_value(wanted, key)? {
                break;
            }
        }
    }
    Ok(())
}

/// What an item is known by.
fn merge_value<'v>(item: &'v Value, key: Option<&str>) -> Result<&'v Value, Status> {
    let Some(key) = key else { return Ok(item) };
    let Value::Object(map) = item else { return Err(bad_argument("map[string]interface {}", item)) };
    map.get(key).ok_or_else(|| no_merge_key(map, key))
}

/// `normalizeElementOrder`: what `order` names comes in its order; what only the server knows goes between,
/// as near to its old place as that allows.
pub(super) fn arranged(
    items: Vec<Value>,
    order: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, Status> {
    if key.is_some() {
        for item in items.iter().chain(order).chain(server) {
            merge_value(item, key)?;
        }
    }
    let same = |a: &Value, b: &Value| match key {
        Some(key) => a.get(key) == b.get(key),
        None => a == b,
    };
    let place_in = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut named, mut rest): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| place_in(order, item).is_some());
    named.sort_by_key(|item| place_in(order, item));
    rest.sort_by_key(|item| place_in(server, item));
    let mut from = 0;
    for item in rest {
        let mine = place_in(server, &item);
        let greater = |other: &Value| place_in(server, other).is_some_and(|theirs| Some(theirs) > mine);
        let at = named[from..].iter().position(greater).map_or(named.len(), |offset| from + offset);
        named.insert(at, item);
        from = at + 1;
    }
    Ok(named)
}
