//! `/flagz`, `/statusz` and `/configz`: what a process was told, how it fares, what it made of it.
//!
//! Who may see them is the server's affair. Answers to upstream's `apiserver/pkg/server/{flagz,statusz}` and
//! `component-base/configz` (KEP-4828, KEP-4827; both on by default since v1.36).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, WARNING};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::status::Status;
use crate::version::{KUBERNETES_MAJOR, KUBERNETES_MINOR, RELEASE};

/// Of the structured pages.
const GROUP: &str = "config.k8s.io";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const TEXT: &str = "text/plain";

/// The pages of one component. Cheap to clone.
#[derive(Clone)]
pub struct ZPages(Arc<Inner>);

struct Inner {
    component: &'static str,
    started: Timestamp,
    flags: BTreeMap<String, String>,
    config: Option<Value>,
    paths: BTreeSet<&'static str>,
}

/// What a client wants to read.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Text,
    /// `v1beta1`, or `v1alpha1`, which is deprecated. JSON is YAML, so both are written the same.
    Structured {
        media: &'static str,
        version: &'static str,
    },
}

impl ZPages {
    /// `flags` are all flags with their values; `paths` are the other pages of the server, for `/statusz`;
    /// `config` is the running configuration under the name upstream registers it by, if there is one.
    pub fn new(
        component: &'static str,
        flags: BTreeMap<String, String>,
        paths: &[&'static str],
        config: Option<(&'static str, Value)>,
    ) -> Self {
        let config = config.map(|(name, value)| json!({ name: value }));
        let own = ["/flagz"].into_iter().chain(config.as_ref().map(|_| "/configz"));
        let paths = paths.iter().copied().chain(own).collect();
        Self(Arc::new(Inner { component, started: Timestamp::now(), flags, config, paths }))
    }

    /// The page at `path`; None when there is none.
    pub fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response<String>> {
        match path {
            "/configz" => self.0.config.as_ref().map(|c| page(StatusCode::OK, JSON, format!("{c}\n"))),
            "/flagz" => Some(self.negotiated("Flagz", headers)),
            "/statusz" => Some(self.negotiated("Statusz", headers)),
            _ => None,
        }
    }

    fn negotiated(&self, kind: &str, headers: &HeaderMap) -> Response<String> {
        let accepts: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        let now = Timestamp::now();
        match negotiate(&accepts.join(","), kind) {
            None => {
                let status = Status::not_acceptable(&[JSON, YAML, TEXT]);
                let body = String::from_utf8_lossy(&status.to_json()).into_owned();
                page(StatusCode::NOT_ACCEPTABLE, JSON, body)
            }
            Some(Form::Text) => page(StatusCode::OK, "text/plain; charset=utf-8", self.0.text(kind, now)),
            Some(Form::Structured { media, version }) => {
                let mut object = self.0.object(kind, now);
                object["kind"] = kind.into();
                object["apiVersion"] = format!("{GROUP}/{version}").into();
                object["metadata"] = json!({ "name": self.0.component });
                let mut response = page(StatusCode::OK, media, format!("{object}\n"));
                if version == "v1alpha1" {
                    let name = kind.to_lowercase();
                    let text = format!(
                        "299 - \"This version of the {name} endpoint is deprecated. Please use a newer version.\""
                    );
                    response.headers_mut().extend(HeaderValue::from_str(&text).ok().map(|v| (WARNING, v)));
                }
                response
            }
        }
    }
}

impl Inner {
    fn object(&self, kind: &str, now: Timestamp) -> Value {
        if kind == "Flagz" {
            return json!({ "flags": self.flags });
        }
        json!({
            "startTime": self.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "uptimeSeconds": self.uptime_seconds(now),
            // There is no Go here, and the field must be there.
            "goVersion": "",
            "binaryVersion": RELEASE,
            "emulationVersion": format!("{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}"),
            "paths": self.paths,
        })
    }

    fn uptime_seconds(&self, now: Timestamp) -> i64 {
        (now.as_second() - self.started.as_second()).max(0)
    }

    fn text(&self, kind: &str, now: Timestamp) -> String {
        let mut out = format!(
            "\n{} {}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
             guarantees and is for debugging purposes only.\n",
            self.component,
            kind.to_lowercase()
        );
        if kind == "Flagz" {
            for (name, value) in &self.flags {
                out.push_str(&format!("{name}={value}\n"));
            }
            return out;
        }
        let (up, paths) = (self.uptime_seconds(now), self.paths.iter().copied().collect::<Vec<_>>());
        out.push_str(&format!(
            "\nStarted: {}\nUp: {} hr {:02} min {:02} sec\nBinary version: {RELEASE}\nEmulation version: \
             {KUBERNETES_MAJOR}.{KUBERNETES_MINOR}\nPaths: {}\n",
            self.started.strftime("%a %b %e %H:%M:%S UTC %Y"),
            up / 3600,
            up / 60 % 60,
            up % 60,
            paths.join(" ")
        ));
        out
    }
}

fn page(status: StatusCode, media: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// The first form, in the order of the client's preference, that a page of this kind has: text without
/// parameters, or JSON and YAML with `as=<kind>;g=config.k8s.io;v=<version>`. None is 406.
fn negotiate(accept: &str, kind: &str) -> Option<Form> {
    if accept.trim().is_empty() {
        return Some(Form::Text);
    }
    let mut clauses: Vec<(f64, &str)> = accept
        .split(',')
        .map(|clause| {
            let weight = params(clause).find(|(name, _)| *name == "q");
            (weight.and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0), clause)
        })
        .collect();
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    clauses.into_iter().find_map(|(_, clause)| {
        let media = clause.split(';').next().unwrap_or_default().trim();
        let param = |name: &str| params(clause).find(|(n, _)| *n == name).map(|(_, v)| v);
        let wanted = [JSON, YAML, TEXT].into_iter().filter(|own| matches(media, own));
        let mut forms = wanted.filter_map(|media| match (media, param("as")) {
            (TEXT, None) => Some(Form::Text),
            (TEXT, Some(_)) | (_, None) => None,
            (_, Some(wanted)) => {
                let version = ["v1beta1", "v1alpha1"].into_iter().find(|v| param("v") == Some(v))?;
                let named = wanted == kind && param("g") == Some(GROUP);
                named.then_some(Form::Structured { media, version })
            }
        });
        forms.next()
    })
}

fn params(clause: &str) -> impl Iterator<Item = (&str, &str)> {
    clause.split(';').skip(1).filter_map(|p| p.split_once('=')).map(|(n, v)| (n.trim(), v.trim()))
}

fn matches(wanted: &str, own: &str) -> bool {
    let kind = own.split('/').next().unwrap_or_default();
    wanted == own || wanted == "*/*" || wanted.strip_suffix("/*") == Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> ZPages {
        let flags = [("v".to_owned(), "2".to_owned()), ("config".to_owned(), String::new())].into();
        ZPages::new("kube-scheduler", flags, &["/metrics"], Some(("componentconfig", json!({ "a": 1 }))))
    }

    fn get(path: &str, accept: &str) -> Response<String> {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, accept.parse().expect("header"));
        }
        pages().answer(path, &headers).expect("a page")
    }

