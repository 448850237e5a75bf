//! EventRateLimit: how many events a second the server, a namespace, a user or a source may write.
//!
//! Each limit is a set of token buckets by key. Buckets that were not used for longest are forgotten beyond the
//! limit's cache size, and begin full again.
//!
//! Answers to `plugin/pkg/admission/eventratelimit`.

use std::collections::HashMap;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::configuration::{ConfigurationError, Configurations};
use super::{Attributes, Operation, Plugin};
use crate::registry::tree::{field, text};

const NAME: &str = "EventRateLimit";
const BUCKETS_DEFAULT: usize = 4096;
const TYPES: [&str; 4] = ["Namespace", "Server", "SourceAndObject", "User"];

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    limits: Vec<LimitFile>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitFile {
    #[serde(default, rename = "type")]
    by: String,
    #[serde(default)]
    qps: i32,
    #[serde(default)]
    burst: i32,
    #[serde(default)]
    cache_size: i32,
}

/// What shares a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

struct Limit {
    by: By,
    per_second: f64,
    burst: f64,
    buckets_max: usize,
    buckets: Mutex<Buckets>,
}

/// Buckets by key, each with the turn at which it was last used.
#[derive(Default)]
struct Buckets {
    turn: u64,
    by_key: HashMap<String, (u64, Bucket)>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// The limits of the configuration.
pub struct EventRateLimit {
    limits: Vec<Limit>,
}

impl EventRateLimit {
    /// Reads the plugin's configuration; nothing is read, and nothing limited, unless the plugin is `enabled`.
    ///
    /// # Errors
    /// When there is no limit, or one that cannot be.
    pub fn new(all: &Configurations, enabled: bool) -> Result<Self, ConfigurationError> {
        if !enabled {
            return Ok(Self { limits: Vec::new() });
        }
        let file: File = all.of(NAME, "Configuration", &["eventratelimit.admission.k8s.io/v1alpha1"])?;
        let errors = wrong(&file);
        if !errors.is_empty() {
            let reason = errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(ConfigurationError::Plugin { plugin: NAME.to_owned(), reason });
        }
        Ok(Self { limits: file.limits.iter().map(Limit::new).collect() })
    }
}

fn wrong(file: &File) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if file.limits.is_empty() {
        errors.invalid("limits", Value::Null, "must not be empty");
    }
    for (i, limit) in file.limits.iter().enumerate() {
        let here = format!("limits[{i}]");
        if !TYPES.contains(&limit.by.as_str()) {
            errors.not_supported(format!("{here}.type"), &limit.by, &TYPES);
        }
        for (key, value) in [("burst", limit.burst), ("qps", limit.qps)] {
            if value <= 0 {
                errors.invalid(format!("{here}.{key}"), value, "must be positive");
            }
        }
        if limit.by != "Server" && limit.cache_size < 0 {
            errors.invalid(format!("{here}.cacheSize"), limit.cache_size, "must not be negative");
        }
    }
    errors
}

impl Limit {
    fn new(file: &LimitFile) -> Self {
        let by = match file.by.as_str() {
            "Namespace" => By::Namespace,
            "User" => By::User,
            "SourceAndObject" => By::SourceAndObject,
            _ => By::Server,
        };
        let buckets_max = match usize::try_from(file.cache_size) {
            _ if by == By::Server => 1,
            Ok(size) if size > 0 => size,
            _ => BUCKETS_DEFAULT,
        };
        Self {
            by,
            per_second: f64::from(file.qps),
            burst: f64::from(file.burst),
            buckets_max,
            buckets: Mutex::default(),
        }
    }

    fn key(&self, attributes: &Attributes<'_>) -> String {
        match self.by {
            By::Server => String::new(),
            By::Namespace => attributes.namespace.clone(),
            By::User => attributes.ctx.user.name.clone(),
            By::SourceAndObject => attributes.object.as_deref().map(source_and_object).unwrap_or_default(),
        }
    }

    /// Takes a token from the key's bucket; false when it has none.
    fn accepts(&self, key: &str) -> bool {
        let now = Instant::now();
        let mut buckets = self.buckets.lock();
        buckets.turn += 1;
        let turn = buckets.turn;
        if !buckets.by_key.contains_key(key) {
            if buckets.by_key.len() >= self.buckets_max {
                buckets.forget_oldest();
            }
            buckets.by_key.insert(key.to_owned(), (turn, Bucket { tokens: self.burst, filled: now }));
        }
        let Some((used, bucket)) = buckets.by_key.get_mut(key) else { return true };
        *used = turn;
        let gained = now.duration_since(bucket.filled).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + gained).min(self.burst);
        bucket.filled = now;
        let accepted = bucket.tokens >= 1.0;
        if accepted {
            bucket.tokens -= 1.0;
        }
        accepted
    }
}

