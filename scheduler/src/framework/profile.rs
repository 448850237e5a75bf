//! A profile: which plugins run at which point, for the pods of one scheduler name.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::registry::{self, PLUGINS, Point};
use super::{Change, Cycle, Filter, Hint, Plugin, PreFilter, Rejection, SCORE_MAX, Score};
use crate::config::{ProfileConfig, plugins_at};
use crate::model::{NodeInfo, PodInfo};

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("profiles[{profile}].plugins: {point}: unknown plugin {name:?}")]
    Unknown { profile: String, point: String, name: String },
    #[error("profiles[{profile}].plugins.score: plugin {name:?} needs a weight above 0")]
    Weight { profile: String, name: String },
    #[error("profiles[{profile}].plugins.{point}: exactly one plugin is needed, found {found}")]
    Single { profile: String, point: &'static str, found: usize },
    #[error("profiles[{profile}].pluginConfig: {name}: {why}")]
    Args { profile: String, name: String, why: String },
}

struct Entry {
    name: &'static str,
    plugin: Box<dyn Plugin>,
}

/// Plugins of one scheduler name, in order.
pub struct Profile {
    pub scheduler_name: String,
    pub percentage_of_nodes_to_score: Option<i32>,
    pub preemption: Option<Preemption>,
    plugins: Vec<Entry>,
    pre_enqueue: Vec<usize>,
    filter: Vec<usize>,
    score: Vec<(usize, i64)>,
}

/// DefaultPreemptionArgs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preemption {
    pub min_candidate_nodes_percentage: usize,
    pub min_candidate_nodes_absolute: usize,
}

/// A plugin's filter in one cycle, with its name.
pub struct NamedFilter<'a> {
    pub plugin: &'static str,
    pub filter: Box<dyn Filter<'a> + 'a>,
}

/// What pre-filtering gave.
pub struct Prepared<'a> {
    pub filters: Vec<NamedFilter<'a>>,
    /// Only these nodes need to be looked at.
    pub nodes: Option<BTreeSet<String>>,
    /// Who restricted the nodes.
    pub restricted_by: BTreeSet<&'static str>,
}

