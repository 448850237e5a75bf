//! Which level of the Pod Security Standards, at which version, a namespace asks for by its labels.

use std::collections::BTreeMap;
use std::fmt;

use common::status::FieldErrors;

/// How strict, from what allows everything to what allows least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        [Self::Privileged, Self::Baseline, Self::Restricted]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or("must be one of privileged, baseline, restricted")
    }
}

/// The minor version of Kubernetes whose rules count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "must be \"latest\" or \"v1.x\"";
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let minor = text.strip_prefix("v1.").ok_or(WRONG)?;
        let padded = minor.len() > 1 && minor.starts_with('0');
        if padded || !minor.bytes().all(|b| b.is_ascii_digit()) {
            return Err(WRONG);
        }
        minor.parse().map(Self::Minor).map_err(|_| WRONG)
    }
}

/// Shown as `restricted:latest`, `baseline:v1.24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Latest => write!(f, "{}:latest", self.level.as_str()),
            Version::Minor(minor) => write!(f, "{}:v1.{minor}", self.level.as_str()),
        }
    }
}

impl LevelVersion {
    const PRIVILEGED: Self = Self { level: Level::Privileged, version: Version::Latest };

    /// The same in effect: versions of a level that allows everything do not differ.
    fn equivalent(self, other: Self) -> bool {
        self == other || (self.level == Level::Privileged && other.level == Level::Privileged)
    }

    /// Reads `level` and `version` over what `self` has. Errors are told by key.
    ///
    /// What cannot be read counts as the newest version, and as `on_error` for a level.
    fn read(
        &mut self,
        mode: &str,
        on_error: Level,
        mut value_of: impl FnMut(&str) -> Option<String>,
        mut wrong: impl FnMut(&str, &str, &str),
    ) -> Option<Level> {
        let mut said = None;
        if let Some(text) = value_of(mode) {
            match Level::parse(&text) {
                Ok(level) => {
                    self.level = level;
                    said = Some(level);
                }
                Err(why) => {
                    self.level = on_error;
                    wrong(mode, &text, why);
                }
            }
        }
        let key = format!("{mode}-version");
        if let Some(text) = value_of(&key) {
            self.version = Version::parse(&text).unwrap_or_else(|why| {
                wrong(&key, &text, why);
                Version::Latest
            });
        }
        said
    }
}

/// What is refused, what is noted, what the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            enforce: LevelVersion::PRIVILEGED,
            audit: LevelVersion::PRIVILEGED,
            warn: LevelVersion::PRIVILEGED,
        }
    }
}

/// The labels' prefix, and that of audit annotations.
pub const PREFIX: &str = "pod-security.kubernetes.io/";

impl Policy {
    /// The policy of a namespace with these labels. There is always one: a label that cannot be read counts as
    /// restricted for enforcing and as privileged for audit and warnings, and is told as an error.
    pub fn of(labels: &BTreeMap<String, String>, defaults: Self) -> (Self, FieldErrors) {
        let mut policy = defaults;
        let mut errors = FieldErrors::new();
        let value_of = |key: &str| labels.get(&format!("{PREFIX}{key}")).cloned();
        let mut wrong = |key: &str, value: &str, why: &str| {
            errors.invalid(format!("metadata.labels[{PREFIX}{key}]"), value, why);
        };
        let enforced = policy.enforce.read("enforce", Level::Restricted, value_of, &mut wrong);
        policy.audit.read("audit", Level::Privileged, value_of, &mut wrong);
        policy.warn.read("warn", Level::Privileged, value_of, &mut wrong);
        // Who asks for a strict level is warned about it too, unless a label says otherwise.
        if let Some(level) = enforced
            && value_of("warn").is_none()
            && level > policy.warn.level
        {
            policy.warn.level = level;
            if value_of("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// The policy that a configuration's `defaults` give to namespaces without labels. `wrong` is told the key,
    /// the value and the reason of what cannot be read.
    pub fn from_defaults(
        defaults: &BTreeMap<String, String>,
        mut wrong: impl FnMut(&str, &str, &str),
    ) -> Self {
        let mut policy = Self::default();
        let value_of = |key: &str| defaults.get(key).cloned();
        policy.enforce.read("enforce", Level::Restricted, value_of, &mut wrong);
        policy.audit.read("audit", Level::Restricted, value_of, &mut wrong);
        policy.warn.read("warn", Level::Restricted, value_of, &mut wrong);
        policy
    }

    pub fn fully_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|mode| mode.level == Level::Privileged)
    }

    pub fn equivalent(&self, other: &Self) -> bool {
        self.enforce.equivalent(other.enforce)
            && self.audit.equivalent(other.audit)
            && self.warn.equivalent(other.warn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[(&str, &str)]) -> (Policy, Vec<String>) {
        let labels = labels.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect();
        let (policy, errors) = Policy::of(&labels, Policy::default());
        (policy, errors.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn warnings_follow_a_stricter_enforcement() {
        let (policy, errors) = of(&[("enforce", "baseline"), ("enforce-version", "v1.30")]);
        assert!(errors.is_empty());
        assert_eq!(policy.warn.to_string(), "baseline:v1.30");
        assert_eq!(policy.audit.to_string(), "privileged:latest");
        let (policy, _) = of(&[("enforce", "restricted"), ("warn", "privileged")]);
        assert_eq!(policy.warn.level, Level::Privileged);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_fails_safe() {
        let (policy, errors) = of(&[
            ("enforce", "strict"),
            ("audit", "none"),
            ("warn-version", "1.2"),
            ("audit-version", "v1.02"),
        ]);
        assert_eq!(policy.enforce.to_string(), "restricted:latest");
        assert_eq!(policy.audit.level, Level::Privileged);
        assert_eq!(errors.len(), 4);
        assert_eq!(
            errors[0],
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted"
        );
    }
}
