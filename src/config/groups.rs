//! Consumer groups in a node's configuration.

use super::{ConfigError, require};
use serde::Deserialize;

/// Consumer groups. Best equal on every node of the cluster: what counts is the node that coordinates a group. The
/// names of Kafka's settings for the same are in parentheses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupsConfig {
    /// Coordinators that a new cluster gets; each looks after a part of the groups. Only read when the cluster is
    /// complete for the first time, and never changed afterwards (`offsets.topic.num.partitions`). Default: 50.
    pub coordinators: u16,
    /// Shortest session timeout that a member may ask for, in milliseconds (`group.min.session.timeout.ms`).
    /// Default: 6000.
    pub min_session_timeout_ms: u32,
    /// Longest session timeout that a member may ask for, in milliseconds (`group.max.session.timeout.ms`).
    /// Default: 1800000.
    pub max_session_timeout_ms: u32,
    /// How long an empty group waits for more members than the first, in milliseconds; again as long when some have
    /// come meanwhile, up to the rebalance timeout; 0 to begin at once (`group.initial.rebalance.delay.ms`).
    /// Default: 3000.
    pub initial_rebalance_delay_ms: u32,
    /// Most members of a group, 1 to 10000 (`group.max.size`). Default: 10000.
    pub max_size: u32,
    /// How long the offsets of a group without members are kept, in minutes (`offsets.retention.minutes`).
    /// Default: 10080.
    pub offsets_retention_minutes: u32,
    /// How often is looked for such offsets, in milliseconds (`offsets.retention.check.interval.ms`). Default: 600000.
    pub offsets_retention_check_interval_ms: u32,
    /// Longest text that a client may store with an offset, in bytes (`offset.metadata.max.bytes`). Default: 4096.
    pub offset_metadata_bytes: u32,
}

impl Default for GroupsConfig {
    fn default() -> Self {
        Self {
            coordinators: 50,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: 10_000,
            offsets_retention_minutes: 10_080,
            offsets_retention_check_interval_ms: 600_000,
            offset_metadata_bytes: 4_096,
        }
    }
}

impl GroupsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        require((1..=1_000).contains(&self.coordinators), "groups.coordinators", "it is 1 to 1000")?;
        let (min, max) = (self.min_session_timeout_ms, self.max_session_timeout_ms);
        require((100..=86_400_000).contains(&min), "groups.min_session_timeout_ms", "it is 100 to 86400000 (a day)")?;
        require((min..=86_400_000).contains(&max), "groups.max_session_timeout_ms", {
            "it is at least groups.min_session_timeout_ms, and at most 86400000 (a day)"
        })?;
        let delay_ms = self.initial_rebalance_delay_ms;
        require(delay_ms <= 600_000, "groups.initial_rebalance_delay_ms", "it is at most 600000 (ten minutes)")?;
        require((1..=10_000).contains(&self.max_size), "groups.max_size", "it is 1 to 10000")?;
        let minutes = self.offsets_retention_minutes;
        require(minutes >= 1, "groups.offsets_retention_minutes", "it is 0: offsets would go with the last member")?;
        let interval = 1_000..=3_600_000; // coordinator::LOOK_STEP_MS_MAX is longer
        let key = "groups.offsets_retention_check_interval_ms";
        require(interval.contains(&self.offsets_retention_check_interval_ms), key, "it is 1000 to 3600000 (an hour)")?;
        // A text is as long as one of the Kafka protocol at most.
        require(self.offset_metadata_bytes <= 32_767, "groups.offset_metadata_bytes", "it is at most 32767")
    }
}
