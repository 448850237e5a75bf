//! Writes: creates from JSON, merge patches carrying preconditions, deletes by uid.
//!
//! The stores hold slim views, so nothing here sends back a whole object: a PUT of a view would erase the
//! fields it does not have. A patch names what it changes, and `metadata.resourceVersion` or `metadata.uid`
//! in it makes it conditional, which the server answers with 409 Conflict.

use kube::Client;
use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
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

    /// All objects of a namespace, past the caches.
    pub async fn list<K: View>(&self, namespace: &str) -> kube::Result<Vec<K>> {
        #[derive(serde::Deserialize)]
        #[serde(bound = "K: View")]
        struct List<K> {
            items: Vec<K>,
        }
        let list: List<K> = self.send(request::<K>(namespace).list(&ListParams::default())).await?;
        Ok(list.items)
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

    /// A server-side apply that takes over the fields it names.
    pub async fn apply<K: View>(
        &self,
        namespace: &str,
        name: &str,
        manager: &str,
        body: &Value,
    ) -> kube::Result<K> {
        let pp = PatchParams::apply(manager).force();
        self.send(request::<K>(namespace).patch(name, &pp, &Patch::Apply(body))).await
    }

    /// [`Rest::apply`] on `status`.
    pub async fn apply_status<K: View>(
        &self,
        namespace: &str,
        name: &str,
        manager: &str,
        body: &Value,
    ) -> kube::Result<K> {
        let pp = PatchParams::apply(manager).force();
        let patch = Patch::Apply(body);
        self.send(request::<K>(namespace).patch_subresource("status", name, &pp, &patch)).await
    }

    /// Reads the object past the caches, merges `body` into it as a merge patch would, and puts it back, because
    /// upstream's roles let most controllers update but not patch. `metadata.uid` and
    /// `metadata.resourceVersion` in `body` are conditions, as they are in a patch.
    pub async fn update<K: View>(
        &self,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        body: &Value,
    ) -> kube::Result<K> {
        let request = request::<K>(namespace);
        let mut whole: Value = self.send(request.get(name, &GetParams::default())).await?;
        for condition in ["uid", "resourceVersion"] {
            let wanted = &body["metadata"][condition];
            if !wanted.is_null() && *wanted != whole["metadata"][condition] {
                return Err(conflict::<K>(name));
            }
        }
        merge(&mut whole, body);
        let (pp, body) = (PostParams::default(), whole.to_string().into_bytes());
        match subresource {
            Some(subresource) => self.send(request.replace_subresource(subresource, name, &pp, body)).await,
            None => self.send(request.replace(name, &pp, body)).await,
        }
    }

    /// A PUT of an object that is known whole.
    pub async fn replace<K: View>(&self, namespace: &str, name: &str, body: &Value) -> kube::Result<K> {
        let body = body.to_string().into_bytes();
        self.send(request::<K>(namespace).replace(name, &PostParams::default(), body)).await
    }

    /// [`Rest::update`] on `status`.
    pub async fn update_status<K: View>(&self, namespace: &str, name: &str, body: &Value) -> kube::Result<K> {
        self.update(namespace, name, Some("status"), body).await
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

fn conflict<K: View>(name: &str) -> kube::Error {
    let mut status = kube::core::Status::failure(
        &format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
            K::plural(&())
        ),
        "Conflict",
    );
    status.code = 409;
    kube::Error::Api(Box::new(status))
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    for (key, value) in changes {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_replaces_lists_and_removes_nulls() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2], "x": 1});
        merge(&mut object, &json!({"a": {"b": null, "d": {"e": null, "f": 3}}, "l": [3], "x": {"y": 1}}));
        assert_eq!(object, json!({"a": {"c": 2, "d": {"f": 3}}, "l": [3], "x": {"y": 1}}));
    }
}
