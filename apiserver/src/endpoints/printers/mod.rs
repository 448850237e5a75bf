//! `as=Table`: what `kubectl get` and `-o wide` print, decided by the server.
//!
//! One literal row per kind names its columns and the function that fills them; wide columns have priority 1.
//! A kind without a row shows its name and creation time. Answers to upstream's
//! `pkg/printers/internalversion`.

mod cluster;
mod control;
mod devices;
mod human;
mod network;
mod parts;
mod pod;
mod storage;
mod workloads;

use std::sync::Arc;

use bytes::Bytes;
use common::status::Status;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::partial;
use crate::apiextensions::CustomKind;
use crate::json::{self, Parts};

/// Name, type, priority.
type Column = (&'static str, &'static str, u8);

/// The cells of one object, in the order of the columns.
type Cells = fn(&Value, Timestamp) -> Vec<Value>;

/// How one kind is printed.
struct Printer {
    group: &'static str,
    kind: &'static str,
    columns: &'static [Column],
    cells: Cells,
}

const DEFAULT: Printer = Printer {
    group: "",
    kind: "",
    columns: &[("Name", "string", 0), ("Created At", "date", 0)],
    cells: |o, _| vec![text(o, "/metadata/name").into(), text(o, "/metadata/creationTimestamp").into()],
};

/// `includeObject`: what of the object goes with each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// Reads the query parameter; absent means metadata.
    ///
    /// # Errors
    /// 400 for another word.
    pub fn parse(text: &str) -> Result<Self, Status> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(Status::bad_request(format!(
                "unrecognized includeObject value: \"{other}\"; it must be None, Metadata or Object"
            ))),
        }
    }
}

/// Prints objects of one kind.
#[derive(Clone)]
pub struct TablePrinter {
    printer: &'static Printer,
    /// What of an object is read.
    parts: Parts,
    /// In place of the printer's columns.
    custom: Option<Arc<CustomKind>>,
    include: Include,
}

impl TablePrinter {
    pub fn new(group: &str, kind: &str, include: Include) -> Self {
        let printer = printers().find(|p| p.group == group && p.kind == kind).unwrap_or(&DEFAULT);
        Self { printer, parts: parts::of(printer), custom: None, include }
    }

    /// Prints a custom kind with the columns of its definition.
    pub fn custom(kind: Arc<CustomKind>, include: Include) -> Self {
        Self { printer: &DEFAULT, parts: Parts::All, custom: Some(kind), include }
    }

    /// The table of a list or of one object. `metadata` is the list's; `with_columns` is false in all but the
    /// first event of a watch.
    ///
    /// # Errors
    /// When an object is not JSON: never for bytes from the cache.
    pub fn table<'a>(
        &self,
        metadata: Value,
        objects: impl Iterator<Item = &'a [u8]>,
        with_columns: bool,
    ) -> Result<Bytes, Status> {
        let now = Timestamp::now();
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
        out.extend_from_slice(metadata.to_string().as_bytes());
        out.extend_from_slice(b",\"columnDefinitions\":");
        let columns = if with_columns { self.columns() } else { Value::Null };
        out.extend_from_slice(columns.to_string().as_bytes());
        out.extend_from_slice(b",\"rows\":[");
        for (index, bytes) in objects.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.row(bytes, now, &mut out)?;
        }
        out.extend_from_slice(b"]}");
        Ok(out.into())
    }

    fn columns(&self) -> Value {
        if let Some(kind) = &self.custom {
            return kind.columns().definitions();
        }
        let columns = self.printer.columns.iter().map(|(name, kind, priority)| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
        });
        Value::Array(columns.collect())
    }

    fn row(&self, bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) -> Result<(), Status> {
        let picked = json::pick(bytes, &self.parts).map_err(Status::internal)?;
        let object = picked.tree;
        let cells = match &self.custom {
            Some(kind) => kind.columns().cells(&object, now),
            None => (self.printer.cells)(&object, now),
        };
        let cells = Value::Array(cells);
        out.extend_from_slice(b"{\"cells\":");
        out.extend_from_slice(cells.to_string().as_bytes());
        if self.printer.kind == "Pod" {
            let reason = match text(&object, "/status/phase") {
                "Succeeded" => Some(("Succeeded", "The pod has completed successfully.")),
                "Failed" => Some(("Failed", "The pod failed.")),
                _ => None,
            };
            if let Some((reason, message)) = reason {
                let conditions =
                    json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]);
                out.extend_from_slice(b",\"conditions\":");
                out.extend_from_slice(conditions.to_string().as_bytes());
            }
        }
        match self.include {
            Include::None => {}
            Include::Metadata => {
                out.extend_from_slice(b",\"object\":");
                partial::put(picked.metadata, out);
            }
            Include::Object => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(bytes);
            }
        }
        out.push(b'}');
        Ok(())
    }
}

fn printers() -> impl Iterator<Item = &'static Printer> {
    [
        pod::PRINTERS,
        workloads::PRINTERS,
        network::PRINTERS,
        cluster::PRINTERS,
        storage::PRINTERS,
        control::PRINTERS,
        devices::PRINTERS,
    ]
    .into_iter()
    .flatten()
}

