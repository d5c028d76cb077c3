//! GET of one object: the record's bytes. Source: apiserver `pkg/endpoints/handlers/get.go`.

use std::sync::Arc;

use http::StatusCode;

use crate::api::Api;
use crate::registry::Served;
use crate::request::{Answer, Call, Version};
use crate::status::{Result, Status};
use crate::stored::Form;
use crate::verbs::list;

/// # Errors
/// 404; 504 of a resourceVersion that is not reached.
pub async fn get(api: &Api, call: &Call, served: &Arc<Served>) -> Result<Answer> {
    let info = &call.info;
    let version = call.query.get("resourceVersion").unwrap_or_default();
    let version = Version::parse(version).map_err(|why| list::bad_version(version, &why))?;
    let key = served.key(&info.namespace, &info.name);
    let read = api.store.get(&key, None).await.map_err(|error| list::failed(&error))?;
    if let Version::At(asked) = version
        && asked > read.revision
    {
        return Err(list::too_large(asked, read.revision));
    }
    let kv = read.kv.ok_or_else(|| Status::not_found(&served.resource, &info.name))?;
    let bytes = Form::of(served).bytes(&kv)?;
    Ok(Answer::Object { code: StatusCode::OK, bytes, served: Some(Arc::clone(served)) })
}
