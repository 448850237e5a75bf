//! Keeping an index in step with a watch cache: state first, then every change, and a full replacement
//! whenever the watch had to start again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::shutdown::Tasks;

use crate::cacher::{CachedObject, ObjectStore, WatchEvent, WatchQuery};

/// How long to wait before a watch that broke is opened again.
const RETRY: Duration = Duration::from_millis(200);

/// An index fed from one resource. Called by one task, in order.
pub trait Index: Send + Sync + 'static {
    /// The object is there now, new or changed.
    fn put(&self, object: &CachedObject);

    /// The object with this storage key is gone.
    fn remove(&self, key: &str);
}

/// The indexes that are being fed; ready once each has had its first full state.
#[derive(Clone, Default)]
pub struct Followers {
    pending: Arc<AtomicUsize>,
}

impl Followers {
    pub fn synced(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0
    }

    /// Feeds `index` from `store` until the tasks stop.
    pub fn follow(&self, tasks: &Tasks, name: &str, store: Arc<dyn ObjectStore>, index: impl Index) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        let pending = Arc::clone(&self.pending);
        let stop = tasks.stop_token();
        let name = name.to_owned();
        tasks.spawn_essential(format!("index {name}"), async move {
            let mut first = Some(pending);
            let mut known = HashSet::new();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = run(&*store, &index, &mut known, &mut first) => {}
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
                tracing::debug!(index = name, "watch ended; starting again");
            }
        });
    }
}

/// One watch, from the present state to its end.
async fn run(
    store: &dyn ObjectStore,
    index: &impl Index,
    known: &mut HashSet<String>,
    first: &mut Option<Arc<AtomicUsize>>,
) {
    let query = WatchQuery {
        resource_version: None,
        bookmarks: true,
        send_initial_events: true,
        ..Default::default()
    };
    let Ok(mut events) = store.watch(query).await else { return };
    let mut initial: Option<HashSet<String>> = Some(HashSet::new());
    while let Some(event) = events.recv().await {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                index.put(&object);
                if let Some(seen) = &mut initial {
                    seen.insert(object.key.clone());
                }
                known.insert(object.key.clone());
            }
            WatchEvent::Deleted(object) => {
                index.remove(&object.key);
                known.remove(&object.key);
            }
            WatchEvent::Bookmark { initial_events_end: true, .. } => {
                if let Some(seen) = initial.take() {
                    known.retain(|key| {
                        let stays = seen.contains(key);
                        if !stays {
                            index.remove(key);
                        }
                        stays
                    });
                }
                if let Some(pending) = first.take() {
                    pending.fetch_sub(1, Ordering::AcqRel);
                }
            }
            WatchEvent::Bookmark { .. } => {}
            WatchEvent::Error(_) => return,
        }
    }
}
