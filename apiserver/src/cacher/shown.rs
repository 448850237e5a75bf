//! An object in an event, and what it is encoded as for those who are told.

use std::cell::OnceCell;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{CachedObject, WatchEvent};

/// An object as an event shows it.
#[derive(Debug, Clone)]
pub struct Shown {
    object: Arc<CachedObject>,
    /// Shared by the watchers that are told of one change at once; gone with the last of them that was.
    encoded: Option<Arc<Encoded>>,
}

/// What an object is encoded as beside its own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Protobuf,
    Partial,
    PartialProtobuf,
}

/// One change's object in every [`Form`], as far as somebody asked.
#[derive(Debug, Default)]
struct Encoded([OnceLock<Option<Bytes>>; 3]);

impl Deref for Shown {
    type Target = Arc<CachedObject>;

    fn deref(&self) -> &Arc<CachedObject> {
        &self.object
    }
}

impl From<Arc<CachedObject>> for Shown {
    fn from(object: Arc<CachedObject>) -> Self {
        Self { object, encoded: None }
    }
}

impl Shown {
    /// The object in a form, which `encode` makes: once for all who are told of this change while one of them has not
    /// been told yet. `encode` must be a function of the object and the form.
    ///
    /// # Errors
    /// As `encode`.
    pub fn encoded<E>(
        &self,
        form: Form,
        encode: impl Fn(&CachedObject) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let Some(Encoded(forms)) = self.encoded.as_deref() else { return encode(&self.object) };
        match forms[form as usize].get_or_init(|| encode(&self.object).ok()) {
            Some(bytes) => Ok(bytes.clone()),
            None => encode(&self.object),
        }
    }
}

/// What the watchers of one change share: a watcher sees either the object or its last state.
#[derive(Default)]
pub(super) struct Sharing {
    now: OnceCell<Arc<Encoded>>,
    gone: OnceCell<Arc<Encoded>>,
}

impl Sharing {
    /// The event, with a share in what its object is encoded as.
    pub(super) fn join(&self, mut event: WatchEvent) -> WatchEvent {
        match &mut event {
            WatchEvent::Added(shown) | WatchEvent::Modified(shown) => {
                shown.encoded = Some(self.now.get_or_init(Arc::default).clone());
            }
            WatchEvent::Deleted(shown) => {
                shown.encoded = Some(self.gone.get_or_init(Arc::default).clone());
            }
            WatchEvent::Bookmark { .. } | WatchEvent::Error(_) => {}
        }
        event
    }
}
