//! A record of the store as a served version of its resource: the record's own bytes wherever they already are that.

use bytes::{BufMut, Bytes, BytesMut};
use corten_store::KeyValue;

use crate::object::{self, Object};
use crate::registry::Served;
use crate::status::{Result, Status};

/// What a record of this resource begins with when it needs no conversion.
pub struct Form<'a> {
    served: &'a Served,
    head: Vec<u8>,
}

impl<'a> Form<'a> {
    pub fn of(served: &'a Served) -> Self {
        let resource = &served.resource;
        let head = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", resource.kind, resource.api_version());
        Self { served, head: head.into_bytes() }
    }

    fn is(&self, kv: &KeyValue) -> bool {
        kv.value.starts_with(&self.head)
    }

    /// As it is answered.
    ///
    /// # Errors
    /// 500: the record cannot be read.
    pub fn write(&self, kv: &KeyValue, to: &mut BytesMut) -> Result<()> {
        if self.is(kv) {
            object::write_answer(kv, to);
        } else {
            to.put_slice(&serde_json::to_vec(&self.object(kv)?.0).map_err(Status::internal)?);
        }
        Ok(())
    }

    /// As an item of a list: built-in kinds do not repeat what the list's kind says already.
    ///
    /// # Errors
    /// As [`Form::write`].
    pub fn write_item(&self, kv: &KeyValue, to: &mut BytesMut) -> Result<()> {
        const METADATA: &[u8] = b"\"metadata\":{";
        if self.served.is_custom() {
            return self.write(kv, to);
        }
        match kv.value.strip_prefix(&*self.head).and_then(|rest| rest.strip_prefix(METADATA)) {
            Some(tail) => {
                to.put_slice(b"{\"metadata\":{\"resourceVersion\":\"");
                to.put_slice(kv.mod_revision.to_string().as_bytes());
                to.put_slice(if tail.first() == Some(&b'}') { b"\"" } else { b"\"," });
                to.put_slice(tail.trim_ascii_end());
            }
            None => {
                let mut object = self.object(kv)?;
                object.0.remove("kind");
                object.0.remove("apiVersion");
                to.put_slice(&serde_json::to_vec(&object.0).map_err(Status::internal)?);
            }
        }
        Ok(())
    }

    /// # Errors
    /// As [`Form::write`].
    pub fn bytes(&self, kv: &KeyValue) -> Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(kv.value.len() + 48);
        self.write(kv, &mut bytes)?;
        Ok(bytes.freeze())
    }

    /// Parsed, with its resourceVersion.
    ///
    /// # Errors
    /// As [`Form::write`].
    pub fn object(&self, kv: &KeyValue) -> Result<Object> {
        Object::at_rest(kv).map_err(|error| {
            let key = String::from_utf8_lossy(&kv.key);
            Status::internal(format!("the record at {key} cannot be read: {error}"))
        })
    }
}
