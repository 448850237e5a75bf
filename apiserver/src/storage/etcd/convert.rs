//! etcd's answers in the store's terms. Pure, but for reading one message of a watch.

use bytes::Bytes;
use etcd_client::{EventType, ResponseHeader, WatchStream};

use crate::storage::{KeyValue, Revision, StoreError, StoreEvent};

/// gRPC codes, as numbers: the client does not export their type.
const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const OUT_OF_RANGE: i32 = 11;

pub(super) fn revision(header: Option<&ResponseHeader>) -> Revision {
    number(header.map_or(0, ResponseHeader::revision))
}

fn number(revision: i64) -> Revision {
    Revision(u64::try_from(revision).unwrap_or(0))
}

fn key(kv: &etcd_client::KeyValue) -> Result<String, StoreError> {
    let key = kv.key_str().map_err(|_| {
        StoreError::Corrupt(format!("a key is not text: {}", String::from_utf8_lossy(kv.key())))
    })?;
    Ok(key.to_owned())
}

pub(super) fn key_value(kv: &etcd_client::KeyValue) -> Result<KeyValue, StoreError> {
    let value = Bytes::copy_from_slice(kv.value());
    Ok(KeyValue { key: key(kv)?, value, mod_revision: number(kv.mod_revision()) })
}

/// The first key after all with this prefix.
pub(super) fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// The answer was larger than this client takes.
pub(super) fn message_too_long(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status)
        if status.code() as i32 == OUT_OF_RANGE && status.message().contains("message length too large"))
}

pub(super) fn store_error(error: &etcd_client::Error, oldest: Revision) -> StoreError {
    if let etcd_client::Error::GRpcStatus(status) = error {
        let message = status.message();
        match status.code() as i32 {
            OUT_OF_RANGE if message.contains("compacted") => {
                return StoreError::Compacted { requested: Revision(0), oldest };
            }
            OUT_OF_RANGE if message.contains("future") => {
                return StoreError::Future { requested: Revision(0), newest: Revision(0) };
            }
            INVALID_ARGUMENT if message.contains("too large") => return StoreError::TooLarge { bytes: 0 },
            RESOURCE_EXHAUSTED if message.contains("larger than max") => {
                return StoreError::TooLarge { bytes: 0 };
            }
            _ => return StoreError::Unavailable(message.to_owned()),
        }
    }
    StoreError::Unavailable(error.to_string())
}

/// One message of a watch.
pub(super) struct Message {
    pub(super) events: Vec<StoreEvent>,
    /// What a message without events says: the stream is complete up to here. Not to be trusted of every
    /// version, see `progress`.
    pub(super) progress: Option<Revision>,
}

/// The next message. Cancel-safe.
pub(super) async fn message(
    stream: &mut WatchStream,
    after: Revision,
    oldest: Revision,
) -> Result<Message, StoreError> {
    let ended = || StoreError::Unavailable("etcd ended the watch".into());
    let message = stream.message().await.map_err(|e| store_error(&e, oldest))?.ok_or_else(ended)?;
    if message.compact_revision() > 0 {
        let oldest = number(message.compact_revision());
        return Err(StoreError::Compacted { requested: after, oldest });
    }
    if message.canceled() {
        return Err(StoreError::Unavailable(format!("etcd canceled the watch: {}", message.cancel_reason())));
    }
    let events: Vec<StoreEvent> = message.events().iter().map(event).collect::<Result<_, _>>()?;
    let progress = (events.is_empty() && !message.created()).then(|| revision(message.header()));
    Ok(Message { events, progress })
}

fn event(event: &etcd_client::Event) -> Result<StoreEvent, StoreError> {
    let kv = event.kv().ok_or_else(|| StoreError::Corrupt("a watch event without a key".into()))?;
    let previous = event.prev_kv().map(|kv| Bytes::copy_from_slice(kv.value()));
    Ok(match event.event_type() {
        EventType::Put => StoreEvent::Put {
            created: kv.create_revision() == kv.mod_revision(),
            kv: key_value(kv)?,
            previous,
        },
        EventType::Delete => StoreEvent::Delete {
            key: key(kv)?,
            revision: number(kv.mod_revision()),
            previous: previous.unwrap_or_default(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_is_the_next_key() {
        assert_eq!(prefix_end("/registry/pods/"), b"/registry/pods0");
        assert_eq!(prefix_end(""), [0]);
    }
}
