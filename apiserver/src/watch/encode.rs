//! Events as they go over the wire: a line of JSON each.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use corten_store::{KeyValue, Revision};
use serde_json::{Value, json};

use super::EventType;
use crate::registry::Served;
use crate::request::Shape;
use crate::request::shape::{self, Include};
use crate::status::{Result, Status};
use crate::stored::Form;

/// Makes events of one resource in one form.
pub struct Encoder {
    form: Form,
    shape: Shape,
    include: Include,
}

/// What upstream says with the last initial event.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl Encoder {
    pub fn new(served: &Arc<Served>, shape: Shape, include: Include) -> Self {
        Self { form: Form::of(served), shape, include }
    }

    pub fn served(&self) -> &Arc<Served> {
        &self.form.served
    }

    pub fn form(&self) -> &Form {
        &self.form
    }

    /// The same bytes come out.
    pub fn is_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.served(), other.served())
            && self.shape == other.shape
            && self.include == other.include
    }

    /// Tables say their columns once.
    pub fn has_headers(&self) -> bool {
        matches!(self.shape, Shape::Table { .. })
    }

    /// # Errors
    /// 500: the record cannot be read.
    pub fn event(&self, kind: EventType, kv: &KeyValue, revision: Revision, headers: bool) -> Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(kv.value.len() + 96);
        self.write_event(kind, kv, revision, headers, &mut bytes)?;
        Ok(bytes.freeze())
    }

    /// [`Encoder::event`] behind what is there already.
    ///
    /// # Errors
    /// As there.
    pub fn write_event(
        &self,
        kind: EventType,
        kv: &KeyValue,
        revision: Revision,
        headers: bool,
        to: &mut BytesMut,
    ) -> Result<()> {
        open(kind, to);
        if self.shape == Shape::Whole {
            self.form.write(kv, revision, to)?;
        } else {
            let mut whole = BytesMut::with_capacity(kv.value.len() + 48);
            self.form.write(kv, revision, &mut whole)?;
            let shaped = shape::one(self.served(), self.shape, self.include, headers, &whole.freeze())?;
            to.put_slice(&shaped);
        }
        to.put_slice(b"}\n");
        Ok(())
    }

    /// `initial_end`: everything that was there before is told.
    pub fn bookmark(&self, revision: Revision, initial_end: bool, headers: bool) -> Bytes {
        let resource = &self.served().resource;
        let annotations = if initial_end {
            format!(",\"annotations\":{{\"{INITIAL_EVENTS_END}\":\"true\"}}")
        } else {
            String::new()
        };
        let whole = format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"{annotations}}}}}",
            resource.kind,
            resource.api_version(),
        );
        let whole = Bytes::from(whole);
        let shaped = shape::one(self.served(), self.shape, self.include, headers, &whole).unwrap_or(whole);
        let mut bytes = BytesMut::with_capacity(shaped.len() + 40);
        open(EventType::Bookmark, &mut bytes);
        bytes.put_slice(&shaped);
        bytes.put_slice(b"}\n");
        bytes.freeze()
    }
}

fn open(kind: EventType, to: &mut BytesMut) {
    to.put_slice(b"{\"type\":\"");
    to.put_slice(kind.name().as_bytes());
    to.put_slice(b"\",\"object\":");
}

/// How a watch that cannot go on says so.
pub fn error(status: &Status) -> Bytes {
    let event: Value = json!({"type": EventType::Error.name(), "object": status.to_json()});
    format!("{event}\n").into()
}
