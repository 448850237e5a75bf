//! Keeps one signature per signing token in the config map `cluster-info`, over its kubeconfig.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::jws;
use super::token::{Life, life, signs};
use crate::controller::{Error, Informer, Key, Outcome, Reconcile, Rest, is_not_found};
use crate::daemon::Context;
use crate::views::{BootstrapToken, ClusterInfo};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const CONTENT: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

struct Signer {
    rest: Rest,
    tokens: Informer<BootstrapToken>,
    info: Informer<ClusterInfo>,
}

/// Registers the handlers and starts the worker; the only key is the config map.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("bootstrap_signer_queue");
    let tokens = context.informers.of::<BootstrapToken>();
    let info = context.informers.of::<ClusterInfo>();
    {
        let queue = queue.clone();
        tokens.on_change(move |_| queue.add(Key::new(NAMESPACE, NAME)));
    }
    {
        let queue = queue.clone();
        info.on_change(move |_| queue.add(Key::new(NAMESPACE, NAME)));
    }
    let controller = Arc::new(Signer { rest: context.rest.clone(), tokens, info });
    context.run(queue, controller, 1);
}

/// Pure: the changes to the config map's data, a null for a signature that is to go. Empty when all is right.
fn plan(
    data: &BTreeMap<String, String>,
    tokens: &[Arc<BootstrapToken>],
    now: Timestamp,
) -> Map<String, Value> {
    let Some(content) = data.get(CONTENT) else { return Map::new() };
    let wanted: BTreeMap<String, String> = tokens
        .iter()
        .filter(|token| life(token, now) != Life::Over)
        .filter_map(|token| signs(token))
        .map(|(id, secret)| (format!("{SIGNATURE_PREFIX}{id}"), jws::detached(content, id, secret)))
        .collect();
    let gone = data.keys().filter(|k| k.starts_with(SIGNATURE_PREFIX) && !wanted.contains_key(*k));
    let gone: Vec<(String, Value)> = gone.map(|k| (k.clone(), Value::Null)).collect();
    let new = wanted.into_iter().filter(|(k, v)| data.get(k) != Some(v)).map(|(k, v)| (k, Value::String(v)));
    new.chain(gone).collect()
}

/// Pure: when the next signature ends, should nobody delete its token.
fn next(tokens: &[Arc<BootstrapToken>], now: Timestamp) -> Option<Duration> {
    tokens
        .iter()
        .filter(|token| signs(token).is_some())
        .filter_map(|token| match life(token, now) {
            Life::For(left) => Some(left),
            Life::Unlimited | Life::Over => None,
        })
        .min()
}

#[async_trait]
impl Reconcile for Signer {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(info) = self.info.store().get(key) else { return Ok(Outcome::Done) };
        let (tokens, now) = (self.tokens.store().all(), Timestamp::now());
        let changes = plan(&info.data, &tokens, now);
        if !changes.is_empty() {
            let body = json!({
                "metadata": { "uid": info.metadata.uid, "resourceVersion": info.metadata.resource_version },
                "data": changes,
            });
            match self.rest.update::<ClusterInfo>(NAMESPACE, NAME, None, &body).await {
                Err(error) if !is_not_found(&error) => {
                    return Err(Error::api("sign the cluster-info")(error));
                }
                _ => {}
            }
        }
        Ok(next(&tokens, now).map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::tests::token;
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn signatures_follow_tokens() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let soon = token("aaaaaa", &[("expiration", "2026-01-01T00:00:30Z")]);
        let past = token("bbbbbb", &[("expiration", "2025-01-01T00:00:30Z")]);
        let tokens = [Arc::new(soon), Arc::new(past)];
        let changes = plan(
            &data(&[("kubeconfig", "x"), ("jws-kubeconfig-cccccc", "old"), ("more", "y")]),
            &tokens,
            now,
        );
        assert_eq!(changes.keys().collect::<Vec<_>>(), ["jws-kubeconfig-aaaaaa", "jws-kubeconfig-cccccc"]);
        assert_eq!(changes["jws-kubeconfig-cccccc"], Value::Null);
        let signature = changes["jws-kubeconfig-aaaaaa"].as_str().expect("text");
        let signed = data(&[("kubeconfig", "x"), ("jws-kubeconfig-aaaaaa", signature)]);
        assert!(plan(&signed, &tokens, now).is_empty());
        assert!(plan(&data(&[("jws-kubeconfig-cccccc", "old")]), &tokens, now).is_empty());
        assert_eq!(next(&tokens, now), Some(Duration::from_secs(30)));
        assert_eq!(next(&tokens[1..], now), None);
    }
}
