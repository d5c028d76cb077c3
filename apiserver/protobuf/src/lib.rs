//! Kubernetes' protobuf to and from JSON, by the field numbers of the schema table.
//!
//! A message is `k8s\0` and an envelope with apiVersion, kind and the object's bytes. Nothing here has code for a kind:
//! [`corten_schema::Wire`] says where a field lies, its type how it is written; [`special`] has the few types whose
//! message is not what their JSON looks like. Zero values follow Go's JSON: a field that has `omitempty` and is no
//! pointer is left out when it is zero, though upstream's encoder writes it.
#![forbid(unsafe_code)]

mod decode;
mod encode;
mod envelope;
mod error;
mod special;
#[cfg(test)]
mod tests;
mod text;
mod wire;

use corten_schema::Node;
use serde_json::Value;

pub use envelope::{MEDIA_TYPE, is_envelope};
pub use error::{Error, Problem};

/// A message in its envelope as a JSON object with apiVersion and kind.
///
/// `lookup`: the type of (apiVersion, kind); both are empty where the sender left them out.
///
/// # Errors
/// It is no such message; its kind is not known; a field has another form than its type. Unknown fields are skipped.
/// Source: apimachinery `pkg/runtime/serializer/protobuf`.
pub fn decode<'a>(bytes: &[u8], lookup: impl Fn(&str, &str) -> Option<Node<'a>>) -> Result<Value, Error> {
    decode::enveloped(bytes, &lookup, 0)
}

/// An object that has apiVersion and kind as a message in its envelope.
///
/// # Errors
/// A field has another form than its type.
pub fn encode(node: Node<'_>, object: &Value) -> Result<Vec<u8>, Error> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut raw = Vec::new();
    encode::message(node, object, &mut raw)?;
    Ok(envelope::write(text("apiVersion"), text("kind"), &raw))
}

/// A frame of a watch: its length (four bytes, big-endian) and the event, whose object is what [`encode`] makes.
pub fn watch_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut event = vec![0; 4];
    wire::write_bytes(&mut event, 1, kind.as_bytes());
    wire::write_message(&mut event, 2, |raw| wire::write_bytes(raw, 1, object));
    let length = u32::try_from(event.len() - 4).unwrap_or(u32::MAX);
    event[..4].copy_from_slice(&length.to_be_bytes());
    event
}
