//! `url('https://a.b/c')` and its parts.

use super::{fail, none};
use crate::apiextensions::validation::formats;
use crate::cel::machine::Result;
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "url: (string) -> kubernetes.URL",
    "isURL: (string) -> bool",
    "getScheme: kubernetes.URL.() -> string",
    "getHost: kubernetes.URL.() -> string",
    "getHostname: kubernetes.URL.() -> string",
    "getPort: kubernetes.URL.() -> string",
    "getEscapedPath: kubernetes.URL.() -> string",
    "getQuery: kubernetes.URL.() -> map(string, list(string))",
];

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Result<'a> {
    match (name, args) {
        ("isURL", [Val::Str(text)]) => Ok(Val::Bool(is_url(text))),
        ("url", [Val::Str(text)]) if is_url(text) => Ok(Val::Url(text.clone())),
        ("url", [Val::Str(text)]) => fail(format!(
            "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
        )),
        _ => none(),
    }
}

fn is_url(text: &str) -> bool {
    formats::matches("uri", text) && (text.starts_with('/') || text.contains("://") || text.contains(':'))
}

pub(super) fn method<'a>(name: &str, url: &str, args: &[Val<'a>]) -> Result<'a> {
    if !args.is_empty() {
        return none();
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let cut = if scheme.is_empty() { 0 } else { rest.find('/').unwrap_or(rest.len()) };
    let (authority, path) = rest.split_at(cut);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (hostname, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((inside, after)) => (inside, after.trim_start_matches(':')),
        None => host.split_once(':').unwrap_or((host, "")),
    };
    Ok(match name {
        "getScheme" => Val::str(scheme),
        "getHost" => Val::str(host),
        "getHostname" => Val::str(hostname),
        "getPort" => Val::str(port),
        "getEscapedPath" => Val::str(path),
        "getQuery" => {
            let mut pairs: Vec<(Val<'a>, Vec<Val<'a>>)> = Vec::new();
            for pair in query.split('&').filter(|p| !p.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let key = Val::str(key);
                match pairs.iter_mut().find(|(known, _)| known.equals(&key)) {
                    Some((_, values)) => values.push(Val::str(value)),
                    None => pairs.push((key, vec![Val::str(value)])),
                }
            }
            Val::Map(
                pairs.into_iter().map(|(key, values)| (key, Val::list(values))).collect::<Vec<_>>().into(),
            )
        }
        _ => return none(),
    })
}
