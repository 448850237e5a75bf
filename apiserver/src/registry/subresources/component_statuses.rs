//! `componentstatuses`: how scheduler, controller-manager and store are, asked when the client asks.
//!
//! Nothing is stored. As upstream, the daemons are looked for on this machine at their own ports, over TLS that is
//! not verified; a daemon elsewhere shows as unhealthy, which is why the kind is deprecated.
//!
//! Upstream: `pkg/registry/core/componentstatus`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::fields::FieldSelector;
use common::status::Status;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::kubelet::{KubeletClient, Peer, Target};
use super::{answer, query};
use crate::endpoints::negotiation::{self, Shape};
use crate::endpoints::printers::{Include, TablePrinter};
use crate::registry::deps::Deps;
use crate::request::{Response, empty};
use crate::resources::{Subresource, SubresourceRequest};

/// How long a daemon may take to say how it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// How much of its answer is shown.
const ANSWER_BYTES_MAX: usize = 10 * 1024;
const STORE: &str = "etcd-0";
/// Name and port, in the order of names.
const DAEMONS: [(&str, u16); 2] = [("controller-manager", 10257), ("scheduler", 10259)];

/// See the module.
pub struct ComponentStatuses {
    deps: Arc<Deps>,
    client: Arc<KubeletClient>,
}

impl ComponentStatuses {
    pub fn new(deps: Arc<Deps>, client: Arc<KubeletClient>) -> Self {
        Self { deps, client }
    }

    async fn probe(&self, port: u16) -> (&'static str, String, String) {
        let target = Target {
            host: "127.0.0.1".to_owned(),
            port,
            path_and_query: "/healthz".to_owned(),
            peer: Peer::Https,
        };
        let ask = async {
            let request = Request::get(&target.path_and_query).body(empty()).map_err(|e| e.to_string())?;
            let mut sender = self.client.connect(&target).await.map_err(|e| e.to_string())?;
            let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let code = answer.status();
            let body = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            Ok((code, String::from_utf8_lossy(&body).into_owned()))
        };
        let url = format!("https://127.0.0.1:{port}/healthz");
        let failed = |why: String| ("False", format!("Get \"{url}\": {why}"), String::new());
        match tokio::time::timeout(PROBE_TIMEOUT, ask).await {
            Ok(Ok((code, body))) if code.is_success() => ("True", body, String::new()),
            Ok(Ok((code, _))) => {
                ("False", format!("HTTP probe failed with statuscode: {}", code.as_u16()), String::new())
            }
            Ok(Err(why)) => failed(why),
            Err(_) => failed("context deadline exceeded".to_owned()),
        }
    }

    /// A consistent read of a key that need not be there.
    async fn store(&self) -> (&'static str, String, String) {
        match self.deps.registry.store("", "namespaces").get("", "kube-system", None).await {
            Ok(_) => ("True", "ok".to_owned(), String::new()),
            Err(status) if status.code == 404 => ("True", "ok".to_owned(), String::new()),
            Err(status) => ("False", String::new(), status.message),
        }
    }

    async fn one(&self, name: &str) -> Option<Value> {
        let (status, message, error) = match DAEMONS.iter().find(|(daemon, _)| *daemon == name) {
            Some((_, port)) => self.probe(*port).await,
            None if name == STORE => self.store().await,
            None => return None,
        };
        let mut condition = json!({"type": "Healthy", "status": status});
        for (key, text) in [("message", message), ("error", error)] {
            if !text.is_empty() {
                condition[key] = text.into();
            }
        }
        Some(json!({"kind": "ComponentStatus", "apiVersion": "v1",
            "metadata": {"name": name}, "conditions": [condition]}))
    }

    async fn all(&self) -> Vec<Value> {
        let names = DAEMONS.iter().map(|(name, _)| *name).chain([STORE]);
        futures::future::join_all(names.map(|name| self.one(name))).await.into_iter().flatten().collect()
    }
}

#[async_trait]
impl Subresource for ComponentStatuses {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.ctx();
        let output = negotiation::output(&request.request.parts.headers, true)?;
        let (mut items, object) = if ctx.info.verb == "get" {
            let name = ctx.info.name.as_str();
            let one = self.one(name).await;
            let one = one.ok_or_else(|| Status::not_found("", "componentstatus", name))?;
            (vec![one.clone()], one)
        } else {
            // No component has labels.
            let labels = common::labels::Selector::parse(&query(ctx, "labelSelector"))
                .map_err(|e| Status::bad_request(e.to_string()))?;
            let fields = FieldSelector::parse(&query(ctx, "fieldSelector"))
                .map_err(|e| Status::bad_request(e.to_string()))?;
            let mut items = self.all().await;
            items.retain(|item| {
                let name = crate::object::name(item);
                labels.matches(&std::collections::BTreeMap::<String, String>::new())
                    && fields.matches(|field| if field == "metadata.name" { name } else { "" })
            });
            let list = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {},
                "items": items});
            (items, list)
        };
        if output.shape != Shape::Table {
            return Ok(answer(200, &object));
        }
        let printer = TablePrinter::new("", "ComponentStatus", Include::parse(&query(ctx, "includeObject"))?);
        let rows: Vec<Vec<u8>> = items.drain(..).map(|item| item.to_string().into_bytes()).collect();
        let table = printer.table(json!({}), rows.iter().map(Vec::as_slice), true)?;
        Ok(super::answer_bytes(200, table))
    }
}