impl Profile {
    /// # Errors
    /// When the configuration names unknown plugins, leaves a point without its one plugin, or has bad arguments.
    pub fn new(config: &ProfileConfig) -> Result<Arc<Self>, ProfileError> {
        let profile = config.scheduler_name.clone();
        let wrap =
            |(point, name): (String, String)| ProfileError::Unknown { profile: profile.clone(), point, name };
        let at = |point| plugins_at(config, point).map_err(wrap);
        for (point, name) in [(Point::QueueSort, "queueSort"), (Point::Bind, "bind")] {
            let found = at(point)?.len();
            if found != 1 {
                return Err(ProfileError::Single { profile: profile.clone(), point: name, found });
            }
        }
        let mut plugins: Vec<Entry> = Vec::new();
        let mut place = |name: &'static str| -> Result<usize, ProfileError> {
            if let Some(at) = plugins.iter().position(|e| e.name == name) {
                return Ok(at);
            }
            let args = config.args(name).cloned().unwrap_or(Value::Null);
            let build = registry::definition(name).map_or(PLUGINS[1].build, |d| d.build);
            let plugin = build(&args).map_err(|why| ProfileError::Args {
                profile: profile.clone(),
                name: name.to_owned(),
                why,
            })?;
            plugins.push(Entry { name, plugin });
            Ok(plugins.len() - 1)
        };
        let mut pre_enqueue = Vec::new();
        for (name, _) in at(Point::PreEnqueue)? {
            pre_enqueue.push(place(name)?);
        }
        let mut filter = Vec::new();
        for (name, _) in at(Point::Filter)? {
            filter.push(place(name)?);
        }
        let mut score = Vec::new();
        for (name, weight) in at(Point::Score)? {
            if weight <= 0 {
                return Err(ProfileError::Weight { profile: profile.clone(), name: name.to_owned() });
            }
            score.push((place(name)?, i64::from(weight)));
        }
        let preemption = if at(Point::PostFilter)?.is_empty() {
            None
        } else {
            Some(preemption(config.args("DefaultPreemption")).map_err(|why| ProfileError::Args {
                profile: profile.clone(),
                name: "DefaultPreemption".into(),
                why,
            })?)
        };
        Ok(Arc::new(Self {
            scheduler_name: profile.clone(),
            percentage_of_nodes_to_score: config.percentage_of_nodes_to_score,
            preemption,
            plugins,
            pre_enqueue,
            filter,
            score,
        }))
    }

    /// The first plugin that does not let the pod into the queue yet.
    pub fn gate(&self, pod: &PodInfo) -> Option<&'static str> {
        self.pre_enqueue
            .iter()
            .map(|at| &self.plugins[*at])
            .find(|entry| entry.plugin.pre_enqueue(pod).is_err())
            .map(|entry| entry.name)
    }

    /// # Errors
    /// When a plugin knows that no node fits.
    pub fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let mut out = Prepared { filters: Vec::new(), nodes: None, restricted_by: BTreeSet::new() };
        for at in &self.filter {
            let entry = &self.plugins[*at];
            let filter = match entry.plugin.pre_filter(cycle) {
                PreFilter::Skip => continue,
                PreFilter::Run(filter) => filter,
                PreFilter::RunOn(filter, nodes) => {
                    out.restricted_by.insert(entry.name);
                    out.nodes = Some(match out.nodes.take() {
                        None => nodes,
                        Some(before) => before.intersection(&nodes).cloned().collect(),
                    });
                    filter
                }
                PreFilter::Reject(mut rejection) => {
                    rejection.plugin = entry.name;
                    return Err(rejection);
                }
            };
            out.filters.push(NamedFilter { plugin: entry.name, filter });
        }
        Ok(out)
    }

    pub fn has_scores(&self) -> bool {
        !self.score.is_empty()
    }

    /// Weighted sums, one per node in `feasible`.
    pub fn score<'a>(&'a self, cycle: Cycle<'a>, feasible: &[&'a NodeInfo]) -> Vec<i64> {
        let mut totals = vec![0i64; feasible.len()];
        let mut scores = vec![0i64; feasible.len()];
        for (at, weight) in &self.score {
            let Some(scorer) = self.plugins[*at].plugin.pre_score(cycle, feasible) else { continue };
            score_all(scorer.as_ref(), feasible, &mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += weight * (*score).clamp(0, SCORE_MAX);
            }
        }
        totals
    }

    /// Whether a change is worth trying a pod again that `rejectors` had turned down.
    pub fn hint(&self, rejectors: &BTreeSet<&'static str>, pod: &PodInfo, change: &Change<'_>) -> Hint {
        let asked = self.plugins.iter().filter(|e| rejectors.contains(e.name));
        Hint::queue_if(asked.into_iter().any(|e| e.plugin.hint(pod, change) == Hint::Queue))
    }
}

fn score_all(scorer: &dyn Score, nodes: &[&NodeInfo], scores: &mut [i64]) {
    for (score, node) in scores.iter_mut().zip(nodes) {
        *score = scorer.score(node);
    }
    scorer.normalize(nodes, scores);
}

/// Runs the filters on one node.
///
/// # Errors
/// The first plugin's rejection.
pub fn run_filters(filters: &[NamedFilter<'_>], node: &NodeInfo) -> Result<(), Rejection> {
    for named in filters {
        if let Err(mut rejection) = named.filter.filter(node) {
            rejection.plugin = named.plugin;
            return Err(rejection);
        }
    }
    Ok(())
}

/// The same filters with state of their own.
pub fn clone_filters<'a>(filters: &[NamedFilter<'a>]) -> Vec<NamedFilter<'a>> {
    filters.iter().map(|f| NamedFilter { plugin: f.plugin, filter: f.filter.boxed_clone() }).collect()
}

fn preemption(args: Option<&Value>) -> Result<Preemption, String> {
    let read = |field: &str, default: u64| match args.and_then(|a| a.get(field)) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_u64().ok_or_else(|| format!("{field}: must be a number of 0 or more")),
    };
    let percentage = read("minCandidateNodesPercentage", 10)?;
    let absolute = read("minCandidateNodesAbsolute", 100)?;
    if percentage > 100 {
        return Err("minCandidateNodesPercentage: not in valid range [0, 100]".into());
    }
    if percentage == 0 && absolute == 0 {
        return Err("minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be zero".into());
    }
    Ok(Preemption {
        min_candidate_nodes_percentage: usize::try_from(percentage).unwrap_or(100),
        min_candidate_nodes_absolute: usize::try_from(absolute).unwrap_or(usize::MAX),
    })
}