    #[test]
    fn people_read_text() {
        let flagz = get("/flagz", "*/*");
        assert_eq!(flagz.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert!(flagz.body().starts_with("\nkube-scheduler flagz\nWarning: This endpoint is not meant"));
        assert!(flagz.body().ends_with("\nconfig=\nv=2\n"));
        assert!(get("/statusz", "").body().ends_with("\nPaths: /configz /flagz /metrics\n"));
    }

    #[test]
    fn machines_name_the_version_they_read() {
        let json = get("/flagz", "application/json;as=Flagz;g=config.k8s.io;v=v1beta1");
        let object: Value = serde_json::from_str(json.body()).expect("JSON");
        assert_eq!((&object["kind"], &object["flags"]["v"]), (&json!("Flagz"), &json!("2")));
        assert!(json.headers().get(WARNING).is_none());
        let old = get("/statusz", "application/json;v=v1alpha1;g=config.k8s.io;as=Statusz,*/*;q=0.1");
        let object: Value = serde_json::from_str(old.body()).expect("JSON");
        assert_eq!(object["apiVersion"], "config.k8s.io/v1alpha1");
        assert_eq!(object["paths"], json!(["/configz", "/flagz", "/metrics"]));
        assert!(old.headers().contains_key(WARNING));
        for accept in
            ["application/json", "application/json;as=Statusz;g=config.k8s.io;v=v1beta1", "image/png"]
        {
            assert_eq!(get("/flagz", accept).status(), StatusCode::NOT_ACCEPTABLE, "{accept}");
        }
    }

    #[test]
    fn the_configuration_is_under_its_name() {
        assert_eq!(get("/configz", "").body(), "{\"componentconfig\":{\"a\":1}}\n");
    }
}
