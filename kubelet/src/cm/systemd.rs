//! Slices, made and ended by asking systemd over D-Bus.
//!
//! Answers to the slices part of upstream's `opencontainers/cgroups/systemd`. Systemd resets what others write
//! into its cgroups whenever it looks at a unit anew, so limits have to be the unit's own properties. Systemd is
//! asked over the system bus alone: on its private socket it names itself in a way that the D-Bus library refuses.

use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, Value};
use zbus::{Connection, connection};

use super::limits::Property;

/// Longest wait for an answer.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Longest wait for systemd to do a job.
const JOB_MAX: Duration = Duration::from_secs(30);
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    #[error("systemd cannot be reached over the system bus, which cgroupDriver: systemd needs: {0}")]
    Connect(#[source] zbus::Error),
    #[error("unit {unit}: {source}")]
    Call { unit: String, source: zbus::Error },
    #[error("unit {unit}: systemd ended the job with {result:?}")]
    Job { unit: String, result: String },
    #[error("unit {unit}: systemd did not finish within {JOB_MAX:?}")]
    Timeout { unit: String },
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Value<'_>)],
        aux: &[(&str, &[(&str, Value<'_>)])],
    ) -> zbus::Result<OwnedObjectPath>;
    fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: &[(&str, Value<'_>)],
    ) -> zbus::Result<()>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: ObjectPath<'_>, unit: &str, result: &str) -> zbus::Result<()>;
}

/// A connection that is made when first needed, and again after it broke.
#[derive(Default)]
pub struct Systemd {
    connection: Mutex<Option<Connection>>,
}

impl Systemd {
    /// Makes a slice below `parent`; false when there is one of that name already, which stays as it is.
    ///
    /// # Errors
    /// When systemd cannot be reached, refuses, or takes too long.
    pub async fn start_slice(
        &self,
        name: &str,
        parent: &str,
        properties: Vec<Property>,
    ) -> Result<bool, SystemdError> {
        let mut all: Vec<Property> = vec![
            ("Description", Value::from(format!("Kubernetes pods, {name}"))),
            ("Wants", Value::from(vec![parent.to_owned()])),
            ("DefaultDependencies", Value::from(false)),
            ("MemoryAccounting", Value::from(true)),
            ("CPUAccounting", Value::from(true)),
            ("IOAccounting", Value::from(true)),
            ("TasksAccounting", Value::from(true)),
        ];
        all.extend(properties);
        let result = self
            .job(name, async |manager: &ManagerProxy<'_>| {
                manager.start_transient_unit(name, "replace", &all, &[]).await
            })
            .await;
        match result {
            Ok(()) => Ok(true),
            Err(SystemdError::Call { source, .. }) if is(&source, UNIT_EXISTS) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets properties of a unit that runs, until the machine goes down.
    ///
    /// # Errors
    /// When systemd cannot be reached or refuses.
    pub async fn set_properties(&self, name: &str, properties: &[Property]) -> Result<(), SystemdError> {
        if properties.is_empty() {
            return Ok(());
        }
        let manager = self.manager().await?;
        let result = manager.set_unit_properties(name, true, properties).await;
        self.checked(name, result)
    }

    /// Ends a unit and all in it; one that is not there has ended.
    ///
    /// # Errors
    /// When systemd cannot be reached, refuses, or takes too long.
    pub async fn stop(&self, name: &str) -> Result<(), SystemdError> {
        let result =
            self.job(name, async |manager: &ManagerProxy<'_>| manager.stop_unit(name, "replace").await).await;
        match result {
            Err(SystemdError::Call { source, .. }) if is(&source, NO_SUCH_UNIT) => return Ok(()),
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        // A unit that failed stays loaded until this; for others it is refused, which says nothing.
        let _ = self.manager().await?.reset_failed_unit(name).await;
        Ok(())
    }

    /// Starts a job and waits for its end.
    async fn job(
        &self,
        unit: &str,
        start: impl AsyncFnOnce(&ManagerProxy<'_>) -> zbus::Result<OwnedObjectPath>,
    ) -> Result<(), SystemdError> {
        let manager = self.manager().await?;
        let listening = manager.receive_job_removed().await;
        let mut removed = self.checked(unit, listening)?;
        let started = start(&manager).await;
        let job = self.checked(unit, started)?;
        let end = async {
            while let Some(signal) = removed.next().await {
                if let Ok(args) = signal.args()
                    && *args.job() == *job
                {
                    return Some(args.result().to_string());
                }
            }
            None
        };
        match tokio::time::timeout(JOB_MAX, end).await {
            Ok(Some(result)) if result == "done" => Ok(()),
            Ok(Some(result)) => Err(SystemdError::Job { unit: unit.to_owned(), result }),
            Ok(None) => {
                self.forget();
                Err(SystemdError::Job { unit: unit.to_owned(), result: "connection lost".into() })
            }
            Err(_) => Err(SystemdError::Timeout { unit: unit.to_owned() }),
        }
    }

    async fn manager(&self) -> Result<ManagerProxy<'static>, SystemdError> {
        let known = self.connection.lock().clone();
        if let Some(connection) = known {
            return ManagerProxy::new(&connection).await.map_err(SystemdError::Connect);
        }
        let bus = async { connection::Builder::system()?.method_timeout(CALL_MAX).build().await };
        let connection = bus.await.map_err(SystemdError::Connect)?;
        let manager = ManagerProxy::new(&connection).await.map_err(SystemdError::Connect)?;
        // Without a subscription systemd tells nobody that a job ended.
        manager.subscribe().await.map_err(SystemdError::Connect)?;
        *self.connection.lock() = Some(connection);
        Ok(manager)
    }

    fn checked<T>(&self, unit: &str, result: zbus::Result<T>) -> Result<T, SystemdError> {
        result.map_err(|source| {
            if matches!(source, zbus::Error::InputOutput(_)) {
                self.forget();
            }
            SystemdError::Call { unit: unit.to_owned(), source }
        })
    }

    fn forget(&self) {
        *self.connection.lock() = None;
    }
}

fn is(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(got, _, _) if got.as_str() == name)
}
