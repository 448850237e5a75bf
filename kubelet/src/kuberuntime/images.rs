//! Makes sure an image is there: pull policy, credentials, back-off, one line of upstream's events each.
//!
//! Answers to upstream's `pkg/kubelet/images`.

use std::time::Instant;

use base64::Engine as _;
use common::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Secret};
use kube::Api;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{Runtime, StartError};
use crate::cri::v1;
use crate::pod;

/// Pulls at one time when they are not serialized.
pub const PARALLEL_PULLS_MAX: usize = 5;

/// Gates pulls.
pub struct PullSlots(Semaphore);

impl PullSlots {
    pub fn new(parallel: usize) -> Self {
        Self(Semaphore::new(parallel.clamp(1, PARALLEL_PULLS_MAX)))
    }
}

/// An image that is on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentImage {
    /// What to create the container from.
    pub reference: String,
    pub uid: Option<i64>,
    pub user: String,
}

/// Adds `:latest` where there is neither tag nor digest.
///
/// # Errors
/// `InvalidImageName`.
pub fn normalize(image: &str) -> Result<String, StartError> {
    let invalid = || {
        StartError::new(
            "InvalidImageName",
            format!(
                "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: invalid reference format"
            ),
        )
    };
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let slash = name.rfind('/').map_or(0, |i| i + 1);
    let (path, tag) = match name[slash..].find(':') {
        Some(i) => (&name[..slash + i], Some(&name[slash + i + 1..])),
        None => (name, None),
    };
    let mut parts = path.split('/');
    let first = parts.next().unwrap_or("");
    let has_host = path.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let component = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && text.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric())
    };
    let host_ok = has_host && first.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if !(if has_host { host_ok } else { component(first) }) || !parts.all(component) {
        return Err(invalid());
    }
    let tag_ok = |t: &str| {
        (1..=128).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    if tag.is_some_and(|t| !tag_ok(t)) {
        return Err(invalid());
    }
    if let Some(digest) = digest {
        let hex = digest.split_once(':').map_or("", |(_, h)| h);
        if hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

/// The policy when a manifest names none.
pub fn default_policy(image: &str) -> &'static str {
    match normalize(image) {
        Ok(full) if full.ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

impl Runtime {
    /// Pulls when the policy says so.
    pub async fn ensure_image(
        &self,
        pod: &Pod,
        container: &Container,
        about: &ObjectReference,
        sandbox_config: &v1::PodSandboxConfig,
    ) -> Result<PresentImage, StartError> {
        let stated = container.image.as_deref().unwrap_or("");
        let image = match normalize(stated) {
            Ok(image) => image,
            Err(error) => {
                self.recorder.event(about, EventType::Warning, "InspectFailed", error.message.clone());
                return Err(error);
            }
        };
        let policy = container.image_pull_policy.as_deref().unwrap_or_else(|| default_policy(stated));
        let present = self.present(&image).await.map_err(|e| {
            let text = format!("Failed to inspect image {image:?}: {e}");
            self.recorder.event(about, EventType::Warning, "InspectFailed", text.clone());
            StartError::new("ImageInspectError", text)
        })?;
        match (policy, present) {
            ("IfNotPresent" | "Never", Some(found)) => {
                let text = format!(
                    "Container image {stated:?} already present on machine and can be accessed by the pod"
                );
                self.recorder.event(about, EventType::Normal, "Pulled", text);
                return Ok(found);
            }
            ("Never", None) => {
                let text = format!("Container image {stated:?} is not present with pull policy of Never");
                self.recorder.event(about, EventType::Warning, "ErrImageNeverPull", text.clone());
                return Err(StartError::new("ErrImageNeverPull", text));
            }
            _ => {}
        }
        let key = format!("{}_{image}", pod::uid(pod));
        let now = Timestamp::now();
        let last = self.pull_failures.lock().get(&key).cloned();
        if let Some((since, error)) = last
            && let Some(until) = self.pull_backoff.lock().wait_until(&key, since, now)
        {
            let text = format!("Back-off pulling image {image:?}");
            self.recorder.event(about, EventType::Normal, "BackOff", text.clone());
            return Err(StartError {
                retry_at: Some(until),
                ..StartError::new("ImagePullBackOff", format!("{text}: {error}"))
            });
        }
        self.recorder.event(about, EventType::Normal, "Pulling", format!("Pulling image {stated:?}"));
        let result = self.pull(pod, &image, sandbox_config).await;
        match result {
            Ok(text) => {
                self.pull_failures.lock().remove(&key);
                self.recorder.event(about, EventType::Normal, "Pulled", text);
            }
            Err(message) => {
                self.recorder.event(
                    about,
                    EventType::Warning,
                    "Failed",
                    format!("Failed to pull image {image:?}: {message}"),
                );
                self.recorder.event(about, EventType::Warning, "Failed", "Error: ErrImagePull");
                let now = Timestamp::now();
                let mut failures = self.pull_failures.lock();
                if failures.len() >= super::PULL_FAILURES_MAX {
                    failures.clear();
                }
                failures.insert(key.clone(), (now, format!("ErrImagePull: {message}")));
                drop(failures);
                let mut backoff = self.pull_backoff.lock();
                backoff.next(&key, now);
                let retry_at = now.checked_add(backoff.get(&key)).ok();
                return Err(StartError { retry_at, ..StartError::new("ErrImagePull", message) });
            }
        }
        match self.present(&image).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => {
                Err(StartError::new("ErrImagePull", format!("image {image:?} is gone after its pull")))
            }
            Err(e) => Err(StartError::new("ImageInspectError", e.to_string())),
        }
    }

    async fn present(&self, image: &str) -> Result<Option<PresentImage>, crate::cri::CriError> {
        let spec = v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() };
        let request = v1::ImageStatusRequest { image: Some(spec), verbose: false };
        let found = self.cri.image_status(request).await?.image;
        Ok(found.map(|i| PresentImage { reference: i.id, uid: i.uid.map(|u| u.value), user: i.username }))
    }

    /// Pulls with each matching credential, then without. The text is the `Pulled` event's.
    async fn pull(&self, pod: &Pod, image: &str, sandbox: &v1::PodSandboxConfig) -> Result<String, String> {
        let credentials = self.credentials(pod, image).await;
        let started = Instant::now();
        let _slot = self.pull_slots.0.acquire().await.map_err(|e| e.to_string())?;
        let waited = Instant::now();
        let mut last = String::new();
        let tries: Vec<Option<v1::AuthConfig>> =
            if credentials.is_empty() { vec![None] } else { credentials.into_iter().map(Some).collect() };
        for auth in tries {
            let request = v1::PullImageRequest {
                image: Some(v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() }),
                auth,
                sandbox_config: Some(sandbox.clone()),
            };
            match self.cri.pull_image(request).await {
                Ok(reference) => {
                    let spec = v1::ImageSpec { image: reference, ..v1::ImageSpec::default() };
                    let request = v1::ImageStatusRequest { image: Some(spec), verbose: false };
                    let size =
                        self.cri.image_status(request).await.ok().and_then(|r| r.image).map_or(0, |i| i.size);
                    return Ok(format!(
                        "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {size} bytes.",
                        seconds(waited.elapsed()),
                        seconds(started.elapsed()),
                    ));
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    async fn credentials(&self, pod: &Pod, image: &str) -> Vec<v1::AuthConfig> {
        let Some(client) = &self.client else { return Vec::new() };
        let api: Api<Secret> = Api::namespaced(client.clone(), pod::namespace(pod));
        let mut out = Vec::new();
        for reference in pod::spec(pod).image_pull_secrets.iter().flatten() {
            match api.get(&reference.name).await {
                Ok(secret) => out.extend(auth_from_secret(&secret, image)),
                Err(_) => {
                    let text = format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    );
                    self.recorder.event(
                        &pod::reference(pod),
                        EventType::Warning,
                        "FailedToRetrieveImagePullSecret",
                        text,
                    );
                }
            }
        }
        out
    }
}

/// Durations as Go prints milliseconds and seconds.
fn seconds(d: std::time::Duration) -> String {
    if d.as_secs() == 0 { format!("{}ms", d.as_millis()) } else { format!("{:.3}s", d.as_secs_f64()) }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

/// The credential of a pull secret for an image's registry.
fn auth_from_secret(secret: &Secret, image: &str) -> Option<v1::AuthConfig> {
    let data = secret.data.as_ref()?;
    let auths = if let Some(raw) = data.get(".dockerconfigjson") {
        serde_json::from_slice::<DockerConfig>(&raw.0).ok()?.auths
    } else {
        serde_json::from_slice(&data.get(".dockercfg")?.0).ok()?
    };
    let registry = registry_of(image);
    let auth = auths
        .into_iter()
        .find(|(key, _)| {
            host_of(key) == registry || registry == "docker.io" && host_of(key).ends_with("docker.io")
        })?
        .1;
    let (username, password) = if auth.auth.is_empty() {
        (auth.username, auth.password)
    } else {
        let raw = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim()).ok()?;
        let text = String::from_utf8(raw).ok()?;
        let (user, password) = text.split_once(':')?;
        (user.to_owned(), password.to_owned())
    };
    Some(v1::AuthConfig { username, password, ..v1::AuthConfig::default() })
}

fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (image, want) in [
            ("busybox", Some("busybox:latest")),
            ("a/b:1", Some("a/b:1")),
            ("h:5000/b", Some("h:5000/b:latest")),
            ("Upper", None),
            ("", None),
            ("a//b", None),
            ("a:", None),
            ("a b", None),
            ("localhost/pause:lab", Some("localhost/pause:lab")),
        ] {
            assert_eq!(normalize(image).ok().as_deref(), want, "{image}");
        }
        assert_eq!(default_policy("a"), "Always");
        assert_eq!(default_policy("a:1"), "IfNotPresent");
    }

    #[test]
    fn pull_secrets() {
        let secret = |text: &str| Secret {
            data: Some([(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(text.into()))].into()),
            ..Secret::default()
        };
        let s = secret(r#"{"auths":{"https://h:5000/v1/":{"auth":"dTpwOng="}}}"#);
        let auth = auth_from_secret(&s, "h:5000/a:1").unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "p:x"));
        assert!(auth_from_secret(&s, "other/a").is_none());
        assert!(auth_from_secret(&secret("{"), "h:5000/a").is_none());
    }
}
