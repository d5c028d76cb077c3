//! A record of the store as a served version of its resource: the record's own bytes wherever they already are that.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use corten_schema::builtin;
use corten_store::{KeyValue, Revision};

use crate::kinds::convert;
use crate::object::{self, Object};
use crate::registry::Served;
use crate::status::{Result, Status};

/// How records of a resource go out.
pub struct Form {
    pub served: Arc<Served>,
    /// What a record begins with when it needs no conversion.
    head: Vec<u8>,
}

const METADATA: &[u8] = b"\"metadata\":{";

impl Form {
    pub fn of(served: &Arc<Served>) -> Self {
        let resource = &served.resource;
        let head = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", resource.kind, resource.api_version());
        Self { served: Arc::clone(served), head: head.into_bytes() }
    }

    /// As it is answered, with this resourceVersion: the record's own, or that of its deletion.
    ///
    /// # Errors
    /// 500: the record cannot be read.
    pub fn write(&self, kv: &KeyValue, revision: Revision, to: &mut BytesMut) -> Result<()> {
        match self.tail(kv) {
            Some(tail) => {
                to.put_slice(&self.head);
                write_metadata(tail, revision, to);
            }
            None => write_value(&self.object(kv, revision)?, to),
        }
        Ok(())
    }

    /// As an item of a list: built-in kinds do not repeat what the list's kind says already.
    ///
    /// # Errors
    /// As [`Form::write`].
    pub fn write_item(&self, kv: &KeyValue, to: &mut BytesMut) -> Result<()> {
        if self.served.is_custom() {
            return self.write(kv, kv.mod_revision, to);
        }
        if let Some(tail) = self.tail(kv) {
            to.put_u8(b'{');
            write_metadata(tail, kv.mod_revision, to);
        } else {
            let mut object = self.object(kv, kv.mod_revision)?;
            object.0.remove("kind");
            object.0.remove("apiVersion");
            write_value(&object, to);
        }
        Ok(())
    }

    /// # Errors
    /// As [`Form::write`].
    pub fn bytes(&self, kv: &KeyValue) -> Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(kv.value.len() + 48);
        self.write(kv, kv.mod_revision, &mut bytes)?;
        Ok(bytes.freeze())
    }

    /// Parsed, with its resourceVersion.
    ///
    /// # Errors
    /// As [`Form::write`].
    pub fn object(&self, kv: &KeyValue, revision: Revision) -> Result<Object> {
        let unreadable = |why: &dyn std::fmt::Display| {
            let key = String::from_utf8_lossy(&kv.key);
            Status::internal(format!("the record at {key} cannot be read: {why}"))
        };
        let mut object = if corten_protobuf::is_envelope(&kv.value) {
            // Written by a kube-apiserver into an etcd that both use.
            let lookup = |api_version: &str, kind: &str| builtin().of_api_version(api_version, kind);
            let value = corten_protobuf::decode(&kv.value, lookup).map_err(|error| unreadable(&error))?;
            Object::of(value).ok_or_else(|| unreadable(&"it is no object"))?
        } else {
            Object::at_rest(kv).map_err(|error| unreadable(&error))?
        };
        convert::convert(&mut object, &self.served.resource.api_version());
        object.set_revision(revision);
        Ok(object)
    }

    /// What follows the opening of the metadata, of a record that needs no conversion.
    fn tail<'k>(&self, kv: &'k KeyValue) -> Option<&'k [u8]> {
        kv.value.strip_prefix(&*self.head)?.strip_prefix(METADATA)
    }
}

fn write_metadata(tail: &[u8], revision: Revision, to: &mut BytesMut) {
    to.put_slice(METADATA);
    object::write_revision(tail, revision, to);
}

fn write_value(object: &Object, to: &mut BytesMut) {
    serde_json::to_writer(to.writer(), &object.0).expect("a value is JSON");
}
