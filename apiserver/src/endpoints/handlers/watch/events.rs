//! What an event of a watch looks like: a line of JSON or a frame of protobuf, around the object in the shape that
//! was asked for.

use std::sync::Arc;

use bytes::Bytes;
use common::status::Status;

use super::super::super::negotiation::Shape;
use super::super::super::partial;
use super::super::super::printers::TablePrinter;
use crate::cacher::{CachedObject, Form, Shown, WatchEvent};
use crate::protobuf;
use crate::resources::Converter;

/// Writes the events of one watch.
pub(super) struct EventEncoder {
    pub kind: String,
    pub api_version: String,
    pub conversion: Option<Converter>,
    pub shape: Shape,
    pub printer: TablePrinter,
    /// A table's columns go with the first event only.
    pub columns_sent: bool,
    /// For frames of protobuf instead of lines of JSON; never with tables.
    pub messages: Option<Arc<protobuf::Table>>,
}

impl EventEncoder {
    /// Whether what an object is encoded as is worth sharing with other watches: it costs something, and is a function
    /// of the object.
    pub fn shares(&self) -> bool {
        self.form().is_some() && self.conversion.is_none()
    }

    fn form(&self) -> Option<Form> {
        match (self.shape, &self.messages) {
            (Shape::Table, _) | (Shape::Object, None) => None,
            (Shape::Object, Some(_)) => Some(Form::Protobuf),
            (Shape::PartialMetadata, None) => Some(Form::Partial),
            (Shape::PartialMetadata, Some(_)) => Some(Form::PartialProtobuf),
        }
    }

    /// Appends one event; true when it is the last.
    pub fn put(&mut self, out: &mut Vec<u8>, event: &WatchEvent) -> bool {
        let (name, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark { revision, initial_events_end } => {
                let annotations = if *initial_events_end {
                    ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}"
                } else {
                    ""
                };
                let (kind, api_version) = match self.shape {
                    Shape::Object => (self.kind.as_str(), self.api_version.as_str()),
                    Shape::PartialMetadata => ("PartialObjectMetadata", "meta.k8s.io/v1"),
                    Shape::Table => ("Table", "meta.k8s.io/v1"),
                };
                let object = format!(
                    "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"{annotations}}}}}"
                );
                return self.put_own(out, "BOOKMARK", object.as_bytes()).is_err();
            }
            WatchEvent::Error(status) => return self.put_error(out, status),
        };
        match self.body(object).and_then(|body| self.frame(out, name, &body)) {
            Ok(()) => false,
            Err(status) => self.put_error(out, &status),
        }
    }

    fn put_error(&self, out: &mut Vec<u8>, status: &Status) -> bool {
        // A Status always has a form.
        let _ = self.put_own(out, "ERROR", &status.to_json());
        true
    }

    /// An event around what is made here, as JSON.
    fn put_own(&self, out: &mut Vec<u8>, name: &str, json: &[u8]) -> Result<(), Status> {
        match &self.messages {
            Some(messages) => self.frame(out, name, &as_protobuf(messages, json)?),
            None => self.frame(out, name, json),
        }
    }

    /// The object as this watch wants it, made once for all that want the same.
    fn body(&mut self, shown: &Shown) -> Result<Bytes, Status> {
        if let Some(conversion) = &self.conversion {
            let converted = conversion.from_stored(shown.tree()).to_string();
            return self.shaped(shown, &converted.into());
        }
        match self.form() {
            Some(form) => {
                let messages = self.messages.as_deref();
                shown.encoded(form, |object| encoded(form, messages, &object.bytes))
            }
            None => self.shaped(shown, &shown.bytes),
        }
    }

    fn shaped(&mut self, object: &CachedObject, json: &Bytes) -> Result<Bytes, Status> {
        if let Some(form) = self.form() {
            return encoded(form, self.messages.as_deref(), json);
        }
        if self.shape == Shape::Object {
            return Ok(json.clone());
        }
        let metadata = serde_json::json!({"resourceVersion": object.revision.to_string()});
        let columns = !std::mem::replace(&mut self.columns_sent, true);
        self.printer.table(metadata, std::iter::once(json.as_ref()), columns)
    }

    fn frame(&self, out: &mut Vec<u8>, name: &str, body: &[u8]) -> Result<(), Status> {
        if self.messages.is_some() {
            return protobuf::put_watch_frame(out, name, body).map_err(Status::internal);
        }
        out.reserve(body.len() + name.len() + 24);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        out.extend_from_slice(body);
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

fn encoded(form: Form, messages: Option<&protobuf::Table>, json: &[u8]) -> Result<Bytes, Status> {
    match (form, messages) {
        (Form::Protobuf, Some(messages)) => as_protobuf(messages, json),
        (Form::PartialProtobuf, Some(messages)) => as_protobuf(messages, &partial::metadata(json)?),
        _ => partial::metadata(json),
    }
}

fn as_protobuf(messages: &protobuf::Table, json: &[u8]) -> Result<Bytes, Status> {
    protobuf::transcode(messages, json).map(Bytes::from).map_err(Status::internal)
}
