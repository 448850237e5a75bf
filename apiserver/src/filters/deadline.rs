//! How long a request may take: the server's limit, or less when the client says `timeout=`.

use std::time::Duration;

use common::status::Status;

use super::query;

/// # Errors
/// 400 when the client's timeout is no duration.
pub fn of(raw_query: &str, limit: Duration) -> Result<Duration, Status> {
    let Some(text) = query::first(raw_query, "timeout").filter(|text| !text.is_empty()) else {
        return Ok(limit);
    };
    match common::flags::duration(&text) {
        Ok(wanted) if wanted.is_zero() || wanted > limit => Ok(limit),
        Ok(wanted) => Ok(wanted),
        Err(error) => {
            Err(Status::bad_request(format!("invalid timeout specified in the request URL - {error}")))
        }
    }
}
