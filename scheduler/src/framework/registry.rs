//! The table of plugins: names, extension points and default weights as upstream has them.
//!
//! Adding a plugin is one room in `plugins/` and one row here.

use serde_json::Value;

use super::Plugin;
use crate::plugins;

/// Extension points that profiles can configure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PostBind,
}

/// Builds a plugin from its `args` (`Value::Null` when there are none).
type Build = fn(&Value) -> Result<Box<dyn Plugin>, String>;

pub struct PluginDef {
    pub name: &'static str,
    /// In the default profile.
    pub weight: i32,
    pub points: &'static [Point],
    pub build: Build,
}

/// A plugin of upstream's default profile that this scheduler does not have yet; named so that a configuration
/// which mentions it is understood and the log says what is not looked at.
pub struct Unbuilt {
    pub name: &'static str,
}

use Point::{Bind, Filter, PostFilter, PreEnqueue, PreFilter, PreScore, QueueSort, Score};

/// In upstream's default order, which is the order of filtering.
pub const PLUGINS: &[PluginDef] = &[
    PluginDef {
        name: "SchedulingGates",
        weight: 0,
        points: &[PreEnqueue],
        build: plugins::scheduling_gates::build,
    },
    PluginDef { name: "PrioritySort", weight: 0, points: &[QueueSort], build: plugins::nothing },
    PluginDef {
        name: "NodeUnschedulable",
        weight: 0,
        points: &[Filter],
        build: plugins::node_unschedulable::build,
    },
    PluginDef { name: "NodeName", weight: 0, points: &[Filter], build: plugins::node_name::build },
    PluginDef {
        name: "TaintToleration",
        weight: 3,
        points: &[Filter, PreScore, Score],
        build: plugins::taint_toleration::build,
    },
    PluginDef {
        name: "NodeAffinity",
        weight: 2,
        points: &[PreFilter, Filter, PreScore, Score],
        build: plugins::node_affinity::build,
    },
    PluginDef {
        name: "NodePorts",
        weight: 0,
        points: &[PreFilter, Filter],
        build: plugins::node_ports::build,
    },
    PluginDef {
        name: "NodeResourcesFit",
        weight: 1,
        points: &[PreFilter, Filter, PreScore, Score],
        build: plugins::node_resources::build_fit,
    },
    PluginDef {
        name: "PodTopologySpread",
        weight: 2,
        points: &[PreFilter, Filter, PreScore, Score],
        build: plugins::pod_topology_spread::build,
    },
    PluginDef {
        name: "InterPodAffinity",
        weight: 2,
        points: &[PreFilter, Filter, PreScore, Score],
        build: plugins::inter_pod_affinity::build,
    },
    PluginDef { name: "DefaultPreemption", weight: 0, points: &[PostFilter], build: plugins::nothing },
    PluginDef {
        name: "NodeResourcesBalancedAllocation",
        weight: 1,
        points: &[PreScore, Score],
        build: plugins::node_resources::build_balanced,
    },
    PluginDef { name: "ImageLocality", weight: 1, points: &[Score], build: plugins::image_locality::build },
    PluginDef { name: "DefaultBinder", weight: 0, points: &[Bind], build: plugins::nothing },
];

/// Upstream's default plugins that are missing here.
pub const MISSING: &[Unbuilt] = &[
    Unbuilt { name: "VolumeRestrictions" },
    Unbuilt { name: "NodeVolumeLimits" },
    Unbuilt { name: "VolumeBinding" },
    Unbuilt { name: "VolumeZone" },
    Unbuilt { name: "NodeDeclaredFeatures" },
    Unbuilt { name: "DynamicResources" },
];

pub fn definition(name: &str) -> Option<&'static PluginDef> {
    PLUGINS.iter().find(|p| p.name == name)
}

pub fn is_missing(name: &str) -> bool {
    MISSING.iter().any(|p| p.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_builds_without_arguments() {
        for plugin in PLUGINS {
            assert!((plugin.build)(&Value::Null).is_ok(), "{}", plugin.name);
        }
    }

    #[test]
    fn scoring_plugins_have_a_weight() {
        for plugin in PLUGINS {
            assert_eq!(plugin.points.contains(&Score), plugin.weight > 0, "{}", plugin.name);
        }
    }
}
