//! The processes of a real etcd on loopback, of one member or several. The tests of the built binary share this file.
//!
//! Where no etcd is installed a test says so in its output and passes; with PINTLE_TEST_ETCD=1, which the
//! project's test script sets, that is a failure.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ended and removed when dropped; after a failure its folder, with a log for each member, stays.
pub struct Members {
    folder: PathBuf,
    members: Vec<Member>,
    /// Arguments of all members beside those that say where they are.
    more: Vec<OsString>,
}

struct Member {
    client: String,
    peer: String,
    /// `None` while it is down.
    child: Option<Child>,
}

impl Members {
    /// `None` when there is no etcd to start. `prepare` may put files into the folder, and says what else the members
    /// are told.
    pub fn start(
        name: &str,
        count: usize,
        scheme: &str,
        prepare: impl FnOnce(&Path) -> Vec<OsString>,
    ) -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            let required = std::env::var("PINTLE_TEST_ETCD").is_ok_and(|v| v == "1");
            assert!(!required, "PINTLE_TEST_ETCD=1 and no etcd binary is installed");
            eprintln!("not run: no etcd binary is installed");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("pintle-etcd-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("folder");
        let more = prepare(&folder);
        // All are held at once, so that no port is given twice.
        let listeners: Vec<TcpListener> =
            (0..count * 2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let address = |listener: &TcpListener| {
            format!("{scheme}://127.0.0.1:{}", listener.local_addr().expect("bound").port())
        };
        let members = listeners
            .chunks(2)
            .map(|pair| Member { client: address(&pair[0]), peer: address(&pair[1]), child: None })
            .collect();
        drop(listeners);
        let mut cluster = Self { folder, members, more };
        for at in 0..count {
            cluster.restart(at);
        }
        Some(cluster)
    }

    /// What clients connect to, by member.
    pub fn clients(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// Starts a member that is down, on its data.
    pub fn restart(&mut self, at: usize) {
        let cluster: Vec<String> =
            self.members.iter().enumerate().map(|(i, member)| format!("m{i}={}", member.peer)).collect();
        let Member { client, peer, child } = &mut self.members[at];
        assert!(child.is_none(), "member {at} is running");
        let log = std::fs::File::create(self.folder.join(format!("m{at}.log"))).expect("a log");
        let started = Command::new("etcd")
            .args(["--name", &format!("m{at}")])
            .args(["--data-dir", &self.folder.join(format!("m{at}")).display().to_string()])
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", "pintle-test"])
            .args(&self.more)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        *child = Some(started.expect("etcd starts"));
    }

    /// SIGKILL.
    pub fn kill(&mut self, at: usize) {
        let mut child = self.members[at].child.take().expect("running");
        child.kill().expect("etcd is ours");
        child.wait().expect("etcd is ours");
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("logs of etcd are in {}", self.folder.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
