//! The writes of a plan, in order, each conditional on what the plan saw.

use serde_json::{Map, Value, json};

use super::DeploymentController;
use super::plan::{Plan, RollBack, Write};
use super::revision::ROLLBACK_TO;
use super::status::{PROGRESSING, condition, has_deadline, set};
use crate::controller::{
    Error, Outcome, View, controller_reference, is_already_exists, is_namespace_terminating, is_not_found,
    message_of, reference,
};
use crate::views::{Deployment, DeploymentStatus, POD_TEMPLATE_HASH, ReplicaSet, Replicated};

/// Longest name of an object that is a DNS subdomain.
const NAME_MAX: usize = 253;

fn set_name(deployment: &str, hash: &str) -> String {
    let room = NAME_MAX - 1 - hash.len();
    let mut end = deployment.len().min(room);
    while !deployment.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &deployment[..end])
}

fn new_set(deployment: &Deployment, size: i32, annotations: &Value) -> Value {
    let hash = deployment.spec.template.hash(deployment.status.collision_count);
    let mut template = deployment.spec.template.to_value();
    template["metadata"]["labels"][POD_TEMPLATE_HASH] = json!(hash);
    let mut selector = json!(deployment.spec.selector);
    selector["matchLabels"][POD_TEMPLATE_HASH] = json!(hash);
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": set_name(deployment.name(), &hash),
            "namespace": deployment.namespace(),
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": {
            "replicas": size,
            "minReadySeconds": deployment.spec.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    })
}

/// What the status gains from the writes, besides what the plan computed.
#[derive(Default)]
struct Progress {
    /// The deployment's resourceVersion after an earlier write of the same plan.
    resource_version: Option<String>,
    created: Option<String>,
    /// Written with the status: there, unlike on the object itself, an annotation does not count as a new
    /// generation.
    revision: Option<String>,
}

impl DeploymentController {
    pub(super) async fn apply(&self, deployment: &Deployment, plan: Plan) -> Result<(), Error> {
        let mut progress = Progress {
            resource_version: deployment.metadata.resource_version.clone(),
            ..Progress::default()
        };
        let mut status = plan.status;
        for write in plan.writes {
            self.write(deployment, write, &mut progress).await?;
        }
        if let Some(name) = progress.created
            && has_deadline(deployment)
        {
            let message = format!("Created new replica set \"{name}\"");
            let now = jiff::Timestamp::now();
            let status = status.get_or_insert_with(|| deployment.status.clone());
            set(
                &mut status.conditions,
                condition(PROGRESSING, "True", "NewReplicaSetCreated", &message, now),
            );
        }
        if progress.revision.is_some() {
            status.get_or_insert_with(|| deployment.status.clone());
        }
        match status {
            Some(status) => {
                let revision = progress.revision.as_deref();
                self.write_status_and(deployment, &status, progress.resource_version, revision).await
            }
            None => Ok(()),
        }
    }

    async fn write(
        &self,
        deployment: &Deployment,
        write: Write,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        match write {
            Write::SyncSet { set, annotations, min_ready_seconds } => {
                let body = json!({
                    "metadata": {
                        "uid": set.uid(),
                        "annotations": annotations,
                    },
                    "spec": { "minReadySeconds": min_ready_seconds },
                });
                let what = Error::api(format!("update replica set {}", set.key()));
                self.rest.patch::<ReplicaSet>(set.namespace(), set.name(), &body).await.map_err(what)?;
                Ok(())
            }
            Write::CreateSet { size, annotations } => {
                progress.created = self.create_set(deployment, size, &json!(annotations)).await?;
                Ok(())
            }
            Write::Scale { set, size, annotations } => self.scale(deployment, &set, size, &annotations).await,
            Write::DeleteSet(set) => {
                match self.rest.delete::<ReplicaSet>(set.namespace(), set.name(), set.uid(), None).await {
                    Err(error) if !is_not_found(&error) => {
                        Err(Error::api(format!("delete replica set {}", set.key()))(error))
                    }
                    _ => Ok(()),
                }
            }
            Write::Revision(revision) => {
                progress.revision = Some(revision);
                Ok(())
            }
            Write::RollBack(rollback) => self.roll_back(deployment, rollback, progress).await,
        }
    }

