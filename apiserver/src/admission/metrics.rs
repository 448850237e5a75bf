//! How long admission takes, under upstream's names (`k8s.io/apiserver/pkg/admission/metrics`).
//!
//! A write passes some twenty plugins twice, so a series is looked up once and the end of one plugin is the
//! beginning of the next: a clock read and an observation for each.

use std::sync::OnceLock;
use std::time::Instant;

use prometheus::{Histogram, HistogramOpts, HistogramVec, Registry};

use super::Operation;

const BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// Which half of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Admit,
    Validate,
}

const STEPS: usize = 2;
const OPERATIONS: usize = 4;
const OUTCOMES: usize = 2;

impl Step {
    fn label(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }
}

fn label(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// The series of a chain and of each of its plugins.
pub(super) struct Durations {
    steps: Series,
    plugins: Vec<Series>,
}

/// All series of one plugin, or of the whole chain.
struct Series {
    vec: HistogramVec,
    plugin: Option<&'static str>,
    known: [OnceLock<Histogram>; STEPS * OPERATIONS * OUTCOMES],
}

impl Series {
    fn new(vec: &HistogramVec, plugin: Option<&'static str>) -> Self {
        Self { vec: vec.clone(), plugin, known: Default::default() }
    }

    fn observe(&self, step: Step, operation: Operation, rejected: bool, seconds: f64) {
        let place = (step as usize * OPERATIONS + operation as usize) * OUTCOMES + usize::from(rejected);
        let find = || {
            let labels = [step.label(), label(operation), if rejected { "true" } else { "false" }];
            match self.plugin {
                Some(name) => self.vec.with_label_values(&[name, labels[0], labels[1], labels[2]]),
                None => self.vec.with_label_values(&labels),
            }
        };
        self.known[place].get_or_init(find).observe(seconds);
    }
}

impl Durations {
    /// # Errors
    /// When a name is taken.
    pub(super) fn new(
        registry: &Registry,
        plugins: impl Iterator<Item = &'static str>,
    ) -> Result<Self, prometheus::Error> {
        let histogram =
            |name: &str, help: &str, labels: &[&str]| -> Result<HistogramVec, prometheus::Error> {
                let options = HistogramOpts::new(name, help).buckets(BUCKETS.into());
                let vec = HistogramVec::new(options, labels)?;
                registry.register(Box::new(vec.clone()))?;
                Ok(vec)
            };
        let steps = histogram(
            "apiserver_admission_step_admission_duration_seconds",
            "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
            &["type", "operation", "rejected"],
        )?;
        let controllers = histogram(
            "apiserver_admission_controller_admission_duration_seconds",
            "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
            &["name", "type", "operation", "rejected"],
        )?;
        let plugins = plugins.map(|name| Series::new(&controllers, Some(name))).collect();
        Ok(Self { steps: Series::new(&steps, None), plugins })
    }
}

/// Times one step of one write.
pub(super) struct Clock<'d> {
    durations: Option<&'d Durations>,
    step: Step,
    operation: Operation,
    begun: Instant,
    last: Instant,
}

impl<'d> Clock<'d> {
    pub(super) fn start(durations: Option<&'d Durations>, step: Step, operation: Operation) -> Self {
        let now = Instant::now();
        Self { durations, step, operation, begun: now, last: now }
    }

    /// The plugin at this place has spoken.
    pub(super) fn lap(&mut self, plugin: usize, rejected: bool) {
        let Some(series) = self.durations.and_then(|d| d.plugins.get(plugin)) else { return };
        let before = std::mem::replace(&mut self.last, Instant::now());
        let seconds = self.last.duration_since(before).as_secs_f64();
        series.observe(self.step, self.operation, rejected, seconds);
    }

    pub(super) fn end(self, rejected: bool) {
        if let Some(durations) = self.durations {
            let seconds = self.last.duration_since(self.begun).as_secs_f64();
            durations.steps.observe(self.step, self.operation, rejected, seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_a_place_of_its_own() {
        let registry = Registry::new();
        let durations = Durations::new(&registry, ["A", "B"].into_iter()).expect("fresh names");
        for step in [Step::Admit, Step::Validate] {
            for operation in [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect] {
                for rejected in [false, true] {
                    let mut clock = Clock::start(Some(&durations), step, operation);
                    clock.lap(0, false);
                    clock.lap(1, rejected);
                    clock.end(rejected);
                }
            }
        }
        let families = registry.gather();
        let counts = |name: &str| -> Vec<u64> {
            let family = families.iter().find(|family| family.name() == name).expect("it is there");
            family.get_metric().iter().map(|metric| metric.get_histogram().get_sample_count()).collect()
        };
        assert_eq!(counts("apiserver_admission_step_admission_duration_seconds"), [1; 16]);
        let mut of_plugins = counts("apiserver_admission_controller_admission_duration_seconds");
        of_plugins.sort_unstable();
        assert_eq!(of_plugins, [[1; 16].as_slice(), &[2; 8]].concat());
        Clock::start(None, Step::Admit, Operation::Create).end(false);
    }
}