/// A string by JSON pointer; empty when absent.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// As [`text`], with a word for absence.
fn text_or<'a>(object: &'a Value, pointer: &str, absent: &'a str) -> &'a str {
    Some(text(object, pointer)).filter(|t| !t.is_empty()).unwrap_or(absent)
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn map<'a>(object: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    object.pointer(pointer).and_then(Value::as_object)
}

fn name(object: &Value) -> Value {
    text(object, "/metadata/name").into()
}

/// How long ago the object was made.
fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, "/metadata/creationTimestamp"), now).into()
}

/// How long ago a time was; `<unknown>` when it is none.
pub fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => human::duration(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".into(),
    }
}

/// `a=b,c=d` in key order; `<none>` without labels.
fn labels(labels: Option<&Map<String, Value>>) -> String {
    let pairs: Vec<String> =
        labels.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// A LabelSelector as one line.
fn selector(object: &Value, pointer: &str) -> String {
    let parsed = object.pointer(pointer).and_then(|s| serde_json::from_value(s.clone()).ok());
    match common::labels::Selector::from_label_selector(parsed.as_ref()) {
        Ok(selector) if selector.is_everything() => "<none>".into(),
        Ok(selector) => {
            Some(selector.to_string()).filter(|s| !s.is_empty()).unwrap_or_else(|| "<none>".into())
        }
        Err(_) => "<error>".into(),
    }
}

/// The names and the images of a pod template's containers.
fn containers(object: &Value, pointer: &str) -> [Value; 2] {
    ["/name", "/image"].map(|field| {
        let parts: Vec<&str> = list(object, pointer).iter().map(|c| text(c, field)).collect();
        parts.join(",").into()
    })
}

/// At most three, then `+ N more...`.
fn at_most_three(all: &[String]) -> String {
    match all.len() {
        0 => "<unset>".into(),
        n if n > 3 => format!("{} + {} more...", all[..3].join(","), n - 3),
        _ => all.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(group: &str, kind: &str, object: &Value) -> Vec<Value> {
        let printer = TablePrinter::new(group, kind, Include::None);
        let bytes = object.to_string();
        let table = printer.table(json!({}), std::iter::once(bytes.as_bytes()), true).expect("table");
        let table: Value = serde_json::from_slice(&table).expect("json");
        let (columns, row) = (&table["columnDefinitions"], &table["rows"][0]["cells"]);
        assert_eq!(
            columns.as_array().map(Vec::len),
            row.as_array().map(Vec::len),
            "{kind}: a cell per column"
        );
        row.as_array().cloned().unwrap_or_default()
    }

    #[test]
    fn every_printer_fills_its_columns_even_for_an_empty_object() {
        for printer in printers() {
            cells(printer.group, printer.kind, &json!({"metadata": {}}));
        }
    }

    #[test]
    fn a_pod_in_its_ways() {
        let status = |status: Value| {
            let pod =
                json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}, "status": status});
            let cells = cells("", "Pod", &pod);
            (cells[1].clone(), cells[2].clone(), cells[3].clone())
        };
        assert_eq!(status(json!({"phase": "Pending"})), (json!("0/1"), json!("Pending"), json!("0")));
        assert_eq!(
            status(json!({"phase": "Running", "containerStatuses": [
                {"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}}]})),
            (json!("1/1"), json!("Running"), json!("0"))
        );
        assert_eq!(
            status(json!({"phase": "Running", "containerStatuses": [
                {"name": "c", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]})),
            (json!("0/1"), json!("CrashLoopBackOff"), json!("2"))
        );
        assert_eq!(
            status(json!({"phase": "Succeeded", "containerStatuses": [
                {"name": "c", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]})),
            (json!("0/1"), json!("Completed"), json!("0"))
        );
    }

    #[test]
    fn services_and_endpoints() {
        let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}], "selector": {"a": "b"}}});
        let row = cells("", "Service", &service);
        assert_eq!(row[1..5], [json!("NodePort"), json!("10.0.0.1"), json!("<none>"), json!("80:30080/TCP")]);
        assert_eq!(row[6], json!("a=b"));
        let addresses: Vec<Value> = (1..6).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
        let endpoints = json!({"metadata": {"name": "e"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(
            cells("", "Endpoints", &endpoints)[1],
            json!("10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...")
        );
    }

    #[test]
    fn rows_carry_what_was_asked_for() {
        let object = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":"v"}}"#;
        let table = |include| {
            let printer = TablePrinter::new("", "ConfigMap", include);
            let bytes = printer.table(json!({}), std::iter::once(object.as_slice()), false).expect("table");
            serde_json::from_slice::<Value>(&bytes).expect("json")
        };
        assert_eq!(table(Include::Metadata)["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table(Include::Object)["rows"][0]["object"]["data"]["k"], "v");
        assert!(table(Include::None)["rows"][0].get("object").is_none());
        assert!(table(Include::None)["columnDefinitions"].is_null());
        assert!(Include::parse("All").is_err());
    }
}
