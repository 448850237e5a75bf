//! Writes: creates from JSON, merge patches carrying preconditions, deletes by uid.
//!
//! The stores hold slim views, so nothing here sends back a whole object: a PUT of a view would erase the
//! fields it does not have. A patch names what it changes, and `metadata.resourceVersion` or `metadata.uid`
//! in it makes it conditional, which the server answers with 409 Conflict.

use kube::Client;
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::Request;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::View;

pub use kube::api::PropagationPolicy as Propagation;

/// The client a controller writes with. Cheap to clone.
#[derive(Clone)]
pub struct Rest {
    client: Client,
}

fn request<K: View>(namespace: &str) -> Request {
    let namespace = (!namespace.is_empty()).then_some(namespace);
    Request::new(K::url_path(&(), namespace))
}

impl Rest {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> kube::Result<T> {
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// A read past the caches.
    pub async fn get<K: View>(&self, namespace: &str, name: &str) -> kube::Result<K> {
        self.send(request::<K>(namespace).get(name, &GetParams::default())).await
    }

    /// A read past the caches; a missing object is `None`.
    pub async fn get_opt<K: View>(&self, namespace: &str, name: &str) -> kube::Result<Option<K>> {
        match self.get(namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if super::is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn create<K: View>(&self, namespace: &str, body: &Value) -> kube::Result<K> {
        self.send(request::<K>(namespace).create(&PostParams::default(), body.to_string().into_bytes())).await
    }

    /// A create on a subresource, such as a pod's eviction; the answer is whatever the server says.
    pub async fn create_subresource<K: View>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> kube::Result<Value> {
        let pp = PostParams::default();
        let body = body.to_string().into_bytes();
        self.send(request::<K>(namespace).create_subresource(subresource, name, &pp, body)).await
    }

    /// A JSON merge patch.
    pub async fn patch<K: View>(&self, namespace: &str, name: &str, body: &Value) -> kube::Result<K> {
        let patch = Patch::Merge(body);
        self.send(request::<K>(namespace).patch(name, &PatchParams::default(), &patch)).await
    }

    /// A JSON merge patch on `status`.
    pub async fn patch_status<K: View>(&self, namespace: &str, name: &str, body: &Value) -> kube::Result<K> {
        let (pp, patch) = (PatchParams::default(), Patch::Merge(body));
        self.send(request::<K>(namespace).patch_subresource("status", name, &pp, &patch)).await
    }

    /// A strategic merge patch: lists with merge keys are merged by them.
    pub async fn strategic<K: View>(&self, namespace: &str, name: &str, body: &Value) -> kube::Result<K> {
        let patch = Patch::Strategic(body);
        self.send(request::<K>(namespace).patch(name, &PatchParams::default(), &patch)).await
    }

    /// A strategic merge patch on `status`.
    pub async fn strategic_status<K: View>(
        &self,
        namespace: &str,
        name: &str,
        body: &Value,
    ) -> kube::Result<K> {
        let (pp, patch) = (PatchParams::default(), Patch::Strategic(body));
        self.send(request::<K>(namespace).patch_subresource("status", name, &pp, &patch)).await
    }

    /// A whole-object write on a subresource, for objects that were read whole.
    pub async fn replace_subresource(
        &self,
        url_path: &str,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> kube::Result<Value> {
        let pp = PostParams::default();
        let body = body.to_string().into_bytes();
        self.send(Request::new(url_path).replace_subresource(subresource, name, &pp, body)).await
    }

    /// A delete of the object with this uid and no other.
    pub async fn delete<K: View>(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        propagation: Option<PropagationPolicy>,
    ) -> kube::Result<()> {
        let uid = (!uid.is_empty()).then(|| uid.to_owned());
        let dp = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            propagation_policy: propagation,
            ..DeleteParams::default()
        };
        self.delete_with::<K>(namespace, name, &dp).await
    }

    /// A delete with full control over its options.
    pub async fn delete_with<K: View>(
        &self,
        namespace: &str,
        name: &str,
        dp: &DeleteParams,
    ) -> kube::Result<()> {
        self.send::<Value>(request::<K>(namespace).delete(name, dp)).await.map(drop)
    }
}
