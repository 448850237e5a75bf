//! What rules with effects may reach, bound after the table exists.
//!
//! The table of resources is made of strategies and subresource handlers; the stores are made from the
//! table. So handlers hold a [`Deps`] from the start and find the stores in it once [`Deps::bind`] ran.

use std::sync::{Arc, OnceLock};

use common::status::Status;

use crate::admission::Chain;
use crate::resources::Registry;

/// What exists once the server is wired.
pub struct Late {
    pub registry: Arc<Registry>,
    /// For writes that subresources make themselves (bindings, evictions, scales).
    pub chain: Chain,
}

/// See the module.
#[derive(Default)]
pub struct Deps {
    late: OnceLock<Late>,
}

impl Deps {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Called once by the wiring, before requests are served. A second call changes nothing.
    pub fn bind(&self, late: Late) {
        let _ = self.late.set(late);
    }

    /// # Errors
    /// 503 while the server is still being wired.
    pub fn late(&self) -> Result<&Late, Status> {
        self.late.get().ok_or_else(|| Status::service_unavailable("the server is starting"))
    }

    /// # Errors
    /// As [`Deps::late`].
    pub fn registry(&self) -> Result<&Arc<Registry>, Status> {
        Ok(&self.late()?.registry)
    }
}
