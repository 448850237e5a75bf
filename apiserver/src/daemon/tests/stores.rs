//! The whole server over real stores: an etcd that loses members, and a file that is backed up.

use std::time::Instant;

use super::*;
use crate::resources::rows::{Storage, rows};
use crate::storage::Store;
use crate::storage::etcd::EtcdStore;
use crate::storage::etcd::testing::{Etcd, wait_until};
use crate::storage::transfer::{self, Place};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Longer than any answer may take when etcd is away.
const BOUND: Duration = Duration::from_secs(30);

fn config_map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": "b"}})
}

/// The names that a watch tells of, in order; fails on anything but additions.
struct Told {
    body: hyper::body::Incoming,
    rest: Vec<u8>,
}

impl Told {
    async fn next(&mut self) -> String {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                if event["type"] == "BOOKMARK" {
                    continue;
                }
                assert_eq!(event["type"], "ADDED", "{event}");
                return event["object"]["metadata"]["name"].as_str().unwrap().to_owned();
            }
            let frame = tokio::time::timeout(BOUND, self.body.frame()).await.expect("in time");
            let frame = frame.expect("the watch goes on").unwrap();
            self.rest.extend(frame.into_data().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_etcd_come_and_go_under_a_running_server() {
    let Some(mut etcd) = Etcd::start("faults", 3, true) else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let direct = EtcdStore::connect(etcd.config("/none/"), &tasks).await.unwrap();
    let server = Server::start_on(None, &etcd.flags()).await;
    let client = server.client(None);
    let create =
        async |name: &str| server.call(&client, "POST", MAPS, "admin-token", Some(config_map(name))).await;
    let (code, first) = create("first").await;
    assert_eq!(code, 201, "{first}");
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    // Other objects of the kind appear by themselves; these are told apart by their name.
    let path = format!("{MAPS}?watch=true&resourceVersion={revision}");
    let body = server.raw(&client, &path, "admin-token").await.into_body();
    let mut told = Told { body, rest: Vec::new() };
    let mut expected = Vec::new();

    // The leader goes: writes go on under the next one.
    let leader = etcd.leader(&direct).await;
    etcd.kill(leader);
    let killed = Instant::now();
    for i in 0..5 {
        let name = format!("leaderless-{i}");
        wait_until("a write succeeds", async || matches!(create(&name).await.0, 201 | 409)).await;
        if i == 0 {
            eprintln!("a create succeeded {:?} after the leader was killed", killed.elapsed());
        }
        expected.push(name);
    }

    // The majority goes: what may be served is, the rest fails clearly and in time.
    let other = (leader + 1) % 3;
    etcd.kill(other);
    let begun = Instant::now();
    let cached = server.get(&client, &format!("{MAPS}?resourceVersion=0"), "admin-token").await;
    assert_eq!(cached.0, 200, "{}", cached.1);
    assert_eq!(server.get(&client, &format!("{MAPS}/first?resourceVersion=0"), "admin-token").await.0, 200);
    let one = format!("{MAPS}/first");
    let (list, get, write) = tokio::join!(
        server.get(&client, MAPS, "admin-token"),
        server.get(&client, &one, "admin-token"),
        create("lost"),
    );
    eprintln!("without a majority calls failed after {:?}", begun.elapsed());
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    for (code, status) in [list, get, write] {
        assert!(matches!(code, 500 | 503 | 504), "{code} {status}");
        assert_eq!(status["kind"], "Status");
        assert!(!status["message"].as_str().unwrap().is_empty());
    }
    let text = async |path: &str| {
        let response = server.raw(&client, path, "admin-token").await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    };
    let (code, ready) = text("/readyz?verbose").await;
    assert!(code == 500 && ready.contains("[-]etcd failed"), "{code} {ready}");
    let (code, why) = text("/readyz/etcd").await;
    assert!(code == 500 && why.contains("internal server error: store unavailable: "), "{code} {why}");

    // They come back: everything goes on by itself, and the watch has missed nothing.
    etcd.restart(leader);
    etcd.restart(other);
    server.until(&client, "/readyz", "admin-token").await;
    // The create that failed may have been done or not; who asks again learns it.
    wait_until("a write succeeds", async || matches!(create("lost").await.0, 201 | 409)).await;
    expected.push("lost".to_owned());
    wait_until("a write succeeds", async || matches!(create("last").await.0, 201 | 409)).await;
    expected.push("last".to_owned());
    for name in &expected {
        assert_eq!(&told.next().await, name, "one watch over all of it, without a gap");
    }

    for line in [
        r#"etcd_requests_total{group="",operation="create",resource="configmaps"}"#,
        r#"etcd_request_errors_total{group="",operation="get",resource="configmaps"}"#,
        r#"etcd_request_duration_seconds_count{group="",operation="create",resource="configmaps"}"#,
        r#"apiserver_storage_size_bytes{storage_cluster_id="etcd-0"}"#,
        r#"apiserver_storage_objects{resource="configmaps"}"#,
    ] {
        wait_until(line, async || text("/metrics").await.1.contains(line)).await;
    }
    keys_are_laid_out_as_upstream_does(&server, &client, direct.as_ref()).await;
    server.stop().await;
    tasks.stop_token().cancel();
}

/// `etcdctl get --prefix /registry --keys-only` reads as people expect.
async fn keys_are_laid_out_as_upstream_does(server: &Server, client: &Https, etcd: &dyn Store) {
    let service = json!({
        "kind": "Service", "apiVersion": "v1", "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80}]},
    });
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}});
    for (path, object) in [("/api/v1/namespaces/default/services", service), ("/api/v1/nodes", node)] {
        let (code, made) = server.call(client, "POST", path, "admin-token", Some(object)).await;
        assert_eq!(code, 201, "{made}");
    }
    let list = etcd.list("/registry", None, 0, None).await.unwrap();
    let keys: Vec<&str> = list.items.iter().map(|kv| kv.key.as_str()).collect();
    for key in [
        "/registry/configmaps/default/first",
        "/registry/services/specs/default/web",
        "/registry/services/specs/default/kubernetes",
        "/registry/minions/n1",
        "/registry/namespaces/kube-system",
        "/registry/clusterroles/cluster-admin",
        "/registry/priorityclasses/system-node-critical",
    ] {
        assert!(keys.contains(&key), "{key} is missing in {keys:?}");
    }
    for key in keys {
        let row = rows().iter().find_map(|row| {
            let Storage::Own(path) = row.storage else { return None };
            let name = key.strip_prefix("/registry/")?.strip_prefix(path)?.strip_prefix('/')?;
            Some((row, name))
        });
        match row {
            Some((row, name)) => {
                let parts = if row.namespaced { 2 } else { 1 };
                assert_eq!(name.split('/').count(), parts, "{key}");
            }
            None => assert!(key.starts_with("/registry/masterleases/"), "{key} belongs to no resource"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_is_backed_up_by_its_server() {
    let folder = std::env::temp_dir().join(format!("pintle-daemon-backup-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let store = StoreConfig::Embedded(folder.join("store.redb"));
    let server = Server::start_on(Some(store), &[]).await;
    let client = server.client(None);
    let (code, made) = server.call(&client, "POST", MAPS, "admin-token", Some(config_map("kept"))).await;
    assert_eq!(code, 201, "{made}");
    let (code, status) = server.get(&client, "/store/backup", "jane-token").await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
    // Whatever a role allows, secrets are for masters alone.
    let role = json!({
        "kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "paths"},
        "rules": [{"nonResourceURLs": ["*"], "verbs": ["get"]}],
    });
    let binding = json!({
        "kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "paths"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "paths"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let path = format!("{rbac}/{plural}");
        assert_eq!(server.call(&client, "POST", &path, "admin-token", Some(object)).await.0, 201);
    }
    server.until(&client, "/metrics", "jane-token").await;
    let (code, status) = server.get(&client, "/store/backup", "jane-token").await;
    assert!(code == 403 && status["message"].as_str().unwrap().contains("system:masters"), "{status}");

    let response = server.raw(&client, "/store/backup", "admin-token").await;
    assert_eq!(response.status(), 200);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let file = folder.join("taken.backup");
    std::fs::write(&file, &bytes).unwrap();
    server.stop().await;

    let copy = folder.join("restored.redb");
    let (from, to) = (Place::Backup(file), Place::Embedded(copy.clone()));
    let copied = transfer::copy(&from, &to, 1000, &mut |_| {}).await.unwrap();
    assert!(copied.keys > 50, "{copied:?}");
    let restored = Server::start_on(Some(StoreConfig::Embedded(copy)), &[]).await;
    let client = restored.client(None);
    let (code, found) = restored.get(&client, &format!("{MAPS}/kept"), "admin-token").await;
    assert_eq!(
        (code, &found["data"], &found["metadata"]["uid"]),
        (200, &made["data"], &made["metadata"]["uid"])
    );
    let revision =
        |object: &Value| -> u64 { object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap() };
    assert!(revision(&found) > copied.from.0 + 1000);
    let old = format!("{MAPS}?watch=true&resourceVersion={}", revision(&made));
    let (code, expired) = restored.get(&client, &old, "admin-token").await;
    assert!(code == 410 || expired["object"]["code"] == 410, "{code} {expired}");
    restored.stop().await;
    let _ = std::fs::remove_dir_all(&folder);
}