    /// Patches the deployment itself, conditional on the version the plan saw.
    async fn annotate(
        &self,
        deployment: &Deployment,
        annotations: Value,
        template: Value,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let mut body = json!({ "metadata": {
            "uid": deployment.uid(),
            "resourceVersion": progress.resource_version,
            "annotations": annotations,
        }});
        if !template.is_null() {
            body["spec"] = json!({ "template": template });
        }
        let result =
            self.rest.update::<Deployment>(deployment.namespace(), deployment.name(), None, &body).await;
        let updated = result.map_err(Error::api("update the deployment"))?;
        progress.resource_version.clone_from(&updated.metadata.resource_version);
        Ok(())
    }

    async fn scale(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        size: i32,
        annotations: &[(&'static str, String); 2],
    ) -> Result<(), Error> {
        let annotations: Map<String, Value> =
            annotations.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        // Not conditional on the whole object's version, which every status write of the set moves, but on
        // what matters: the set's identity. Two sizes cannot race, because one worker has the deployment.
        let body = json!({
            "metadata": { "uid": set.uid(), "annotations": annotations },
            "spec": { "replicas": size },
        });
        let what = Error::api(format!("scale replica set {}", set.key()));
        self.rest.patch::<ReplicaSet>(set.namespace(), set.name(), &body).await.map_err(what)?;
        let from = set.replicas();
        if from != size {
            let direction = if from < size { "up" } else { "down" };
            let text = format!("Scaled {direction} replica set {} from {from} to {size}", set.name());
            self.recorder.normal(&reference(deployment), "ScalingReplicaSet", text);
        }
        Ok(())
    }

    /// Creates the set for the template. Returns its name, or `None` when it was there already.
    async fn create_set(
        &self,
        deployment: &Deployment,
        size: i32,
        annotations: &Value,
    ) -> Result<Option<String>, Error> {
        let body = new_set(deployment, size, annotations);
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match self.rest.create::<ReplicaSet>(deployment.namespace(), &body).await {
            Ok(set) => {
                if size > 0 {
                    let text = format!("Scaled up replica set {} from 0 to {size}", set.name());
                    self.recorder.normal(&reference(deployment), "ScalingReplicaSet", text);
                }
                Ok(Some(name))
            }
            Err(error) if is_already_exists(&error) => {
                self.name_taken(deployment, &name, error).await?;
                Ok(None)
            }
            Err(error) if is_namespace_terminating(&error) => Err(Error::api("create a replica set")(error)),
            Err(error) => {
                let message = format!("Failed to create new replica set \"{name}\": {}", message_of(&error));
                if has_deadline(deployment) {
                    let mut status = deployment.status.clone();
                    let now = jiff::Timestamp::now();
                    let c = condition(PROGRESSING, "False", "ReplicaSetCreateError", &message, now);
                    set(&mut status.conditions, c);
                    let version = deployment.metadata.resource_version.clone();
                    if status != deployment.status
                        && let Err(error) = self.write_status(deployment, &status, version).await
                    {
                        tracing::debug!(%error, "the failure could not be recorded in the status");
                    }
                }
                self.recorder.warning(&reference(deployment), "ReplicaSetCreateError", message);
                Err(Error::api("create a replica set")(error))
            }
        }
    }

    /// The name is in use: by the very set we want (the cache is behind), or by another template with the same
    /// hash, which a raised collision count resolves on the next try.
    async fn name_taken(&self, deployment: &Deployment, name: &str, error: kube::Error) -> Result<(), Error> {
        let existing: ReplicaSet = self
            .rest
            .get(deployment.namespace(), name)
            .await
            .map_err(Error::api(format!("read replica set {name}")))?;
        if existing.controller_uid() == Some(deployment.uid())
            && existing.spec.template.equals_ignoring_hash(&deployment.spec.template)
        {
            return Ok(());
        }
        let mut status = deployment.status.clone();
        status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
        tracing::info!(deployment = %deployment.key(), count = status.collision_count,
            "template hash collides with another replica set; trying another name");
        self.write_status(deployment, &status, deployment.metadata.resource_version.clone()).await?;
        Err(Error::api("create a replica set")(error))
    }

    async fn roll_back(
        &self,
        deployment: &Deployment,
        rollback: RollBack,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let about = reference(deployment);
        match rollback {
            RollBack::Refuse { reason, message } => {
                self.recorder.warning(&about, reason, message);
                self.annotate(deployment, json!({ ROLLBACK_TO: null }), Value::Null, progress).await
            }
            RollBack::To { set, revision, annotations } => {
                let mut annotations = json!(annotations);
                annotations[ROLLBACK_TO] = Value::Null;
                let mut template = set.spec.template.clone();
                template.labels.remove(POD_TEMPLATE_HASH);
                // The template as a whole takes the place of the other: what the old one lacks must go, which
                // a merge cannot say, so the deployment is read, changed and put back.
                self.replace_template(deployment, &annotations, &template.to_value()).await?;
                let text = format!("Rolled back deployment \"{}\" to revision {revision}", deployment.name());
                self.recorder.normal(&about, "DeploymentRollback", text);
                Err(Error::Behind("the deployment's template was rolled back".into()))
            }
        }
    }

    async fn replace_template(
        &self,
        deployment: &Deployment,
        annotations: &Value,
        template: &Value,
    ) -> Result<(), Error> {
        let path = <Deployment as kube::Resource>::url_path(&(), Some(deployment.namespace()));
        let what = || Error::api("roll the deployment back");
        let request = kube::core::Request::new(path.clone())
            .get(deployment.name(), &kube::api::GetParams::default())
            .map_err(kube::Error::BuildRequest)
            .map_err(what())?;
        let mut whole: Value = self.rest.client().request(request).await.map_err(what())?;
        if whole["metadata"]["uid"].as_str() != Some(deployment.uid()) {
            return Err(Error::Behind("the deployment was replaced".into()));
        }
        whole["spec"]["template"] = template.clone();
        for (key, value) in annotations.as_object().into_iter().flatten() {
            match (whole["metadata"]["annotations"].as_object_mut(), value) {
                (Some(map), Value::Null) => {
                    map.remove(key);
                }
                (Some(map), value) => {
                    map.insert(key.clone(), value.clone());
                }
                (None, _) => {}
            }
        }
        let body = whole.to_string().into_bytes();
        let request = kube::core::Request::new(path)
            .replace(deployment.name(), &kube::api::PostParams::default(), body)
            .map_err(kube::Error::BuildRequest)
            .map_err(what())?;
        self.rest.client().request::<Value>(request).await.map(drop).map_err(what())
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        status: &DeploymentStatus,
        resource_version: Option<String>,
    ) -> Result<(), Error> {
        self.write_status_and(deployment, status, resource_version, None).await
    }

    async fn write_status_and(
        &self,
        deployment: &Deployment,
        status: &DeploymentStatus,
        resource_version: Option<String>,
        revision: Option<&str>,
    ) -> Result<(), Error> {
        let mut body = json!({
            "metadata": { "uid": deployment.uid(), "resourceVersion": resource_version },
            "status": status,
        });
        if let Some(revision) = revision {
            body["metadata"]["annotations"] = json!({ super::revision::REVISION: revision });
        }
        match self.rest.update_status::<Deployment>(deployment.namespace(), deployment.name(), &body).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(Error::api("update the status")(error)),
        }
    }

    /// An empty selector would claim every pod of the namespace.
    pub(super) async fn refuse_to_select_all(&self, deployment: &Deployment) -> Result<Outcome, Error> {
        let text = "This deployment is selecting all pods. A non-empty selector is required.";
        self.recorder.warning(&reference(deployment), "SelectingAll", text);
        let generation = deployment.metadata.generation.unwrap_or(0);
        if deployment.status.observed_generation < generation {
            let status = DeploymentStatus { observed_generation: generation, ..deployment.status.clone() };
            let version = deployment.metadata.resource_version.clone();
            self.write_status(deployment, &status, version).await?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scale::tests::deployment;
    use super::*;

    #[test]
    fn a_new_set_is_named_and_selected_by_its_hash() {
        let d = deployment(3, json!(1), json!(1));
        let set = new_set(&d, 2, &json!({}));
        let hash = set["spec"]["selector"]["matchLabels"][POD_TEMPLATE_HASH].as_str().expect("hash");
        assert_eq!(set["metadata"]["name"], format!("d-{hash}"));
        assert_eq!(set["spec"]["template"]["metadata"]["labels"], json!({"a": "b", POD_TEMPLATE_HASH: hash}));
        assert_eq!(set["spec"]["selector"]["matchLabels"]["a"], "b");
        assert_eq!(set_name(&"x".repeat(300), "abc").len(), NAME_MAX);
    }
}
