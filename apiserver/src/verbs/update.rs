//! PUT of an object, or of the part of it that a subresource is. Source: apiserver `pkg/endpoints/handlers/update.go`.

use std::sync::Arc;

use crate::api::Api;
use crate::decode;
use crate::meta;
use crate::registry::Served;
use crate::request::{Answer, Call, Content, WriteOptions};
use crate::status::Result;
use crate::write::{Change, Path, Writing};

/// # Errors
/// 400, 415 of a body that is no such object; as [`Writing::update`].
pub async fn update(api: &Arc<Api>, call: &Call, served: &Arc<Served>, content: &Content) -> Result<Answer> {
    let info = &call.info;
    let options = WriteOptions::of(&call.query, "UpdateOptions", false)?;
    let mut object = decode::resource(call, content, served, options.validation)?;
    let namespace = if served.resource.namespaced { &*info.namespace } else { "" };
    meta::take_namespace(&mut object, namespace)?;
    meta::check_name(&object, &info.name)?;
    let main = info.subresource.is_empty();
    let writing = Writing {
        api,
        call,
        served,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        options: &options,
    };
    writing.dedup_owners(&mut object, false);
    let change = Change {
        create: main && served.kind.create_on_update,
        uid: Some(object.uid().to_owned()).filter(|uid| !uid.is_empty()),
        ..Change::of(if main { Path::Main } else { Path::Part })
    };
    Ok(writing.update(&change, |_| Ok(object.clone())).await?.answer(served))
}
