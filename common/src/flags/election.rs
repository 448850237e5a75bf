//! Whether and how a daemon stands for a lease.

use std::time::Duration;

use clap::{ArgAction, Args};

use super::duration;
use crate::leaderelection::LeaderElection;

/// client-go jitters its retries by up to this factor; the deadline must leave room for one.
const JITTER: f64 = 1.2;

/// `--leader-elect` and its neighbours. What is not given stays as the daemon (or its configuration file) has it.
#[derive(Debug, Clone, Args)]
pub struct LeaderElectionFlags {
    /// Start a leader election client and gain leadership before executing the main loop (true unless set).
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub leader_elect: Option<bool>,
    /// How long others wait after the last renewal before they take the lease (15s unless set).
    #[arg(long, value_parser = duration)]
    pub leader_elect_lease_duration: Option<Duration>,
    /// How long the leader tries to renew before it gives up (10s unless set).
    #[arg(long, value_parser = duration)]
    pub leader_elect_renew_deadline: Option<Duration>,
    /// Between two attempts (2s unless set).
    #[arg(long, value_parser = duration)]
    pub leader_elect_retry_period: Option<Duration>,
    /// The kind of object that is the lock; 'leases' is the only one.
    #[arg(long)]
    pub leader_elect_resource_lock: Option<String>,
    /// The name of the lease (the daemon's name unless set).
    #[arg(long)]
    pub leader_elect_resource_name: Option<String>,
    /// The namespace of the lease (kube-system unless set).
    #[arg(long)]
    pub leader_elect_resource_namespace: Option<String>,
}

/// A setting of leader election that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    #[error("leaderElection.resourceLock: {0:?} is not supported, supported values: \"leases\"")]
    Lock(String),
    #[error("leaderElection.leaseDuration: must be greater than renewDeadline")]
    LeaseDuration,
    #[error("leaderElection.renewDeadline: must be greater than retryPeriod*1.2")]
    RenewDeadline,
    #[error("leaderElection.{0}: must be greater than zero")]
    Zero(&'static str),
}

impl LeaderElectionFlags {
    /// What applies: the flags that were given over `settings` (the daemon's defaults, or its file's). None when
    /// leader election is off; `enabled` says whether it is on without the flag.
    ///
    /// # Errors
    /// When the outcome makes no sense.
    pub fn over(
        &self,
        mut settings: LeaderElection,
        enabled: bool,
    ) -> Result<Option<LeaderElection>, ElectionError> {
        if !self.leader_elect.unwrap_or(enabled) {
            return Ok(None);
        }
        if let Some(lock) = self.leader_elect_resource_lock.as_ref().filter(|lock| *lock != "leases") {
            return Err(ElectionError::Lock(lock.clone()));
        }
        fn set<T: Clone>(field: &mut T, flag: Option<&T>) {
            if let Some(value) = flag {
                field.clone_from(value);
            }
        }
        set(&mut settings.lease_duration, self.leader_elect_lease_duration.as_ref());
        set(&mut settings.renew_deadline, self.leader_elect_renew_deadline.as_ref());
        set(&mut settings.retry_period, self.leader_elect_retry_period.as_ref());
        set(&mut settings.name, self.leader_elect_resource_name.as_ref());
        set(&mut settings.namespace, self.leader_elect_resource_namespace.as_ref());
        if settings.retry_period.is_zero() {
            return Err(ElectionError::Zero("retryPeriod"));
        }
        if settings.lease_duration <= settings.renew_deadline {
            return Err(ElectionError::LeaseDuration);
        }
        if settings.renew_deadline <= settings.retry_period.mul_f64(JITTER) {
            return Err(ElectionError::RenewDeadline);
        }
        Ok(Some(settings))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Daemon {
        #[command(flatten)]
        election: LeaderElectionFlags,
    }

    fn over(args: &[&str]) -> Result<Option<LeaderElection>, ElectionError> {
        let flags = Daemon::try_parse_from([&["x"], args].concat()).expect("flags").election;
        flags.over(LeaderElection::new("kube-system", "a", "us"), true)
    }

    #[test]
    fn flags_win_and_what_is_not_given_stays() {
        let settings = over(&["--leader-elect-resource-name=b", "--leader-elect-retry-period=1s"])
            .expect("settings")
            .expect("on");
        assert_eq!((settings.namespace.as_str(), settings.name.as_str()), ("kube-system", "b"));
        assert_eq!(settings.retry_period, Duration::from_secs(1));
        assert_eq!(settings.lease_duration, Duration::from_secs(15));
        assert!(over(&["--leader-elect=false"]).expect("settings").is_none());
        assert!(over(&["--leader-elect"]).expect("settings").is_some());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (flag, error) in [
            ("--leader-elect-resource-lock=endpoints", ElectionError::Lock("endpoints".into())),
            ("--leader-elect-lease-duration=10s", ElectionError::LeaseDuration),
            ("--leader-elect-retry-period=9s", ElectionError::RenewDeadline),
            ("--leader-elect-retry-period=0", ElectionError::Zero("retryPeriod")),
        ] {
            assert_eq!(over(&[flag]).err(), Some(error), "{flag}");
        }
    }
}
