//! Feature gates: which there are at this API level, what they are by default, and what `--feature-gates` says.
//!
//! The table is data ([`DATA`]): a line per gate with its stage, its default, whether that is final, and the
//! gates it needs. A room that depends on a gate asks [`Features::enabled`]; nothing is global.
//!
//! Upstream: `component-base/featuregate`, `pkg/features/kube_features.go`,
//! `apiserver/pkg/features/kube_features.go`.

use std::collections::HashMap;

/// `Name Stage on|off [locked] [<Needed ...]`.
const DATA: &str = include_str!("data/gates.txt");

/// How far a feature has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Alpha,
    Beta,
    Ga,
    Deprecated,
}

struct Gate {
    name: &'static str,
    stage: Stage,
    default: bool,
    locked: bool,
    needs: Vec<&'static str>,
}

/// What is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    #[error("missing bool value for {0}")]
    NoValue(String),
    #[error("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    NotBool { name: String, value: String },
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
    #[error("cannot set feature gate {name} to {value}, feature is locked to {}", !value)]
    Locked { name: String, value: bool },
    #[error("{name} is enabled, but depends on features that are disabled: [{}]", needs.join(" "))]
    Needs { name: &'static str, needs: Vec<&'static str> },
}

/// The gates as they are set.
#[derive(Debug, Clone)]
pub struct Features {
    enabled: HashMap<&'static str, bool>,
}

impl Default for Features {
    fn default() -> Self {
        Self { enabled: gates().map(|gate| (gate.name, gate.default)).collect() }
    }
}

impl Features {
    /// Reads `name=bool` settings; a later one of a name wins.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn parse(settings: &[String]) -> Result<Self, Vec<FeatureError>> {
        let gates: Vec<Gate> = gates().collect();
        let (mut wanted, mut errors) = (Vec::new(), Vec::new());
        for setting in settings.iter().map(|s| s.trim()).filter(|s| !s.is_empty()) {
            match read(setting) {
                Ok((name, value)) => wanted.push((name, value)),
                Err(error) => errors.push(error),
            }
        }
        let mut features = Self::default();
        for (all, stage) in [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)] {
            let Some((_, value)) = wanted.iter().rev().find(|(name, _)| *name == all) else { continue };
            for gate in gates.iter().filter(|gate| gate.stage == stage && !gate.locked) {
                features.enabled.insert(gate.name, *value);
            }
        }
        for (name, value) in wanted.into_iter().filter(|(name, _)| !matches!(*name, "AllAlpha" | "AllBeta")) {
            match gates.iter().find(|gate| gate.name == name) {
                None => errors.push(FeatureError::Unknown(name.to_owned())),
                Some(gate) if gate.locked && gate.default != value => {
                    errors.push(FeatureError::Locked { name: name.to_owned(), value });
                }
                Some(gate) => {
                    features.enabled.insert(gate.name, value);
                }
            }
        }
        for gate in gates.iter().filter(|gate| features.enabled(gate.name)) {
            let needs: Vec<_> = gate.needs.iter().copied().filter(|need| !features.enabled(need)).collect();
            if !needs.is_empty() {
                errors.push(FeatureError::Needs { name: gate.name, needs });
            }
        }
        if errors.is_empty() { Ok(features) } else { Err(errors) }
    }

    /// One more setting, whatever the gate needs: for tests of what a gate does.
    #[cfg(test)]
    pub fn with(mut self, name: &'static str, value: bool) -> Self {
        self.enabled.insert(name, value);
        self
    }

    /// Every gate: its name, the stage as metrics name it, whether it is on.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        gates().map(|gate| (gate.name, stage_name(gate.stage), self.enabled(gate.name)))
    }

    /// False also for a gate that does not exist.
    pub fn enabled(&self, name: &str) -> bool {
        self.enabled.get(name).copied().unwrap_or(false)
    }
}

/// How a stage is named in metrics.
fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Alpha => "ALPHA",
        Stage::Beta => "BETA",
        Stage::Ga => "",
        Stage::Deprecated => "DEPRECATED",
    }
}

fn read(setting: &str) -> Result<(&str, bool), FeatureError> {
    let Some((name, value)) = setting.split_once('=') else {
        return Err(FeatureError::NoValue(setting.to_owned()));
    };
    let (name, value) = (name.trim(), value.trim());
    match parse_bool(value) {
        // A component's name may stand before the gate's.
        Some(value) => Ok((name.strip_prefix("kube:").unwrap_or(name), value)),
        None => Err(FeatureError::NotBool { name: name.to_owned(), value: value.to_owned() }),
    }
}

/// The spellings that Go's `strconv.ParseBool` takes.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn gates() -> impl Iterator<Item = Gate> {
    DATA.lines().map(|line| {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or("");
        let stage = match words.next() {
            Some("Alpha") => Stage::Alpha,
            Some("Beta") => Stage::Beta,
            Some("GA") => Stage::Ga,
            _ => Stage::Deprecated,
        };
        let default = words.next() == Some("on");
        let (mut locked, mut needs) = (false, Vec::new());
        for word in words {
            match word.strip_prefix('<') {
                Some(need) => needs.push(need),
                None => locked |= word == "locked",
            }
        }
        Gate { name, stage, default, locked, needs }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Features, String> {
        let settings: Vec<String> = text.split(',').map(str::to_owned).collect();
        Features::parse(&settings)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn defaults_are_upstreams_and_whole() {
        let features = parse("").expect("no setting");
        assert!(features.enabled("WatchList"));
        assert!(!features.enabled("GenericWorkload"));
        assert!(gates().count() > 200);
        for gate in gates() {
            for need in &gate.needs {
                assert!(gates().any(|g| g.name == *need), "{} needs {need}", gate.name);
            }
        }
    }

    #[test]
    fn settings_are_taken_or_refused() {
        assert!(parse("GenericWorkload=true").expect("alpha").enabled("GenericWorkload"));
        assert!(parse("AllAlpha=true,GenericWorkload=false").is_err_and(|e| e.contains("GangScheduling")));
        assert_eq!(parse("Nothing=true").unwrap_err(), "unrecognized feature gate: Nothing");
        assert_eq!(parse("WatchList").unwrap_err(), "missing bool value for WatchList");
        assert_eq!(
            parse("DynamicResourceAllocation=false").unwrap_err().split(';').next(),
            Some("cannot set feature gate DynamicResourceAllocation to false, feature is locked to true")
        );
        assert_eq!(
            parse("GangScheduling=true").unwrap_err(),
            "GangScheduling is enabled, but depends on features that are disabled: [GenericWorkload]"
        );
    }
}