impl Buckets {
    fn forget_oldest(&mut self) {
        let oldest = self.by_key.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.by_key.remove(&key);
        }
    }
}

fn source_and_object(event: &Value) -> String {
    let (source, about) = (field(event, "source"), field(event, "involvedObject"));
    let source = ["component", "host"].map(|key| text(source, key));
    let about = ["kind", "namespace", "name", "uid", "apiVersion"].map(|key| text(about, key));
    [source.as_slice(), about.as_slice()].concat().concat()
}

#[async_trait]
impl Plugin for EventRateLimit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    /// 429 when a limit is reached. Events of the group events.k8s.io are not counted, as upstream.
    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let about = attributes.resource.group.is_empty() && attributes.resource.resource == "events";
        if !about || attributes.dry_run {
            return Ok(());
        }
        let mut reached = Vec::new();
        for limit in &self.limits {
            let key = limit.key(attributes);
            if !limit.accepts(&key) {
                reached.push(format!("limit reached on type {:?} for key {key}", limit.by));
            }
        }
        let why = match reached.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        Err(Status::failure(
            429,
            common::status::reason::TOO_MANY_REQUESTS,
            format!("Too many requests: {why}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::admission::testing::{attributes, context};

    fn plugin(limits: Value) -> EventRateLimit {
        let file: File = serde_json::from_value(json!({"limits": limits})).expect("a configuration");
        assert!(wrong(&file).is_empty());
        EventRateLimit { limits: file.limits.iter().map(Limit::new).collect() }
    }

    async fn write(plugin: &EventRateLimit, about: &str) -> Option<String> {
        let ctx = context();
        let mut event = json!({"metadata": {"name": "e"}, "source": {"component": "c"},
            "involvedObject": {"kind": "Pod", "name": about}});
        let attributes = attributes(&ctx, ("", "events"), &mut event, None);
        plugin.validate(&attributes).await.err().map(|status| {
            assert_eq!(status.code, 429);
            status.message
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_fills() {
        let plugin = plugin(json!([{"type": "Server", "qps": 2, "burst": 3}]));
        for _ in 0..3 {
            assert_eq!(write(&plugin, "a").await, None);
        }
        let told = "Too many requests: limit reached on type Server for key ";
        assert_eq!(write(&plugin, "a").await.as_deref(), Some(told));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(write(&plugin, "a").await, None);
        assert!(write(&plugin, "a").await.is_some());
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..3 {
            assert_eq!(write(&plugin, "a").await, None);
        }
        assert!(write(&plugin, "a").await.is_some(), "never more than the burst");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_have_buckets_of_their_own_and_the_oldest_is_forgotten() {
        let plugin = plugin(json!([{"type": "SourceAndObject", "qps": 1, "burst": 1, "cacheSize": 2}]));
        assert_eq!(write(&plugin, "a").await, None);
        assert_eq!(
            write(&plugin, "a").await.as_deref(),
            Some("Too many requests: limit reached on type SourceAndObject for key cPoda")
        );
        assert_eq!(write(&plugin, "b").await, None);
        assert!(write(&plugin, "a").await.is_some());
        assert_eq!(write(&plugin, "c").await, None, "takes the place of b");
        assert!(write(&plugin, "a").await.is_some());
        assert_eq!(write(&plugin, "b").await, None, "begins full again");
    }

    #[tokio::test(start_paused = true)]
    async fn every_limit_that_is_reached_is_told() {
        let plugin = plugin(json!([{"type": "Namespace", "qps": 1, "burst": 1},
            {"type": "User", "qps": 1, "burst": 1}]));
        assert_eq!(write(&plugin, "a").await, None);
        assert_eq!(
            write(&plugin, "a").await.as_deref(),
            Some(
                "Too many requests: [limit reached on type Namespace for key n, limit reached on type User for key ]"
            )
        );
    }

    #[test]
    fn limits_that_cannot_be_are_told() {
        let told = |limits: Value| {
            let file: File = serde_json::from_value(json!({"limits": limits})).expect("a configuration");
            wrong(&file).0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(json!([])), ["limits: Invalid value: null: must not be empty"]);
        assert_eq!(
            told(json!([{"type": "Pod", "qps": 1, "burst": 0, "cacheSize": -1}])),
            [
                "limits[0].type: Unsupported value: \"Pod\": supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\"",
                "limits[0].burst: Invalid value: 0: must be positive",
                "limits[0].cacheSize: Invalid value: -1: must not be negative",
            ]
        );
        assert!(EventRateLimit::new(&Configurations::default(), true).is_err());
        assert!(EventRateLimit::new(&Configurations::default(), false).is_ok());
    }
}
