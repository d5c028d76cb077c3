//! What is made of objects on the way out: PartialObjectMetadata and Table.
//! Source: apiserver `pkg/endpoints/handlers/response.go`.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::{Query, Shape};
use crate::object::{self, Object};
use crate::registry::Served;
use crate::status::{Result, Status};
use crate::{fresh, table};

/// `?includeObject=`: what a Table's row carries beside its cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Include {
    /// # Errors
    /// 400 in upstream's words.
    pub fn of(query: &Query) -> Result<Self> {
        match query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => {
                let value = Value::from(other);
                Err(Status::bad_request(format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {value}: must be 'Metadata', \
                     'Object', 'None', or empty"
                )))
            }
        }
    }
}

/// One object, given as it is answered whole.
///
/// # Errors
/// 500: it cannot be read.
pub fn one(served: &Served, shape: Shape, include: Include, headers: bool, whole: &Bytes) -> Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(1024);
    match shape {
        Shape::Whole => return Ok(whole.clone()),
        Shape::Metadata { version } => metadata(version, whole, &mut bytes)?,
        Shape::Table { version } => {
            let object = parse(whole)?;
            let meta = json!({"resourceVersion": object.resource_version()});
            head_of_table(served, version, &meta, headers, &mut bytes);
            row(served, version, include, whole, &object, &mut bytes)?;
            bytes.put_slice(b"]}");
        }
    }
    Ok(bytes.freeze())
}

/// Everything of a list before its first item.
pub fn head_of_list(served: &Served, shape: Shape, meta: &Value, to: &mut BytesMut) {
    let resource = &served.resource;
    let (kind, api_version) = match shape {
        Shape::Whole => (format!("{}List", resource.kind), resource.api_version()),
        Shape::Metadata { version } => {
            ("PartialObjectMetadataList".to_owned(), format!("meta.k8s.io/{version}"))
        }
        Shape::Table { version } => return head_of_table(served, version, meta, true, to),
    };
    let head =
        format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":[");
    to.put_slice(head.as_bytes());
}

/// One item of a list, given as it is answered whole.
///
/// # Errors
/// 500: it cannot be read.
pub fn item(served: &Served, shape: Shape, include: Include, whole: &Bytes, to: &mut BytesMut) -> Result<()> {
    match shape {
        Shape::Whole => {
            to.put_slice(whole);
            Ok(())
        }
        Shape::Metadata { version } => metadata(version, whole, to),
        Shape::Table { version } => row(served, version, include, whole, &parse(whole)?, to),
    }
}

fn parse(whole: &[u8]) -> Result<Object> {
    serde_json::from_slice(whole).map(Object).map_err(Status::internal)
}

fn metadata(version: &str, whole: &[u8], to: &mut BytesMut) -> Result<()> {
    let head = format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":"
    );
    to.put_slice(head.as_bytes());
    if let Some(metadata) = object::metadata_of(whole) {
        to.put_slice(metadata);
    } else {
        let object = parse(whole)?;
        to.put_slice(&serde_json::to_vec(&object.meta()).map_err(Status::internal)?);
    }
    to.put_u8(b'}');
    Ok(())
}

fn head_of_table(served: &Served, version: &str, meta: &Value, headers: bool, to: &mut BytesMut) {
    let columns = if headers { table::columns(served) } else { Value::Null };
    let head = format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{meta},\"columnDefinitions\":{columns},\"rows\":["
    );
    to.put_slice(head.as_bytes());
}

fn row(
    served: &Served,
    version: &str,
    include: Include,
    whole: &[u8],
    object: &Object,
    to: &mut BytesMut,
) -> Result<()> {
    to.put_slice(b"{\"cells\":");
    let row = table::row(served, object, fresh::seconds());
    to.put_slice(&serde_json::to_vec(&row.cells).map_err(Status::internal)?);
    if let Some(conditions) = row.conditions {
        to.put_slice(b",\"conditions\":");
        to.put_slice(&serde_json::to_vec(&conditions).map_err(Status::internal)?);
    }
    to.put_slice(b",\"object\":");
    match include {
        Include::None => to.put_slice(b"null"),
        Include::Object => to.put_slice(whole),
        Include::Metadata => metadata(version, whole, to)?,
    }
    to.put_u8(b'}');
    Ok(())
}
