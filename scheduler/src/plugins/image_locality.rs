//! ImageLocality: nodes that already have the pod's images are better, the more so the more nodes have them.

use serde_json::Value;

use crate::cache::Snapshot;
use crate::framework::{Cycle, Plugin, SCORE_MAX, Score};
use crate::model::{NodeInfo, PodInfo};

const MIB: i64 = 1024 * 1024;
/// Images smaller than this in sum do not count, in bytes.
const THRESHOLD_MIN: i64 = 23 * MIB;
/// Bytes per container at which the score is full.
const THRESHOLD_MAX_PER_CONTAINER: i64 = 1000 * MIB;

struct ImageLocality;

struct State<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
}

/// # Errors
/// Never.
pub fn build(_: &Value) -> Result<Box<dyn Plugin>, String> {
    Ok(Box::new(ImageLocality))
}

impl Plugin for ImageLocality {
    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        Some(Box::new(State { pod: cycle.pod, snapshot: cycle.snapshot }))
    }
}

impl Score for State<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let total = self.snapshot.len().max(1) as f64;
        let sum: i64 = self
            .pod
            .images
            .iter()
            .filter_map(|image| {
                let size = *node.node.images.get(image)?;
                let spread = self.snapshot.nodes_with_image(image) as f64 / total;
                Some((size as f64 * spread) as i64)
            })
            .sum();
        let containers = i64::try_from(self.pod.containers.max(1)).unwrap_or(1);
        let max = THRESHOLD_MAX_PER_CONTAINER * containers;
        SCORE_MAX * (sum.clamp(THRESHOLD_MIN, max) - THRESHOLD_MIN) / (max - THRESHOLD_MIN)
    }
}
