//! The OpenAPI documents: what `kubectl explain` shows, what clients check objects against, and how they learn
//! that the server validates fields and takes apply patches.
//!
//! `/openapi/v3` lists one document per group version, per group and for the version; each has its types'
//! schemas and its paths. `/openapi/v2` is the older single document, as JSON and as gnostic's protobuf, which is
//! the only form some clients take. Everything derives from the table of resources and the published types.
//!
//! Documents are made at the first request for one of their family, off the runtime's threads, and are kept
//! compressed: what a tree of them would cost is paid by nobody who does not ask. This room must not decode or
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
mod serve;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use common::status::Status;
use tokio::sync::OnceCell;

use crate::resources::{ResourceDef, Table};
use document::{Builder, Document};

/// All OpenAPI documents.
pub(super) struct OpenApi {
    table: Arc<Table>,
    v3: OnceCell<Arc<V3>>,
    /// The documents of an earlier table, for what has not changed.
    earlier: Option<Arc<V3>>,
    v2: OnceCell<Document>,
    v2_protobuf: OnceCell<Document>,
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
    /// `before` lends the documents that cannot have changed.
    pub(super) fn new(table: Arc<Table>, before: Option<&Self>) -> Self {
        let earlier = before.and_then(|b| b.v3.get().cloned().or_else(|| b.earlier.clone()));
        Self { table, v3: OnceCell::new(), earlier, v2: OnceCell::new(), v2_protobuf: OnceCell::new() }
    }

    async fn v3(&self) -> Result<&V3, Status> {
        let earlier = self.earlier.clone();
        let build = move |builder: &Builder<'_>| Arc::new(V3::build(builder, earlier.as_deref()));
        self.v3.get_or_try_init(|| self.make(build)).await.map(AsRef::as_ref)
    }

    async fn v2(&self) -> Result<&Document, Status> {
        self.v2.get_or_try_init(|| self.make(|builder| builder.v2())).await
    }

    async fn v2_protobuf(&self) -> Result<&Document, Status> {
        self.v2_protobuf.get_or_try_init(|| self.make(|builder| builder.v2_protobuf())).await
    }

    /// Builds where it holds up no other request.
    async fn make<T: Send + 'static>(
        &self,
        build: impl FnOnce(&Builder<'_>) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let table = self.table.clone();
        let work = tokio::task::spawn_blocking(move || build(&Builder::new(&table)));
        work.await.map_err(Status::internal)
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
