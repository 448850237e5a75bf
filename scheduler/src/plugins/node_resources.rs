//! NodeResourcesFit and NodeResourcesBalancedAllocation: room for the pod, and how well it would sit there.

use serde::Deserialize;
use serde_json::Value;

use crate::framework::{Change, Code, Cycle, Filter, Hint, Plugin, PreFilter, Rejection, SCORE_MAX, Score};
use crate::model::{Node, NodeInfo, PodInfo, Resources, is_scalar};

/// A resource that counts for scoring.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSpec {
    name: String,
    #[serde(default)]
    weight: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ShapePoint {
    utilization: i64,
    score: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Ratio {
    shape: Vec<ShapePoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct StrategyArgs {
    #[serde(rename = "type")]
    type_: String,
    resources: Vec<ResourceSpec>,
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FitArgs {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    ignored_resources: Vec<String>,
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Option<StrategyArgs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct BalancedArgs {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    resources: Vec<ResourceSpec>,
}

#[derive(Debug, Clone)]
enum Strategy {
    LeastAllocated,
    MostAllocated,
    RequestedToCapacityRatio(Vec<ShapePoint>),
}

struct Fit {
    ignored: Vec<String>,
    ignored_groups: Vec<String>,
    strategy: Strategy,
    resources: Vec<ResourceSpec>,
}

struct Balanced {
    resources: Vec<ResourceSpec>,
}

/// # Errors
/// When the arguments cannot be read or name an unknown strategy.
pub fn build_fit(args: &Value) -> Result<Box<dyn Plugin>, String> {
    let args: FitArgs = read(args)?;
    let strategy = args.scoring_strategy.unwrap_or_default();
    let kind = match strategy.type_.as_str() {
        "" | "LeastAllocated" => Strategy::LeastAllocated,
        "MostAllocated" => Strategy::MostAllocated,
        "RequestedToCapacityRatio" => {
            let shape = strategy.requested_to_capacity_ratio.unwrap_or_default().shape;
            Strategy::RequestedToCapacityRatio(checked_shape(shape)?)
        }
        other => return Err(format!("scoringStrategy.type: unsupported value {other:?}")),
    };
    Ok(Box::new(Fit {
        ignored: args.ignored_resources,
        ignored_groups: args.ignored_resource_groups,
        strategy: kind,
        resources: with_defaults(strategy.resources)?,
    }))
}

/// # Errors
/// When the arguments cannot be read.
pub fn build_balanced(args: &Value) -> Result<Box<dyn Plugin>, String> {
    let args: BalancedArgs = read(args)?;
    Ok(Box::new(Balanced { resources: with_defaults(args.resources)? }))
}

fn read<T: Default + for<'de> Deserialize<'de>>(args: &Value) -> Result<T, String> {
    if args.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(args.clone()).map_err(|e| e.to_string())
}

fn with_defaults(mut resources: Vec<ResourceSpec>) -> Result<Vec<ResourceSpec>, String> {
    if resources.is_empty() {
        resources = ["cpu", "memory"].map(|name| ResourceSpec { name: name.into(), weight: 1 }).to_vec();
    }
    for resource in &mut resources {
        if resource.weight == 0 {
            resource.weight = 1;
        }
        if !(1..=100).contains(&resource.weight) {
            return Err(format!("resources[{}].weight: not in valid range [1, 100]", resource.name));
        }
    }
    Ok(resources)
}

fn checked_shape(shape: Vec<ShapePoint>) -> Result<Vec<ShapePoint>, String> {
    if shape.is_empty() {
        return Err("requestedToCapacityRatio.shape: at least one point must be specified".into());
    }
    for (at, point) in shape.iter().enumerate() {
        if !(0..=100).contains(&point.utilization) || !(0..=10).contains(&point.score) {
            return Err(format!(
                "requestedToCapacityRatio.shape[{at}]: utilization is 0 to 100, score 0 to 10"
            ));
        }
        if at > 0 && shape[at - 1].utilization >= point.utilization {
            return Err(format!(
                "requestedToCapacityRatio.shape[{at}].utilization: utilization values must be sorted in increasing order"
            ));
        }
    }
    Ok(shape)
}

#[derive(Clone)]
struct FitState<'a> {
    plugin: &'a Fit,
    requests: &'a Resources,
}

impl Fit {
    fn ignores(&self, name: &str) -> bool {
        self.ignored.iter().any(|i| i == name)
            || name.split_once('/').is_some_and(|(group, _)| self.ignored_groups.iter().any(|g| g == group))
    }

    /// None when the pod fits beside `pods` others that use `requested`.
    fn check(
        &self,
        requests: &Resources,
        allocatable: &Resources,
        requested: &Resources,
        pods: usize,
    ) -> Option<Rejection> {
        let mut out = Rejection { code: Code::Unschedulable, reasons: Vec::new(), plugin: "" };
        if i64::try_from(pods).unwrap_or(i64::MAX) >= allocatable.pods {
            out.reasons.push("Too many pods".into());
        }
        let mut compare = |name: &str, want: i64, has: i64, used: i64| {
            if want > 0 && want > has - used {
                out.reasons.push(match name {
                    "cpu" => "Insufficient cpu".into(),
                    "memory" => "Insufficient memory".into(),
                    other => format!("Insufficient {other}").into(),
                });
                if want > has {
                    out.code = Code::UnschedulableAndUnresolvable;
                }
            }
        };
        compare("cpu", requests.milli_cpu, allocatable.milli_cpu, requested.milli_cpu);
        compare("memory", requests.memory, allocatable.memory, requested.memory);
        compare(
            "ephemeral-storage",
            requests.ephemeral_storage,
            allocatable.ephemeral_storage,
            requested.ephemeral_storage,
        );
        for (name, want) in &requests.scalars {
            if !self.ignores(name) {
                compare(name, *want, allocatable.scalar(name), requested.scalar(name));
            }
        }
        (!out.reasons.is_empty()).then_some(out)
    }
}

impl Plugin for Fit {
    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> PreFilter<'a> {
        PreFilter::Run(Box::new(FitState { plugin: self, requests: &cycle.pod.requests }))
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let requests = self.resources.iter().map(|r| cycle.pod.non_zero.get(&r.name)).collect();
        Some(Box::new(FitScore { plugin: self, requests }))
    }

    fn hint(&self, pod: &PodInfo, change: &Change<'_>) -> Hint {
        let empty_node_fits =
            |node: &Node| self.check(&pod.requests, &node.allocatable, &Resources::default(), 0).is_none();
        Hint::queue_if(match change {
            Change::AssignedPodDelete(_) => true,
            Change::AssignedPodUpdate { old, new } => frees(&pod.requests, &old.requests, &new.requests),
            Change::UnscheduledPodUpdate { old, new } => frees(&old.requests, &old.requests, &new.requests),
            Change::NodeAdd(node) => empty_node_fits(node),
            Change::NodeUpdate { old, new } => {
                empty_node_fits(new) && grew(&pod.requests, &old.allocatable, &new.allocatable)
            }
            _ => false,
        })
    }
}

/// Whether any amount that the pod wants went down from `old` to `new`.
fn frees(wanted: &Resources, old: &Resources, new: &Resources) -> bool {
    (wanted.milli_cpu > 0 && old.milli_cpu > new.milli_cpu)
        || (wanted.memory > 0 && old.memory > new.memory)
        || (wanted.ephemeral_storage > 0 && old.ephemeral_storage > new.ephemeral_storage)
        || wanted.scalars.iter().any(|(name, n)| *n > 0 && old.scalar(name) > new.scalar(name))
}

/// Whether a node has more of what the pod wants than before, or more room for pods.
fn grew(wanted: &Resources, old: &Resources, new: &Resources) -> bool {
    new.pods > old.pods || frees(wanted, new, old)
}

impl<'a> Filter<'a> for FitState<'a> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        self.plugin
            .check(self.requests, &node.node.allocatable, &node.requested, node.pods.len())
            .map_or(Ok(()), Err)
    }

    fn boxed_clone(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

struct FitScore<'a> {
    plugin: &'a Fit,
    /// In the order of the plugin's resources.
    requests: Vec<i64>,
}

impl Score for FitScore<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for (spec, want) in self.plugin.resources.iter().zip(&self.requests) {
            if *want == 0 && is_scalar(&spec.name) {
                continue;
            }
            let capacity = node.node.allocatable.get(&spec.name);
            if capacity == 0 {
                continue;
            }
            let used = match spec.name.as_str() {
                "cpu" | "memory" => node.non_zero.get(&spec.name),
                other => node.requested.get(other),
            };
            let requested = used + want;
            let score = match &self.plugin.strategy {
                Strategy::LeastAllocated if requested > capacity => 0,
                Strategy::LeastAllocated => portion(capacity - requested, capacity),
                Strategy::MostAllocated => portion(requested.min(capacity), capacity),
                Strategy::RequestedToCapacityRatio(shape) => {
                    let score = broken_line(shape, portion(requested.min(capacity), capacity));
                    if score == 0 {
                        continue;
                    }
                    score
                }
            };
            sum += score * spec.weight;
            weights += spec.weight;
        }
        match (&self.plugin.strategy, weights) {
            (_, 0) => 0,
            (Strategy::RequestedToCapacityRatio(_), _) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }
}

