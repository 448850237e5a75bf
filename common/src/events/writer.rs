//! Writes what a form of events makes of the notes, one after the other.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;
use tokio::sync::mpsc;

use super::Said;

/// How often a form is asked what has become due by itself.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Attempts to write one event.
const ATTEMPTS_MAX: u32 = 12;
/// Between attempts.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What to write because of a note.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Write {
    Create {
        namespace: String,
        body: Value,
    },
    /// Changes the event `name`; `otherwise` is created when it has expired.
    Patch {
        namespace: String,
        name: String,
        body: Value,
        otherwise: Value,
    },
}

/// A wire form: decides what one more note means beside the earlier ones. Pure; bounded in what it remembers.
pub(super) trait Form: Send + 'static {
    /// `/api/v1` or the like.
    const PREFIX: &'static str;

    fn observe(&mut self, said: &Said) -> Option<Write>;

    /// Forgets what is over, and says what must be written now although nothing new was said.
    fn sweep(&mut self, now: Timestamp) -> Vec<Write>;
}

/// Ends when all recorders are gone.
pub(super) async fn run<F: Form>(client: Client, mut form: F, mut notes: mpsc::Receiver<Said>) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        let due: Vec<Write> = tokio::select! {
            said = notes.recv() => match said {
                Some(said) => form.observe(&said).into_iter().collect(),
                None => return,
            },
            _ = sweep.tick() => form.sweep(Timestamp::now()),
        };
        for write in due {
            persist::<F>(&client, &write).await;
        }
    }
}

/// Writes one event, again for transport errors, and gives up on what the server refuses.
async fn persist<F: Form>(client: &Client, write: &Write) {
    for attempt in 1..=ATTEMPTS_MAX {
        let result = match write {
            Write::Create { namespace, body } => create::<F>(client, namespace, body).await,
            Write::Patch { namespace, name, body, otherwise } => {
                match patch::<F>(client, namespace, name, body).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {
                        create::<F>(client, namespace, otherwise).await
                    }
                    other => other,
                }
            }
        };
        match result {
            Ok(()) => return,
            // The server understood and refused (a namespace on its way out, no permission): final.
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                tracing::debug!(error = %status.message, "event not written");
                return;
            }
            Err(error) if attempt < ATTEMPTS_MAX => {
                tracing::debug!(%error, attempt, "event not written; trying again");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(error) => tracing::warn!(%error, "event not written: retry limit exceeded"),
        }
    }
}

async fn create<F: Form>(client: &Client, namespace: &str, body: &Value) -> kube::Result<()> {
    let uri = format!("{}/namespaces/{namespace}/events", F::PREFIX);
    send(client, Method::POST, &uri, "application/json", body).await
}

async fn patch<F: Form>(client: &Client, namespace: &str, name: &str, body: &Value) -> kube::Result<()> {
    let uri = format!("{}/namespaces/{namespace}/events/{name}", F::PREFIX);
    send(client, Method::PATCH, &uri, "application/strategic-merge-patch+json", body).await
}

async fn send(client: &Client, method: Method, uri: &str, mime: &str, body: &Value) -> kube::Result<()> {
    let request = http::Request::builder()
        .method(method)
        .uri(uri)
        .header(http::header::ACCEPT, "application/json")
        .header(http::header::CONTENT_TYPE, mime)
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}
