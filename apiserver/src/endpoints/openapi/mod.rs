//! The OpenAPI documents: what `kubectl explain` shows, what clients check objects against, and how they learn
//! that the server validates fields and takes apply patches.
//!
//! `/openapi/v3` lists one document per group version, per group and for the version; each has its types'
//! schemas and its paths. `/openapi/v2` is the older single document, as JSON and as gnostic's protobuf, which is
//! the only form some clients take. Everything derives from the table of resources and the published types.
//!
//! Documents are made at the first request for one of their family, off the runtime's threads, and are kept
//! compressed: what a tree of them would cost is paid by nobody who does not ask. When custom resources come and go,
//! what did not change is taken from the documents before: whole ones in v3, pieces in v2. This room must not decode or
//! know an object, and knows of HTTP only what a document's headers need.
//!
//! Upstream: `kube-openapi/pkg/{builder,builder3,handler,handler3}`.

mod custom;
mod descriptions;
mod document;
mod facts;
mod gnostic;
mod operations;
mod parameters;
mod paths;
mod schemas;
mod segment;
mod serve;
#[cfg(test)]
mod tests;
mod v2;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use common::status::Status;
use tokio::sync::OnceCell;

use crate::resources::{ResourceDef, Table};
use document::Builder;
use segment::Document;
use v2::{Form, V2};

/// All OpenAPI documents.
pub(super) struct OpenApi {
    table: Arc<Table>,
    v3: Lazy<V3>,
    v2: Lazy<V2>,
    v2_protobuf: Lazy<V2>,
}

/// Documents that are made when they are first asked for.
struct Lazy<T> {
    made: OnceCell<Arc<T>>,
    /// Those of an earlier table, for what has not changed.
    earlier: Option<Arc<T>>,
}

impl<T> Lazy<T> {
    fn after(before: Option<&Self>) -> Self {
        let earlier = before.and_then(|b| b.made.get().cloned().or_else(|| b.earlier.clone()));
        Self { made: OnceCell::new(), earlier }
    }
}

/// The documents of `/openapi/v3`.
struct V3 {
    root: Bytes,
    /// By path below `/openapi/v3/`.
    documents: BTreeMap<String, Document>,
    /// What the document of each group version is made of.
    made_of: BTreeMap<String, Vec<Arc<ResourceDef>>>,
}

impl OpenApi {
    /// `before` lends what cannot have changed.
    pub(super) fn new(table: Arc<Table>, before: Option<&Self>) -> Self {
        Self {
            table,
            v3: Lazy::after(before.map(|b| &b.v3)),
            v2: Lazy::after(before.map(|b| &b.v2)),
            v2_protobuf: Lazy::after(before.map(|b| &b.v2_protobuf)),
        }
    }

    async fn v3(&self) -> Result<&V3, Status> {
        self.make(&self.v3, V3::build).await
    }

    async fn v2(&self, form: Form) -> Result<&V2, Status> {
        let lazy = match form {
            Form::Json => &self.v2,
            Form::Protobuf => &self.v2_protobuf,
        };
        self.make(lazy, move |builder, earlier| V2::build(builder, form, earlier)).await
    }

    /// Builds where it holds up no other request.
    async fn make<'l, T: Send + Sync + 'static>(
        &self,
        lazy: &'l Lazy<T>,
        build: impl FnOnce(&Builder<'_>, Option<&T>) -> T + Send + 'static,
    ) -> Result<&'l T, Status> {
        let made = lazy.made.get_or_try_init(|| async {
            let (table, earlier) = (self.table.clone(), lazy.earlier.clone());
            let work = move || Arc::new(build(&Builder::new(&table), earlier.as_deref()));
            tokio::task::spawn_blocking(work).await.map_err(Status::internal)
        });
        made.await.map(AsRef::as_ref)
    }
}

impl V3 {
    fn build(builder: &Builder<'_>, earlier: Option<&Self>) -> Self {
        let made_of = RefCell::new(BTreeMap::new());
        let kept = |path: &str, defs: &[Arc<ResourceDef>]| {
            made_of.borrow_mut().insert(path.to_owned(), defs.to_vec());
            let earlier = earlier?;
            let before = earlier.made_of.get(path)?;
            let same = before.len() == defs.len() && before.iter().zip(defs).all(|(a, b)| Arc::ptr_eq(a, b));
            same.then(|| earlier.documents.get(path).cloned()).flatten()
        };
        let documents: BTreeMap<String, Document> = builder.v3(&kept).into_iter().collect();
        let made_of = made_of.take();
        let paths: serde_json::Map<String, serde_json::Value> = documents
            .iter()
            .map(|(path, d)| {
                (path.clone(), serde_json::json!({"serverRelativeURL": serve::url(path, &d.hash)}))
            })
            .collect();
        let root = serde_json::json!({ "paths": paths }).to_string().into();
        Self { root, documents, made_of }
    }
}
