//! Approves kubelet client certificates when a SubjectAccessReview says that the requester may have one.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::Request;
use serde_json::{Value, json};

use super::policy;
use crate::controller::{Change, Error, Informer, Key, Outcome, Reconcile, Rest, View, is_not_found};
use crate::daemon::Context;
use crate::views::{CertificateSigningRequest, WorkloadCondition};

const WORKERS: usize = 5;

struct Approver {
    rest: Rest,
    requests: Informer<CertificateSigningRequest>,
}

/// Registers the handlers and starts the workers.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("certificate_approver");
    let requests = context.informers.of::<CertificateSigningRequest>();
    {
        let queue = queue.clone();
        requests.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                queue.add(change.object().key());
            }
        });
    }
    let controller = Arc::new(Approver { rest: context.rest.clone(), requests });
    context.run(queue, controller, WORKERS);
}

/// The permissions to try, in order, with what is said when one is granted.
fn recognize(
    csr: &CertificateSigningRequest,
    request: &policy::Request,
) -> Vec<(&'static str, &'static str)> {
    if csr.spec.signer_name != policy::KUBE_APISERVER_CLIENT_KUBELET
        || policy::kubelet_client(request, &csr.spec.usages).is_err()
    {
        return Vec::new();
    }
    let mut out = Vec::new();
    if csr.spec.username == request.common_name {
        out.push((
            "selfnodeclient",
            "Auto approving self kubelet client certificate after SubjectAccessReview.",
        ));
    }
    out.push(("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."));
    out
}

#[async_trait]
impl Reconcile for Approver {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(csr) = self.requests.store().get(key) else { return Ok(Outcome::Done) };
        if csr.has_condition("Approved") || csr.has_condition("Denied") || !csr.status.certificate.is_empty()
        {
            return Ok(Outcome::Done);
        }
        let request = policy::read(&csr).map_err(|error| Error::Invalid(error.to_string()))?;
        let tried = recognize(&csr, &request);
        for (subresource, message) in &tried {
            if self.allowed(&csr, subresource).await? {
                return self.approve(&csr, message).await;
            }
        }
        if !tried.is_empty() {
            tracing::info!(
                csr = csr.name(),
                user = csr.spec.username,
                "kubelet client request recognized but not allowed"
            );
        }
        Ok(Outcome::Done)
    }
}

impl Approver {
    async fn allowed(&self, csr: &CertificateSigningRequest, subresource: &str) -> Result<bool, Error> {
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": csr.spec.username,
                "uid": csr.spec.uid,
                "groups": csr.spec.groups,
                "extra": csr.spec.extra,
                "resourceAttributes": {
                    "group": "certificates.k8s.io",
                    "resource": "certificatesigningrequests",
                    "subresource": subresource,
                    "verb": "create",
                    "version": "*",
                },
            },
        });
        let what = || Error::api("review the requester's access");
        let request = Request::new("/apis/authorization.k8s.io/v1/subjectaccessreviews")
            .create(&Default::default(), body.to_string().into_bytes())
            .map_err(kube::Error::BuildRequest)
            .map_err(what())?;
        let answer: Value = self.rest.client().request(request).await.map_err(what())?;
        Ok(answer["status"]["allowed"].as_bool().unwrap_or(false))
    }

    async fn approve(&self, csr: &CertificateSigningRequest, message: &str) -> Result<Outcome, Error> {
        let now = Some(Time(Timestamp::now()));
        let mut conditions = csr.status.conditions.clone();
        conditions.push(WorkloadCondition {
            type_: "Approved".into(),
            status: "True".into(),
            last_update_time: now.clone(),
            last_transition_time: now,
            reason: "AutoApproved".into(),
            message: message.into(),
        });
        let body = json!({
            "metadata": { "uid": csr.uid(), "resourceVersion": csr.metadata.resource_version },
            "status": { "conditions": conditions },
        });
        let result =
            self.rest.update::<CertificateSigningRequest>("", csr.name(), Some("approval"), &body).await;
        match result {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_not_found(&error) => Ok(Outcome::Done),
            Err(error) => Err(Error::api("approve the request")(error)),
        }
    }
}
