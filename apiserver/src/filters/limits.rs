//! What keeps the number of requests in bounds: priority and fairness, or two plain limits.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::in_flight::{self, InFlight};
use super::respond;
use crate::authorization::modes::PRIVILEGED_GROUP;
use crate::flowcontrol::{FlowControl, Running, Sorted, WatchMark};
use crate::request::{RequestInfo, Response, UserInfo};

const SCHEMA_HEADER: &str = "x-kubernetes-pf-flowschema-uid";
const LEVEL_HEADER: &str = "x-kubernetes-pf-prioritylevel-uid";
/// Seconds that a client refused by the plain limits should wait.
const RETRY_AFTER_SECONDS: u64 = 1;

/// See the module.
pub enum Limits {
    Fair(Arc<FlowControl>),
    Plain(InFlight),
}

/// A request's place among those that run; given back when dropped.
pub enum Slot {
    /// The request lasts, and is not counted.
    Uncounted,
    Plain(#[allow(dead_code, reason = "held for its drop")] in_flight::Slot),
    Fair(#[allow(dead_code, reason = "held for its drop")] Box<Running>),
}

/// What the limits said of a request.
#[derive(Default)]
pub struct Marks {
    sorted: Option<Sorted>,
    /// Counts a watch while it lasts.
    pub watch: Option<WatchMark>,
}

impl Marks {
    /// Names the schema and level that the request was taken for, by their uids.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Some(sorted) = &self.sorted {
            headers.insert(LEVEL_HEADER, sorted.level_uid.clone());
            headers.insert(SCHEMA_HEADER, sorted.schema_uid.clone());
        }
    }
}

impl Limits {
    /// Waits for the request's turn, no longer than `patience`. A watch counts until it has begun, what lasts
    /// otherwise not at all.
    ///
    /// # Errors
    /// The answer, 429.
    pub async fn enter(
        &self,
        info: &RequestInfo,
        user: &UserInfo,
        query: &str,
        long_running: bool,
        patience: Duration,
    ) -> Result<(Slot, Marks), Box<Response>> {
        let watch = info.verb == "watch";
        match self {
            Self::Fair(flow) if !long_running || watch => {
                match flow.enter(info, user, query, patience).await {
                    Ok(entered) => {
                        let watch = watch.then(|| flow.watching(info));
                        let marks = Marks { sorted: Some(entered.sorted), watch };
                        Ok((Slot::Fair(Box::new(entered.seat)), marks))
                    }
                    Err(refused) => {
                        let mut response = respond::too_many_requests(refused.retry_after_seconds);
                        let marks = Marks { sorted: Some(refused.sorted), watch: None };
                        marks.write(response.headers_mut());
                        Err(Box::new(response))
                    }
                }
            }
            Self::Plain(limits) if !long_running => {
                match limits.enter(info, user.in_group(PRIVILEGED_GROUP)) {
                    Some(slot) => Ok((Slot::Plain(slot), Marks::default())),
                    None => Err(Box::new(respond::too_many_requests(RETRY_AFTER_SECONDS))),
                }
            }
            _ => Ok((Slot::Uncounted, Marks::default())),
        }
    }
}
