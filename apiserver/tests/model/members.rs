//! A real etcd on loopback, of one member or several, for tests that need one.
//!
//! Where no etcd is installed a test says so in its output and passes; with PINTLE_TEST_ETCD=1, which the
//! project's test script sets, that is a failure.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Ended and removed when dropped.
pub struct Members {
    folder: PathBuf,
    members: Vec<Member>,
}

struct Member {
    name: String,
    client: String,
    peer: String,
    child: Option<Child>,
}

/// A port that was free just now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

impl Members {
    /// `None` when there is no etcd to start.
    pub fn start(name: &str, count: usize) -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            let required = std::env::var("PINTLE_TEST_ETCD").is_ok_and(|v| v == "1");
            assert!(!required, "PINTLE_TEST_ETCD=1 and no etcd binary is installed");
            eprintln!("not run: no etcd binary is installed");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("pintle-members-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("folder");
        let url = || format!("http://127.0.0.1:{}", free_port());
        let member = |n| Member { name: format!("m{n}"), client: url(), peer: url(), child: None };
        let mut cluster = Self { folder, members: (0..count).map(member).collect() };
        for at in 0..count {
            cluster.restart(at);
        }
        Some(cluster)
    }

    /// What clients connect to, by member.
    pub fn clients(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// Starts a member that does not run.
    pub fn restart(&mut self, at: usize) {
        let initial: Vec<String> = self.members.iter().map(|m| format!("{}={}", m.name, m.peer)).collect();
        let member = &mut self.members[at];
        let child = Command::new("etcd")
            .args(["--name", &member.name])
            .args(["--data-dir", &self.folder.join(&member.name).display().to_string()])
            .args(["--listen-client-urls", &member.client, "--advertise-client-urls", &member.client])
            .args(["--listen-peer-urls", &member.peer, "--initial-advertise-peer-urls", &member.peer])
            .args(["--initial-cluster", &initial.join(",")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        member.child = Some(child.expect("etcd starts"));
    }

    /// SIGKILL.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            child.kill().expect("the member is ours");
            child.wait().expect("the member is ours");
        }
    }

    /// The member that leads, when one does.
    pub async fn leader(&self) -> Option<usize> {
        for (at, member) in self.members.iter().enumerate().filter(|(_, m)| m.child.is_some()) {
            let Ok(client) = etcd_client::Client::connect([&member.client], None).await else { continue };
            let Ok(status) = client.maintenance_client().status().await else { continue };
            let id = status.header().map_or(0, |header| header.member_id());
            if status.leader() != 0 && status.leader() == id {
                return Some(at);
            }
        }
        None
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
