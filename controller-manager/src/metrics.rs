//! The daemon's metrics.

use prometheus::{GaugeVec, Opts, Registry};

use crate::controller::QueueMetrics;

/// All metric families, registered in one registry that is passed in.
pub struct Metrics {
    pub registry: Registry,
    pub queues: QueueMetrics,
    /// `leader_election_master_status{name}`.
    pub leader: GaugeVec,
}

impl Metrics {
    /// # Errors
    /// When a name is taken in `registry`.
    pub fn register(registry: Registry) -> Result<Self, prometheus::Error> {
        let queues = QueueMetrics::register(&registry)?;
        let leader = GaugeVec::new(
            Opts::new(
                "leader_election_master_status",
                "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.",
            ),
            &["name"],
        )?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self { registry, queues, leader })
    }
}
