//! The parameters that operations take.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::descriptions::Descriptions;
use super::schemas::Dialect;

/// One parameter of an operation or a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parameter {
    pub name: &'static str,
    /// In the path, and then required; otherwise in the query.
    pub in_path: bool,
    pub ty: &'static str,
    pub description: Cow<'static, str>,
}

impl Parameter {
    fn query(name: &'static str, ty: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        Self { name, in_path: false, ty, description: description.into() }
    }

    pub(super) fn path(name: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        Self { name, in_path: true, ty: "string", description: description.into() }
    }

    pub(super) fn render(&self, dialect: Dialect) -> Value {
        let mut out = match dialect {
            Dialect::V2 => json!({"type": self.ty, "uniqueItems": true}),
            Dialect::V3 => json!({"schema": {"type": self.ty, "uniqueItems": true}}),
        };
        out["name"] = self.name.into();
        out["in"] = if self.in_path { "path" } else { "query" }.into();
        if self.in_path {
            out["required"] = true.into();
        }
        if !self.description.is_empty() {
            out["description"] = self.description.as_ref().into();
        }
        out
    }
}

/// What a path below a namespace has.
pub(super) fn namespace() -> Parameter {
    Parameter::path("namespace", "object name and auth scope, such as for teams and projects")
}

pub(super) fn pretty() -> Parameter {
    Parameter::query("pretty", "string", "If 'true', the output is formatted for people to read.")
}

/// Parameters by their meaning.
pub(super) struct Parameters<'a> {
    pub descriptions: &'a Descriptions,
}

impl Parameters<'_> {
    /// Of a read of many objects (`ListOptions` upstream).
    pub(super) fn list(&self) -> Vec<Parameter> {
        let mut out = select();
        out.push(Parameter::query(
            "allowWatchBookmarks",
            "boolean",
            "Asks a watch for events of type BOOKMARK, which carry only a resourceVersion. They come when the server chooses. Has no meaning without watch.",
        ));
        out.push(Parameter::query(
            "watch",
            "boolean",
            "Sends changes to the described objects as a stream of add, update and remove notifications. Specify resourceVersion.",
        ));
        out.sort();
        out
    }

    /// Of a delete of many.
    pub(super) fn delete_collection(&self) -> Vec<Parameter> {
        let mut out = select();
        out.extend(self.delete());
        out.sort();
        out
    }

    /// Of a delete (`DeleteOptions` upstream).
    pub(super) fn delete(&self) -> Vec<Parameter> {
        let options = [
            ("gracePeriodSeconds", "integer"),
            ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ];
        let mut out = vec![dry_run()];
        out.extend(options.map(|(name, ty)| {
            let text = self.descriptions.of_field("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", name);
            Parameter::query(name, ty, text.unwrap_or_default().to_owned())
        }));
        out
    }
}

/// Of a write.
pub(super) fn write() -> Vec<Parameter> {
    vec![
        dry_run(),
        Parameter::query(
            "fieldManager",
            "string",
            "The name of who makes these changes, at most 128 printable characters.",
        ),
        Parameter::query(
            "fieldValidation",
            "string",
            "What the server does with unknown and duplicate fields of the object: Ignore drops them silently and keeps the last duplicate; Warn, the default, does the same and adds a warning to the answer for each; Strict refuses the request with all of them.",
        ),
    ]
}

/// Of a patch.
pub(super) fn patch() -> Vec<Parameter> {
    let mut out = write();
    out.push(Parameter::query(
        "force",
        "boolean",
        "Takes over fields that other managers own. Only for apply requests; must be unset for the others.",
    ));
    out
}

fn dry_run() -> Parameter {
    Parameter::query(
        "dryRun",
        "string",
        "With the only valid value, All, every stage of the request is processed but nothing is kept.",
    )
}

fn select() -> Vec<Parameter> {
    [
        ("continue", "string", "The token of a previous answer with the same query, to get what comes after it. A token that is too old is answered with 410 ResourceExpired and a new token. Not for watch."),
        ("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields. Defaults to everything."),
        ("labelSelector", "string", "A selector to restrict the list of returned objects by their labels. Defaults to everything."),
        ("limit", "integer", "The most objects to answer with. When there are more, the list's metadata has a continue token for the next call. Not for watch."),
        ("resourceVersion", "string", "Constrains what resource versions the request may be served from. Defaults to unset."),
        ("resourceVersionMatch", "string", "How resourceVersion is applied to a list: Exact or NotOlderThan. Defaults to unset."),
        ("sendInitialEvents", "boolean", "With watch, begins the stream with the current objects as synthetic events, followed by a bookmark annotated k8s.io/initial-events-end. Requires resourceVersionMatch NotOlderThan."),
        ("timeoutSeconds", "integer", "Limits the duration of the call, regardless of any activity or inactivity."),
    ]
    .map(|(name, ty, text)| Parameter::query(name, ty, text))
    .to_vec()
}

/// Of what is connected to: the fields of the options kind, and of pods/log.
pub(super) fn options(kind: &str) -> Vec<Parameter> {
    let streams = |verb: &str| {
        vec![
            Parameter::query("container", "string", "The container; the only one of the pod when not given."),
            Parameter::query("stderr", "boolean", format!("Redirects the standard error of the {verb}.")),
            Parameter::query("stdin", "boolean", format!("Redirects the standard input of the {verb}.")),
            Parameter::query("stdout", "boolean", format!("Redirects the standard output of the {verb}.")),
            Parameter::query("tty", "boolean", format!("Allocates a terminal for the {verb}.")),
        ]
    };
    let path = |what: &str| {
        let text =
            format!("The part of the URL that follows, as it is to be used for the call to the {what}.");
        vec![Parameter::query("path", "string", text)]
    };
    match kind {
        "PodAttachOptions" => streams("attached process"),
        "PodExecOptions" => {
            let mut out = streams("command");
            out.push(Parameter::query("command", "string", "The command and its arguments; no shell runs it."));
            out
        }
        "PodPortForwardOptions" => {
            vec![Parameter::query("ports", "integer", "The ports to forward, when the transport needs them.")]
        }
        "PodProxyOptions" => path("pod"),
        "ServiceProxyOptions" => path("service"),
        "NodeProxyOptions" => path("node"),
        "PodLogOptions" => [
            ("container", "string", "The container whose log is read; the only one of the pod when not given."),
            ("follow", "boolean", "Follows the log as it is written. Defaults to false."),
            ("insecureSkipTLSVerifyBackend", "boolean", "Does not verify the serving certificate of the kubelet. Someone in between could then change the log."),
            ("limitBytes", "integer", "The most bytes to read before the log ends."),
            ("previous", "boolean", "Reads the log of the container that ran before. Defaults to false."),
            ("sinceSeconds", "integer", "How many seconds back the log begins. Only one of sinceSeconds and sinceTime may be given."),
            ("stream", "string", "Which of the container's streams: All, Stdout or Stderr. Defaults to All."),
            ("tailLines", "integer", "How many lines from the end of the log to show; all when not given."),
            ("timestamps", "boolean", "Begins every line with its time. Defaults to false."),
        ]
        .map(|(name, ty, text)| Parameter::query(name, ty, text))
        .to_vec(),
        _ => Vec::new(),
    }
}
