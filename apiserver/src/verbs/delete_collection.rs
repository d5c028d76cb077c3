//! DELETE of all objects that are selected. Not atomic: one that cannot be deleted ends it.
//! Source: apiserver `pkg/registry/generic/registry/store.go` (DeleteCollection).

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};

use super::{delete, list};
use crate::api::Api;
use crate::deletion::Asked;
use crate::registry::Served;
use crate::request::{Answer, Call, Content, WriteOptions};
use crate::status::Result;
use crate::stored::Form;
use crate::write::Writing;

/// Deletions of one collection at the same time. Upstream's default is 1.
const WORKERS: usize = 16;

/// # Errors
/// As [`list::read`] and [`delete::one`].
pub async fn delete_collection(
    api: &Arc<Api>,
    call: &Call,
    served: &Arc<Served>,
    content: &Content,
) -> Result<Answer> {
    let info = &call.info;
    let selected = list::options(call, served)?;
    let asked = delete::asked(call, content)?;
    let options = WriteOptions { dry_run: asked.dry_run, ..WriteOptions::default() };
    let found = list::read(api, served, &info.namespace, &selected).await?;
    let form = Form::of(served);
    let mut names = Vec::with_capacity(found.items.len());
    for kv in &found.items {
        let object = form.object(kv, kv.mod_revision)?;
        names.push((object.namespace().to_owned(), object.name().to_owned()));
    }
    let mut deletions: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(names.len());
    for (namespace, name) in &names {
        deletions.push(one(api, call, served, namespace, name, &options, &asked));
    }
    stream::iter(deletions).buffer_unordered(WORKERS).try_collect::<()>().await?;
    Ok(Answer::List(found))
}

/// One of them; it may be gone already.
fn one<'a>(
    api: &'a Arc<Api>,
    call: &'a Call,
    served: &'a Arc<Served>,
    namespace: &'a str,
    name: &'a str,
    options: &'a WriteOptions,
    asked: &'a Asked,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let writing = Writing { api, call, served, subresource: "", namespace, name, options };
        match delete::one(&writing, asked).await {
            Err(status) if status.reason() != "NotFound" => Err(status),
            _ => Ok(()),
        }
    })
}
