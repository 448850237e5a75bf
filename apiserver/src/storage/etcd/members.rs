//! The members of one etcd: which of them is asked, and who is asked next when it fails.
//!
//! All calls go to one member until that fails; then the next one is tried, at once while there are members
//! that were not tried yet, with a growing pause after that. A call is made again only when that is safe: a
//! read always, a write only when the failure proves that it was never proposed (no connection, no leader).
//! What may have happened is reported and never repeated. Every call demands that the member has a leader, so
//! that one cut off from the majority says so at once instead of hanging, and its watches end.

use std::error::Error as _;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, Identity, KvClient, LeaseClient, MaintenanceClient,
    ResponseHeader, TlsOptions, WatchClient,
};
use tokio::time::Instant;

use super::{ConnectError, EtcdConfig};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest message taken from etcd. A page of a listing begins so small that it fits, see `paging`.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// gRPC codes, as numbers: the client does not export their type.
const UNAVAILABLE: i32 = 14;
const RESOURCE_EXHAUSTED: i32 = 8;

/// One member and how to call it. Clones share the connection.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) endpoint: String,
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    pub(super) lease: LeaseClient,
    pub(super) maintenance: MaintenanceClient,
}

/// What a call allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Longest wait for one answer of one member.
    pub(super) attempt: Duration,
    /// Longest wait altogether; what was sent is not waited for longer than `attempt`.
    pub(super) total: Duration,
    /// May be done twice: a read.
    pub(super) repeatable: bool,
}

/// Why no member gave an answer.
#[derive(Debug)]
pub(super) enum CallError {
    Etcd(Error),
    /// The member asked last did not answer in time.
    Silent {
        endpoint: String,
        after: Duration,
    },
}

/// See the module.
pub(super) struct Members {
    all: Vec<Member>,
    /// Counts on with every change; modulo the number of members it is who is asked.
    turn: AtomicUsize,
    /// The newest leader's term that an answer named.
    term: AtomicU64,
}

impl Members {
    /// Reads the certificates and sets up connections, which are made when they are first used.
    pub(super) async fn new(config: &EtcdConfig) -> Result<Self, ConnectError> {
        if config.servers.is_empty() {
            return Err(ConnectError::NoServers);
        }
        let tls = tls(config)?;
        let mut all = Vec::with_capacity(config.servers.len());
        for server in &config.servers {
            let mut options = ConnectOptions::new()
                .with_connect_timeout(CONNECT_TIMEOUT)
                .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT)
                .with_keep_alive_while_idle(true)
                .with_require_leader(true);
            if let Some(tls) = tls.as_ref().filter(|_| server.starts_with("https://")) {
                options = options.with_tls(tls.clone());
            }
            let client = Client::connect([server], Some(options)).await.map_err(|source| {
                ConnectError::Client { server: server.clone(), source: Box::new(source) }
            })?;
            all.push(Member {
                endpoint: server.clone(),
                kv: client.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX),
                watch: client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX),
                lease: client.lease_client(),
                maintenance: client.maintenance_client(),
            });
        }
        Ok(Self { all, turn: AtomicUsize::new(0), term: AtomicU64::new(0) })
    }

    /// Asks until there is an answer, a refusal, or no time left.
    ///
    /// Dropping the future leaves a write either done or not done.
    pub(super) async fn call<T, F>(
        &self,
        patience: Patience,
        ask: impl Fn(Member) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + patience.total;
        let mut pause = PAUSE_MIN;
        let mut tried = 0;
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            let member = self.all[turn % self.all.len()].clone();
            let endpoint = member.endpoint.clone();
            let attempt = patience.attempt.min(until.saturating_duration_since(Instant::now()));
            let (error, again) = match tokio::time::timeout(attempt, ask(member)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => match Failure::of(&error) {
                    Failure::Refused => return Err(CallError::Etcd(error)),
                    Failure::NotDone => (CallError::Etcd(error), true),
                    Failure::Unknown => (CallError::Etcd(error), patience.repeatable),
                },
                Err(_) => (CallError::Silent { endpoint, after: attempt }, patience.repeatable),
            };
            self.leave(turn);
            tried += 1;
            let rest = if tried % self.all.len() == 0 { pause } else { Duration::ZERO };
            if !again || Instant::now() + rest >= until {
                return Err(error);
            }
            if !rest.is_zero() {
                tokio::time::sleep(rest.mul_f64(rand::random_range(0.8..1.2))).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// The newest term known, 0 before the first answer.
    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    pub(super) fn learned_term(&self, header: Option<&ResponseHeader>) {
        self.term.fetch_max(header.map_or(0, ResponseHeader::raft_term), Ordering::Relaxed);
    }

    /// In the order of the flag.
    pub(super) fn all(&self) -> &[Member] {
        &self.all
    }

    /// Who failed is not asked next, unless somebody moved on already.
    fn leave(&self, turn: usize) {
        let _ = self.turn.compare_exchange(turn, turn.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// What a failure says about the call.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// An answer: asking again gives the same.
    Refused,
    /// It was certainly not done.
    NotDone,
    /// It may have been done, or may be yet.
    Unknown,
}

impl Failure {
    fn of(error: &Error) -> Self {
        let Error::GRpcStatus(status) = error else {
            // The client's own: a stream or a connection that broke.
            return Self::Unknown;
        };
        let message = status.message();
        match status.code() as i32 {
            UNAVAILABLE if never_connected(status) || message.contains("no leader") => Self::NotDone,
            UNAVAILABLE => Self::Unknown,
            RESOURCE_EXHAUSTED if message.contains("too many requests") => Self::NotDone,
            // A status that the transport made up has the transport's error behind it; a member's has none.
            _ if status.source().is_some() => Self::Unknown,
            _ => Self::Refused,
        }
    }
}

/// The request never left, because there was no connection to send it on.
fn never_connected(status: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn tls(config: &EtcdConfig) -> Result<Option<TlsOptions>, ConnectError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| ConnectError::File { path: path.clone(), source })
    };
    if !config.servers.iter().any(|server| server.starts_with("https://")) {
        return Ok(None);
    }
    let mut tls = TlsOptions::new();
    if let Some(path) = &config.ca_file {
        tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
    }
    Ok(Some(match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
        (None, None) => tls,
        _ => return Err(ConnectError::HalfIdentity),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_surely_not_done_is_repeated() {
        let status = |code: tonic::Code, text: &str| Error::GRpcStatus(tonic::Status::new(code, text));
        let failure = |code, text| Failure::of(&status(code, text));
        assert_eq!(failure(tonic::Code::Unavailable, "etcdserver: no leader"), Failure::NotDone);
        assert_eq!(failure(tonic::Code::Unavailable, "etcdserver: leader changed"), Failure::Unknown);
        assert_eq!(failure(tonic::Code::Unavailable, "etcdserver: request timed out"), Failure::Unknown);
        assert_eq!(
            failure(tonic::Code::ResourceExhausted, "etcdserver: too many requests"),
            Failure::NotDone
        );
        assert_eq!(
            failure(tonic::Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Failure::Refused
        );
        assert_eq!(
            failure(tonic::Code::OutOfRange, "required revision has been compacted"),
            Failure::Refused
        );
        let refused = tonic::ConnectError("connection refused".into());
        let refused = Error::GRpcStatus(tonic::Status::from_error(Box::new(refused)));
        assert_eq!(Failure::of(&refused), Failure::NotDone);
        let broken = std::io::Error::other("connection reset");
        let broken = Error::GRpcStatus(tonic::Status::from_error(Box::new(broken)));
        assert_eq!(Failure::of(&broken), Failure::Unknown);
    }
}
