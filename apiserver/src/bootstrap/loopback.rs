//! The server as its own client: requests that enter behind the filter chain, as a user who may do all.

use std::sync::Arc;

use common::status::Status;
use http::{Method, Request};
use http_body_util::BodyExt;

use crate::filters::{Handler, request_info};
use crate::object::Object;
use crate::request::{ApiRequest, RequestContext, UserInfo, empty, full};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Loopback {
    handler: Arc<dyn Handler>,
}

impl Loopback {
    pub fn new(handler: Arc<dyn Handler>) -> Self {
        Self { handler }
    }

    /// The object at `path`; `None` when there is none.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn get(&self, path: &str) -> Result<Option<Object>, Status> {
        match self.call(Method::GET, path, None).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.code == 404 => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Creates `object` in the collection at `path`; one that is there already is left alone.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn create(&self, path: &str, object: &Object) -> Result<(), Status> {
        match self.call(Method::POST, path, Some(object)).await {
            Ok(_) => Ok(()),
            Err(status) if status.reason == common::status::reason::ALREADY_EXISTS => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Replaces the object at `path`.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn update(&self, path: &str, object: &Object) -> Result<(), Status> {
        self.call(Method::PUT, path, Some(object)).await.map(|_| ())
    }

    /// Removes the object at `path`, if it is there.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn delete(&self, path: &str) -> Result<(), Status> {
        match self.call(Method::DELETE, path, None).await {
            Ok(_) => Ok(()),
            Err(status) if status.code == 404 => Ok(()),
            Err(status) => Err(status),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Object>) -> Result<Object, Status> {
        let info = request_info::parse(&method, path, "").map_err(Status::internal)?;
        let user = UserInfo {
            name: "system:apiserver".into(),
            groups: vec!["system:authenticated".into(), "system:masters".into()],
            ..Default::default()
        };
        let mut ctx = RequestContext::new(info, user, String::new());
        ctx.audit_id = uuid::Uuid::new_v4().to_string();
        ctx.user_agent = common::version::user_agent("kube-apiserver");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .body(())
            .map_err(Status::internal)?;
        let (parts, ()) = request.into_parts();
        let body = body.map_or_else(empty, |object| full(object.to_string()));
        let response = self.handler.handle(ApiRequest { ctx: Arc::new(ctx), parts, body }).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.map_err(Status::internal)?.to_bytes();
        if code.is_success() {
            serde_json::from_slice(&bytes).map_err(Status::internal)
        } else {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Err(serde_json::from_slice(&bytes).unwrap_or_else(|_| Status::failure(code.as_u16(), "", text)))
        }
    }
}
