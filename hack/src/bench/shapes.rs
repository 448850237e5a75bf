//! The sequence: create, get, list, watch, lease, fill, delete. Each shape leaves what the next one reads.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::Options;
use super::client::{Answer, Call, Client};
use super::load::{self, Samples};
use super::report::Report;
use super::server::Server;
use super::watching::Watchers;
use super::{limits, objects};

/// Objects per page, kubectl's default.
const PAGE: usize = 500;
const LEASES: usize = 100;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// How long a namespace may take to go before its finalizer is removed here: a server alone has no controller.
const NAMESPACE_GONE: Duration = Duration::from_secs(5);

pub struct Shapes {
    options: Options,
    client: Client,
    /// The pods that are read, patched and deleted.
    namespace: String,
    /// Pods that only take room.
    fill: String,
    made: Vec<String>,
    pods: usize,
}

impl Shapes {
    pub fn new(options: &Options, client: Client) -> Self {
        let namespace = format!("pintle-bench-{}", std::process::id());
        let fill = format!("{namespace}-fill");
        Self { options: options.clone(), client, namespace, fill, made: Vec::new(), pods: 0 }
    }

    /// # Errors
    /// When the server refuses what a shape needs.
    pub async fn run(&mut self, server: &mut Server, report: &mut Report) -> anyhow::Result<()> {
        let wants: Vec<&str> = ["create", "get", "list", "watch", "lease", "delete"]
            .into_iter()
            .filter(|shape| self.options.wants(shape))
            .collect();
        self.namespace(&self.namespace.clone()).await?;
        // Every other shape needs the pods.
        self.create(server, report).await?;
        if wants.contains(&"get") {
            self.get(server, report).await?;
        }
        if wants.contains(&"list") {
            self.lists(server, report).await?;
        }
        if wants.contains(&"watch") {
            self.watch(server, report).await?;
        }
        if wants.contains(&"lease") {
            self.leases(server, report).await?;
        }
        self.fill(server, report).await?;
        if wants.contains(&"delete") {
            self.delete(server, report).await?;
        }
        Ok(())
    }

    /// Runs a shape and notes it.
    async fn measure(
        &self,
        shape: &str,
        server: &Server,
        report: &mut Report,
        concurrency: usize,
        total: usize,
        make: impl Fn(usize) -> Call + Send + Sync + 'static,
    ) -> anyhow::Result<()> {
        let before = server.cpu();
        let samples = load::run(shape, &self.client, concurrency, total, self.options.limit(), make).await?;
        report.samples(shape, samples, spent(before, server.cpu()), server.resident_bytes());
        Ok(())
    }

    async fn create(&mut self, server: &Server, report: &mut Report) -> anyhow::Result<()> {
        let concurrency = self.options.concurrency;
        let (bytes, mut limits) =
            (objects::pod("web-00000", 0).to_string().len() + objects::ADDED_BYTES, Vec::new());
        if let Some(etcd) = self.options.etcd() {
            let rate = limits::etcd_puts(&etcd, bytes, concurrency).await?;
            limits.push((format!("etcd's own puts ({concurrency} at a time)"), rate));
        }
        if let Some(folder) = self.options.fsync_dir.clone() {
            let rate = tokio::task::spawn_blocking(move || limits::fsyncs(&folder, bytes)).await??;
            limits.push(("fsyncs, one after another".to_owned(), rate));
        }
        let path = pods(&self.namespace);
        self.measure("create", server, report, concurrency, self.options.objects, move |index| {
            Call::post(path.clone(), objects::pod(&pod_name(index), index).to_string())
        })
        .await?;
        self.pods = self.options.objects;
        let creates = report.rate("create").unwrap_or_default();
        for (what, rate) in limits {
            report.fact(
                "creates beside the store's limit",
                format!("{creates:.0}/s; {what} {rate:.0}/s; ratio {:.2}", creates / rate),
            );
        }
        Ok(())
    }

    async fn get(&self, server: &Server, report: &mut Report) -> anyhow::Result<()> {
        let (path, count, options) = (pods(&self.namespace), self.pods, &self.options);
        self.measure("get", server, report, options.concurrency, options.requests, move |index| {
            Call::get(format!("{path}/{}", pod_name(index % count)))
        })
        .await?;
        Ok(())
    }

