//! POST of a new object. Source: apiserver `pkg/endpoints/handlers/create.go`.

use std::sync::Arc;

use crate::api::Api;
use crate::decode;
use crate::meta;
use crate::registry::Served;
use crate::request::{Answer, Call, Content, WriteOptions};
use crate::status::{Result, Status};
use crate::write::Writing;

/// # Errors
/// 400, 415 of a body that is no such object; as [`Writing::create`].
pub async fn create(api: &Arc<Api>, call: &Call, served: &Arc<Served>, content: &Content) -> Result<Answer> {
    let info = &call.info;
    if !info.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let options = WriteOptions::of(&call.query, "CreateOptions", false)?;
    let mut object = decode::resource(call, content, served, options.validation)?;
    meta::wipe(&mut object);
    let resource = &served.resource;
    meta::take_namespace(&mut object, if resource.namespaced { &info.namespace } else { "" })?;
    let name = object.name().to_owned();
    let is_namespace = resource.group.is_empty() && resource.kind == "Namespace";
    let writing = Writing {
        api,
        call,
        served,
        subresource: "",
        namespace: if is_namespace { &name } else { &info.namespace },
        name: &name,
        options: &options,
    };
    Ok(writing.create(object).await?.answer(served))
}
