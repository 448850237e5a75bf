//! `/healthz`, `/livez`, `/readyz`: named checks, together or one by one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::StatusCode;

use crate::filters::{query, respond};
use crate::request::{Response, full};

type Checking = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A named check. The error is for the log, never for the answer.
#[derive(Clone)]
pub struct Check {
    name: String,
    check: Arc<dyn Fn() -> Checking + Send + Sync>,
}

impl Check {
    pub fn new<F>(name: impl Into<String>, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name: name.into(), check: Arc::new(move || Box::pin(check())) }
    }

    /// A check that does not wait.
    pub fn immediate(
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, move || std::future::ready(check()))
    }

    /// Always well: the server answers.
    pub fn ping() -> Self {
        Self::immediate("ping", || Ok(()))
    }
}

/// The checks of one path.
#[derive(Clone, Default)]
pub struct Checks {
    checks: Vec<Check>,
}

impl Checks {
    pub fn new(checks: Vec<Check>) -> Self {
        Self { checks }
    }

    /// Runs all but the excluded. `endpoint` is `readyz`, `raw_query` may say `verbose` and `exclude=`.
    /// `note` is told how each went.
    pub async fn all(&self, endpoint: &str, raw_query: &str, note: impl Fn(&str, bool)) -> Response {
        let mut excluded: Vec<String> =
            query::pairs(raw_query).filter(|(key, _)| key == "exclude").map(|(_, value)| value).collect();
        let verbose = query::pairs(raw_query).any(|(key, _)| key == "verbose");
        let mut out = String::new();
        let mut failed = false;
        for check in &self.checks {
            let name = &check.name;
            if excluded.contains(name) {
                excluded.retain(|e| e != name);
                out.push_str(&format!("[+]{name} excluded: ok\n"));
                continue;
            }
            let checked = (check.check)().await;
            note(name, checked.is_ok());
            match checked {
                Ok(()) => out.push_str(&format!("[+]{name} ok\n")),
                Err(error) => {
                    failed = true;
                    tracing::debug!(endpoint, check = name, error, "health check failed");
                    out.push_str(&format!("[-]{name} failed: reason withheld\n"));
                }
            }
        }
        if !excluded.is_empty() {
            let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
            out.push_str(&format!(
                "warn: some health checks cannot be excluded: no matches for {}\n",
                names.join(",")
            ));
        }
        if failed {
            let message = format!("{out}{endpoint} check failed");
            return respond::text(StatusCode::INTERNAL_SERVER_ERROR, &message);
        }
        if verbose { plain(format!("{out}{endpoint} check passed\n")) } else { plain("ok".into()) }
    }

    /// Runs one; `None` when there is none of that name.
    pub async fn one(&self, name: &str, note: impl Fn(&str, bool)) -> Option<Response> {
        let check = self.checks.iter().find(|check| check.name == name)?;
        let checked = (check.check)().await;
        note(name, checked.is_ok());
        Some(match checked {
            Ok(()) => plain("ok".into()),
            Err(error) => {
                respond::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("internal server error: {error}"))
            }
        })
    }
}

fn plain(text: String) -> Response {
    let mut response = Response::new(full(text));
    let headers = response.headers_mut();
    let value = http::HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(http::header::CONTENT_TYPE, value);
    headers.insert("x-content-type-options", http::HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: Response) -> (u16, String) {
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn failures_are_named_without_their_reason() {
        let checks =
            Checks::new(vec![Check::ping(), Check::immediate("etcd", || Err("no quorum".to_owned()))]);
        let (code, body) = text(checks.all("readyz", "", |_, _| ()).await).await;
        assert_eq!(code, 500);
        assert_eq!(body, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n");
        let (code, body) = text(checks.all("readyz", "verbose&exclude=etcd", |_, _| ()).await).await;
        assert_eq!((code, body.as_str()), (200, "[+]ping ok\n[+]etcd excluded: ok\nreadyz check passed\n"));
        let (code, body) = text(checks.all("livez", "exclude=etcd", |_, _| ()).await).await;
        assert_eq!((code, body.as_str()), (200, "ok"));
        assert_eq!(text(checks.one("ping", |_, _| ()).await.unwrap()).await.0, 200);
        assert!(checks.one("nope", |_, _| ()).await.is_none());
    }
}
