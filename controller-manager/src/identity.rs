//! Who a controller is to the API server.
//!
//! With `--use-service-account-credentials` every controller writes as its own service account in
//! `kube-system`, with a token from the TokenRequest API that is renewed before it expires; the daemon's own
//! credentials then need no more than upstream's `system:kube-controller-manager` role. Without it all write
//! as the daemon. Watches are always the daemon's own, because informers are shared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use common::shutdown::Tasks;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use kube::core::Request;
use serde_json::{Value, json};
use tower::service_fn;

use crate::controller::{is_already_exists, message_of};

const NAMESPACE: &str = "kube-system";
/// What is asked for; the server may answer with another lifetime.
const TOKEN_SECONDS: i64 = 3607;
/// A token is renewed when this part of its life has passed.
const RENEW_AT: f64 = 0.8;
/// Between attempts to get a token.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Makes clients for controllers.
pub struct Identities {
    /// The daemon's own.
    client: Client,
    /// For all accounts, so that not each of them has connections and TLS settings of its own.
    transport: Client,
    individual: bool,
    tasks: Tasks,
    made: BTreeMap<&'static str, Client>,
}

impl Identities {
    /// `transport` reaches the same server as `client`, without credentials.
    pub fn new(client: Client, transport: Client, individual: bool, tasks: Tasks) -> Self {
        Self { client, transport, individual, tasks, made: BTreeMap::new() }
    }

    /// The client of a controller's service account. Waits until the server has issued the first token, and
    /// returns `None` only when the daemon stops meanwhile.
    pub async fn client(&mut self, account: &'static str) -> Option<Client> {
        if !self.individual {
            return Some(self.client.clone());
        }
        if let Some(client) = self.made.get(account) {
            return Some(client.clone());
        }
        let stop = self.tasks.stop_token();
        let (token, life) = loop {
            match issue(&self.client, account).await {
                Ok(issued) => break issued,
                Err(error) => {
                    tracing::warn!(account, error = %message_of(&error), "cannot get a token; trying again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        };
        let header = Arc::new(ArcSwap::from_pointee(token));
        let client = with_token(&self.transport, header.clone());
        let issuer = self.client.clone();
        self.tasks.spawn_essential(format!("token/{account}"), async move {
            let mut wait = life.mul_f64(RENEW_AT);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = match issue(&issuer, account).await {
                    Ok((token, life)) => {
                        header.store(Arc::new(token));
                        life.mul_f64(RENEW_AT)
                    }
                    Err(error) => {
                        tracing::warn!(account, error = %message_of(&error), "cannot renew a token");
                        RETRY_AFTER * 5
                    }
                };
            }
        });
        self.made.insert(account, client.clone());
        Some(client)
    }
}

/// A client that sends through `transport` with a bearer token.
fn with_token(transport: &Client, header: Arc<ArcSwap<HeaderValue>>) -> Client {
    let (transport, namespace) = (transport.clone(), transport.default_namespace().to_owned());
    let service = service_fn(move |mut request: http::Request<Body>| {
        request.headers_mut().insert(AUTHORIZATION, (**header.load()).clone());
        let transport = transport.clone();
        async move { transport.send(request).await }
    });
    Client::new(service, namespace)
}

/// Asks for a token, making the account when it is missing. Returns the header and how long it is good for.
async fn issue(client: &Client, account: &str) -> kube::Result<(HeaderValue, Duration)> {
    let accounts = Request::new(format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"));
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": { "expirationSeconds": TOKEN_SECONDS },
    });
    let request = || {
        accounts
            .create_subresource("token", account, &Default::default(), body.to_string().into_bytes())
            .map_err(kube::Error::BuildRequest)
    };
    let answer: Value = match client.request(request()?).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let account = json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": { "name": account, "namespace": NAMESPACE },
            });
            let create = accounts
                .create(&Default::default(), account.to_string().into_bytes())
                .map_err(kube::Error::BuildRequest)?;
            match client.request::<Value>(create).await {
                Err(error) if !is_already_exists(&error) => return Err(error),
                _ => client.request(request()?).await?,
            }
        }
        other => other?,
    };
    let token = answer["status"]["token"].as_str().unwrap_or_default();
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|e| kube::Error::HttpError(http::Error::from(e)))?;
    header.set_sensitive(true);
    let life = answer["status"]["expirationTimestamp"]
        .as_str()
        .and_then(|t| t.parse::<Timestamp>().ok())
        .map_or(Duration::from_secs(600), |at| at.duration_since(Timestamp::now()).unsigned_abs());
    Ok((header, life.max(Duration::from_secs(60))))
}
