//! Deletes requests that have served their purpose or never will.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use jiff::{SignedDuration, Timestamp};
use x509_parser::prelude::FromDer;

use crate::controller::{Change, Error, Informer, Key, Outcome, Reconcile, Rest, View, is_not_found};
use crate::daemon::Context;
use crate::views::CertificateSigningRequest;

/// After an answer: issued, denied or failed.
const ANSWERED_HOURS: i64 = 1;
/// Without one.
const PENDING_HOURS: i64 = 24;

struct Cleaner {
    rest: Rest,
    requests: Informer<CertificateSigningRequest>,
}

/// Registers the handlers and starts the worker. Each request sets its own timer; nothing polls.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("certificate_cleaner");
    let requests = context.informers.of::<CertificateSigningRequest>();
    {
        let queue = queue.clone();
        requests.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                queue.add(change.object().key());
            }
        });
    }
    let controller = Arc::new(Cleaner { rest: context.rest.clone(), requests });
    context.run(queue, controller, 1);
}

/// Pure: when a request is to go.
fn due(csr: &CertificateSigningRequest) -> Option<Timestamp> {
    let hours = |from: Timestamp, hours: i64| from.checked_add(SignedDuration::from_hours(hours)).ok();
    let created = csr.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let answered = csr.status.conditions.iter().filter_map(|c| {
        let at = c.last_update_time.as_ref()?.0;
        match c.type_.as_str() {
            "Denied" | "Failed" => hours(at, ANSWERED_HOURS),
            "Approved" if !csr.status.certificate.is_empty() => hours(at, ANSWERED_HOURS),
            "Approved" => hours(at, PENDING_HOURS),
            _ => None,
        }
    });
    let pending =
        csr.status.conditions.is_empty().then_some(()).and(created).and_then(|c| hours(c, PENDING_HOURS));
    answered.chain(pending).chain(expiry(csr)).min()
}

/// When the issued certificate ends, after which nobody will fetch it.
fn expiry(csr: &CertificateSigningRequest) -> Option<Timestamp> {
    let pem = base64::engine::general_purpose::STANDARD.decode(&csr.status.certificate).ok()?;
    let block = pem::parse(pem).ok()?;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(block.contents()).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

#[async_trait]
impl Reconcile for Cleaner {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(csr) = self.requests.store().get(key) else { return Ok(Outcome::Done) };
        let Some(due) = due(&csr) else { return Ok(Outcome::Done) };
        let now = Timestamp::now();
        if due > now {
            let wait = due.duration_since(now).unsigned_abs() + Duration::from_secs(1);
            return Ok(Outcome::RequeueAfter(wait));
        }
        match self.rest.delete::<CertificateSigningRequest>("", csr.name(), csr.uid(), None).await {
            Err(error) if !is_not_found(&error) => Err(Error::api("delete an old request")(error)),
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_state_has_its_time() {
        let csr = |conditions: Value, certificate: &str| -> CertificateSigningRequest {
            serde_json::from_value(json!({
                "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"request": ""},
                "status": {"conditions": conditions, "certificate": certificate},
            }))
            .expect("csr")
        };
        let with = |type_: &str| json!([{"type": type_, "status": "True", "lastUpdateTime": "2026-01-01T02:00:00Z"}]);
        let at = |text: &str| Some(text.parse::<Timestamp>().expect("time"));
        assert_eq!(due(&csr(json!([]), "")), at("2026-01-02T00:00:00Z"));
        assert_eq!(due(&csr(with("Denied"), "")), at("2026-01-01T03:00:00Z"));
        assert_eq!(due(&csr(with("Approved"), "")), at("2026-01-02T02:00:00Z"));
        assert_eq!(due(&csr(with("Approved"), "eA==")), at("2026-01-01T03:00:00Z"));
    }
}
