//! Signs what is approved and recognised.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{authority, policy};
use crate::config::Signing;
use crate::controller::{Change, Error, Informer, Key, Outcome, Reconcile, Rest, View, is_not_found};
use crate::daemon::Context;
use crate::views::{CertificateSigningRequest, WorkloadCondition};

const WORKERS: usize = 5;

struct Signer {
    rest: Rest,
    signing: Signing,
    requests: Informer<CertificateSigningRequest>,
}

/// Starts with `--cluster-signing-cert-file` and `--cluster-signing-key-file`.
pub fn start(context: &mut Context) {
    let Some(signing) = context.config.signing.clone() else {
        tracing::info!("no --cluster-signing-cert-file: certificates are not signed");
        return;
    };
    let queue = context.workers.queue("certificate");
    let requests = context.informers.of::<CertificateSigningRequest>();
    {
        let queue = queue.clone();
        requests.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                queue.add(change.object().key());
            }
        });
    }
    let controller = Arc::new(Signer { rest: context.rest.clone(), signing, requests });
    context.run(queue, controller, WORKERS);
}

#[async_trait]
impl Reconcile for Signer {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(csr) = self.requests.store().get(key) else { return Ok(Outcome::Done) };
        if !csr.has_condition("Approved")
            || csr.has_condition("Denied")
            || csr.has_condition("Failed")
            || !csr.status.certificate.is_empty()
        {
            return Ok(Outcome::Done);
        }
        let request = match policy::read(&csr) {
            Ok(request) => request,
            Err(error) => return Err(Error::Invalid(format!("{error}"))),
        };
        match policy::check(&csr.spec.signer_name, &request, &csr.spec.usages) {
            None => Ok(Outcome::Done),
            Some(Err(reason)) => self.fail(&csr, &reason).await,
            Some(Ok(())) => {
                let (signing, usages) = (self.signing.clone(), csr.spec.usages.clone());
                let seconds = csr.spec.expiration_seconds;
                // Reading files and signing with RSA are slow enough to keep off the async threads.
                let issued = tokio::task::spawn_blocking(move || {
                    authority::issue(&signing, &request, &usages, seconds, Timestamp::now())
                })
                .await
                .map_err(|e| Error::Invalid(format!("the signing task ended: {e}")))?;
                let pem = match issued {
                    Ok(pem) => pem,
                    Err(
                        error @ (authority::AuthorityError::Unsupported(_)
                        | authority::AuthorityError::Usage(_)),
                    ) => return self.fail(&csr, &error.to_string()).await,
                    Err(error) => return Err(Error::Invalid(error.to_string())),
                };
                let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
                self.write(&csr, json!({ "certificate": encoded })).await?;
                tracing::info!(
                    csr = csr.name(),
                    signer = csr.spec.signer_name,
                    user = csr.spec.username,
                    "certificate issued"
                );
                Ok(Outcome::Done)
            }
        }
    }
}

impl Signer {
    async fn fail(&self, csr: &CertificateSigningRequest, message: &str) -> Result<Outcome, Error> {
        let now = Some(Time(Timestamp::now()));
        let mut conditions = csr.status.conditions.clone();
        conditions.push(WorkloadCondition {
            type_: "Failed".into(),
            status: "True".into(),
            last_update_time: now.clone(),
            last_transition_time: now,
            reason: "SignerValidationFailure".into(),
            message: message.into(),
        });
        self.write(csr, json!({ "conditions": conditions })).await?;
        Ok(Outcome::Done)
    }

    async fn write(&self, csr: &CertificateSigningRequest, status: serde_json::Value) -> Result<(), Error> {
        let body = json!({
            "metadata": { "uid": csr.uid(), "resourceVersion": csr.metadata.resource_version },
            "status": status,
        });
        match self.rest.update_status::<CertificateSigningRequest>("", csr.name(), &body).await {
            Err(error) if !is_not_found(&error) => Err(Error::api("write the certificate")(error)),
            _ => Ok(()),
        }
    }
}