/// `part` of `whole` in hundredths, without overflow for any byte count.
fn portion(part: i64, whole: i64) -> i64 {
    i64::try_from(i128::from(part) * i128::from(SCORE_MAX) / i128::from(whole)).unwrap_or(SCORE_MAX)
}

/// The line through the points, level outside them; scores are scaled from 0..=10 to 0..=100.
fn broken_line(shape: &[ShapePoint], utilization: i64) -> i64 {
    let scaled = |p: &ShapePoint| p.score * (SCORE_MAX / 10);
    for (at, point) in shape.iter().enumerate() {
        if utilization <= point.utilization {
            let Some(before) = at.checked_sub(1).map(|b| &shape[b]) else { return scaled(point) };
            let (from, to) = (scaled(before), scaled(point));
            return from
                + (to - from) * (utilization - before.utilization)
                    / (point.utilization - before.utilization);
        }
    }
    shape.last().map_or(0, scaled)
}

struct BalancedScore<'a> {
    plugin: &'a Balanced,
    requests: Vec<i64>,
}

impl Plugin for Balanced {
    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let requests: Vec<i64> = self.resources.iter().map(|r| cycle.pod.requests.get(&r.name)).collect();
        // A pod without requests changes no balance; scoring it would pile such pods onto one node.
        if requests.iter().all(|r| *r == 0) {
            return None;
        }
        Some(Box::new(BalancedScore { plugin: self, requests }))
    }
}

impl Score for BalancedScore<'_> {
    /// Half for the balance as it is, moved by what the pod does to it.
    fn score(&self, node: &NodeInfo) -> i64 {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for (spec, want) in self.plugin.resources.iter().zip(&self.requests) {
            let capacity = node.node.allocatable.get(&spec.name);
            if capacity == 0 || (*want == 0 && is_scalar(&spec.name)) {
                continue;
            }
            let used = node.requested.get(&spec.name);
            with.push(((used + want) as f64 / capacity as f64).min(1.0));
            without.push((used as f64 / capacity as f64).min(1.0));
        }
        SCORE_MAX / 2 + (SCORE_MAX / 2 + evenness(&with) - evenness(&without)) / 2
    }
}

/// 100 when all fractions are equal, less by their standard deviation.
fn evenness(fractions: &[f64]) -> i64 {
    if fractions.len() < 2 {
        return SCORE_MAX;
    }
    let n = fractions.len() as f64;
    let mean = fractions.iter().sum::<f64>() / n;
    let variance = fractions.iter().map(|f| (f - mean).powi(2)).sum::<f64>() / n;
    ((1.0 - variance.sqrt()) * SCORE_MAX as f64) as i64
}