    async fn lists(&self, server: &Server, report: &mut Report) -> anyhow::Result<()> {
        let (path, times) = (pods(&self.namespace), self.options.lists);
        let list = |suffix: &str, accept: &'static str| {
            let path = format!("{path}{suffix}");
            move |_: usize| Call::get(path.clone()).accepting(accept)
        };
        let json = "application/json";
        self.measure("list", server, report, 1, times, list("", json)).await?;
        self.measure("list rv=0", server, report, 1, times, list("?resourceVersion=0", json)).await?;
        if server.cpu().is_some() || self.options.fsync_dir.is_some() {
            let raw = tokio::task::spawn_blocking(limits::tls).await??;
            let rate = report.bytes_rate("list").unwrap_or_default();
            report.fact(
                "list beside TLS alone",
                format!(
                    "{:.0} MB/s; TLS {:.0} MB/s at {:.2} ms of CPU per MB; ratio {:.2}",
                    rate / 1e6,
                    raw.bytes_per_second / 1e6,
                    raw.cpu_per_megabyte.as_secs_f64() * 1e3,
                    rate / raw.bytes_per_second
                ),
            );
        }
        let many = times * 10;
        self.measure("list by label", server, report, 4, many, list("?labelSelector=bench%3Dg7", json))
            .await?;
        let field = "?fieldSelector=spec.schedulerName%3Dpintle-bench-7";
        self.measure("list by field", server, report, 4, many, list(field, json)).await?;
        self.pages(server, report).await?;
        self.measure("list as Table", server, report, 1, times, list("", TABLE)).await?;
        self.measure("list as protobuf", server, report, 1, times, list("", PROTOBUF)).await?;
        Ok(())
    }

    /// Whole lists in pages: each request needs the token of the one before.
    async fn pages(&self, server: &Server, report: &mut Report) -> anyhow::Result<()> {
        let (before, begun) = (server.cpu(), Instant::now());
        let mut samples = Samples::default();
        let mut sender = self.client.connect().await?;
        for _ in 0..self.options.lists {
            let mut token = String::new();
            loop {
                let mut path = format!("{}?limit={PAGE}", pods(&self.namespace));
                if !token.is_empty() {
                    path = format!("{path}&continue={}", token.replace('=', "%3D").replace('+', "%2B"));
                }
                let sent = Instant::now();
                let answer = self.client.call(&mut sender, Call::get(path)).await.and_then(Answer::ok)?;
                samples.latencies.push(sent.elapsed());
                samples.bytes += answer.bytes;
                match continue_token(&answer.head) {
                    Some(next) => token = next,
                    None => break,
                }
            }
            if begun.elapsed() > self.options.limit() {
                break;
            }
        }
        samples.elapsed = begun.elapsed();
        report.samples("list page of 500", samples, spent(before, server.cpu()), server.resident_bytes());
        Ok(())
    }

    /// Patches while watchers look on. The server's CPU is told per delivered event, after what the same patches
    /// cost without watchers is taken off.
    async fn watch(&self, server: &Server, report: &mut Report) -> anyhow::Result<()> {
        let (options, path, count) = (&self.options, pods(&self.namespace), self.pods);
        let patch = |turn: &'static str| {
            let (path, count) = (path.clone(), count);
            move |index: usize| {
                let body = format!(r#"{{"metadata":{{"annotations":{{"bench/turn":"{turn}-{index}"}}}}}}"#);
                Call::merge_patch(format!("{path}/{}", pod_name(index % count)), body)
            }
        };
        let concurrency = options.concurrency;
        let before = server.cpu();
        self.measure("patch", server, report, concurrency, options.patches, patch("alone")).await?;
        let patching = spent(before, server.cpu());

        let mut sender = self.client.connect().await?;
        let list = self.client.call(&mut sender, Call::get(format!("{path}?limit=1"))).await?.ok()?;
        let revision =
            field(&list.head, "\"resourceVersion\":\"").context("a list without resourceVersion")?;
        let watch = format!("{path}?watch=true&resourceVersion={revision}&timeoutSeconds=600");
        let watchers = Watchers::open(&self.client, &watch, options.watchers).await?;
        let (before, begun) = (server.cpu(), Instant::now());
        let what = format!("patch, {} watchers", options.watchers);
        self.measure(&what, server, report, concurrency, options.patches, patch("watched")).await?;
        watchers.drained(options.patches * options.watchers).await;
        let elapsed = begun.elapsed();
        let cpu = spent(before, server.cpu()).map(|cpu| cpu.saturating_sub(patching.unwrap_or_default()));
        let (events, bytes) =
            (watchers.events.load(Ordering::Relaxed), watchers.bytes.load(Ordering::Relaxed));
        report.counted("delivered event", events, bytes, elapsed, cpu, server.resident_bytes());
        let ended = watchers.ended.load(Ordering::Relaxed);
        if ended > 0 {
            report.fact("watchers cut off", ended.to_string());
        }
        Ok(())
    }

    async fn leases(&self, server: &Server, report: &mut Report) -> anyhow::Result<()> {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace);
        let made = path.clone();
        load::run("leases", &self.client, 8, LEASES, self.options.limit(), move |index| {
            Call::post(made.clone(), objects::lease(&format!("node-{index}")).to_string())
        })
        .await?;
        let options = &self.options;
        self.measure("lease patch", server, report, options.concurrency, options.requests, move |index| {
            Call::merge_patch(format!("{path}/node-{}", index % LEASES), objects::renewal(index))
        })
        .await?;
        Ok(())
    }

    /// More pods, then the memory they take, then a start with all of them.
    async fn fill(&mut self, server: &mut Server, report: &mut Report) -> anyhow::Result<()> {
        let missing = self.options.fill.saturating_sub(self.pods);
        if missing > 0 {
            let fill = self.fill.clone();
            self.namespace(&fill).await?;
            let path = pods(&fill);
            load::run(
                "fill",
                &self.client,
                self.options.concurrency,
                missing,
                self.options.limit(),
                move |index| Call::post(path.clone(), objects::pod(&pod_name(index), index).to_string()),
            )
            .await?;
        }
        let mut sender = self.client.connect().await?;
        let mut stored = 0;
        for namespace in [&self.namespace, &self.fill] {
            stored += self.client.call(&mut sender, Call::get(pods(namespace))).await?.ok()?.bytes;
        }
        drop(sender);
        let total = self.pods + missing;
        report.fact("pods stored", format!("{total}, {:.1} MB", stored as f64 / 1e6));
        server.settled(report, &format!("with {total} pods, after all of the above")).await;
        if server.is_ours() {
            let took = server.restart(&self.client).await?;
            report.fact(&format!("start to ready, {total} pods"), format!("{:.3} s", took.as_secs_f64()));
            server.settled(report, &format!("with {total} pods, started anew")).await;
        }
        Ok(())
    }

    async fn delete(&mut self, server: &Server, report: &mut Report) -> anyhow::Result<()> {
        let (path, count) = (pods(&self.namespace), self.pods);
        self.measure("delete", server, report, self.options.concurrency, count, move |index| {
            Call::delete(format!("{path}/{}?gracePeriodSeconds=0", pod_name(index)))
        })
        .await?;
        Ok(())
    }

    async fn namespace(&mut self, name: &str) -> anyhow::Result<()> {
        let mut sender = self.client.connect().await?;
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
        self.client
            .call(&mut sender, Call::post("/api/v1/namespaces", namespace.to_string()))
            .await?
            .ok()
            .with_context(|| format!("creating the namespace {name}"))?;
        self.made.push(name.to_owned());
        // Pods need it, and a server alone has no controller that makes it.
        let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}});
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
        let answer = self.client.call(&mut sender, Call::post(path, account.to_string())).await?;
        if answer.status != http::StatusCode::CONFLICT {
            answer.ok().context("creating the default service account")?;
        }
        Ok(())
    }

    /// Removes what was made, whether or not all went well.
    ///
    /// # Errors
    /// When the server does not let go of it.
    pub async fn clean_up(&mut self) -> anyhow::Result<()> {
        if self.made.is_empty() {
            return Ok(());
        }
        let mut sender = self.client.connect().await?;
        for name in self.made.drain(..).collect::<Vec<_>>() {
            let core = format!("/api/v1/namespaces/{name}");
            let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{name}/leases");
            let account = format!("{core}/serviceaccounts");
            for path in [format!("{core}/pods?gracePeriodSeconds=0"), leases, account] {
                let _ = self.client.call(&mut sender, Call::delete(path)).await?;
            }
            let _ = self.client.call(&mut sender, Call::delete(core.clone())).await?;
            let begun = Instant::now();
            loop {
                let answer = self.client.call(&mut sender, Call::get(core.clone())).await?;
                if answer.status == http::StatusCode::NOT_FOUND {
                    break;
                }
                if begun.elapsed() > NAMESPACE_GONE {
                    self.finalize(&core, &answer.head).await?;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    async fn finalize(&self, path: &str, namespace: &[u8]) -> anyhow::Result<()> {
        let mut namespace: Value = serde_json::from_slice(namespace)?;
        namespace["spec"]["finalizers"] = json!([]);
        let mut sender = self.client.connect().await?;
        let call = Call::put(format!("{path}/finalize"), namespace.to_string());
        self.client.call(&mut sender, call).await?.ok()?;
        Ok(())
    }
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

fn pod_name(index: usize) -> String {
    format!("web-6f7d8c9b54-{index:05}")
}

fn spent(before: Option<Duration>, after: Option<Duration>) -> Option<Duration> {
    Some(after?.saturating_sub(before?))
}

/// The text behind `marker` up to the next quote.
fn field(json: &[u8], marker: &str) -> Option<String> {
    let text = String::from_utf8_lossy(json);
    let (_, rest) = text.split_once(marker)?;
    Some(rest.split('"').next()?.to_owned())
}

/// A list's metadata stands before its items.
fn continue_token(head: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let metadata = text.split("\"items\"").next()?;
    field(metadata.as_bytes(), "\"continue\":\"").filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_that_of_the_list() {
        let list = br#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"abc"},"items":[{"metadata":{"continue":"x"}}]}"#;
        assert_eq!(continue_token(list).as_deref(), Some("abc"));
        assert_eq!(field(list, "\"resourceVersion\":\"").as_deref(), Some("7"));
        let last = br#"{"metadata":{"resourceVersion":"7"},"items":[{"a":{"continue":"x"}}]}"#;
        assert_eq!(continue_token(last), None);
    }
}
