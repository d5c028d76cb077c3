//! GET of many objects. Source: apiserver `pkg/storage/etcd3/store.go` GetList, `pkg/storage/cacher`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use corten_store::{KeyValue, List, Revision, StoreError};
use http::StatusCode;

use crate::api::Api;
use crate::object::Object;
use crate::pages::{self, Token};
use crate::registry::Served;
use crate::request::{Answer, Call, ListAnswer, ListMeta, ListOptions, Match, Version};
use crate::select::Fields;
use crate::status::{Cause, Details, Result, Status};
use crate::stored::Form;

/// # Errors
/// 400 and 422 of options, 410 of what is history no longer, 504 of a revision that is not reached.
pub async fn list(api: &Api, call: &Call, served: &Arc<Served>) -> Result<Answer> {
    let options = options(call, served)?;
    Ok(Answer::List(read(api, served, &call.info.namespace, &options).await?))
}

/// The options of a list or watch; a name in the path is one more of them.
///
/// # Errors
/// As [`ListOptions::of`]; 400 when two names are asked for.
pub fn options(call: &Call, served: &Served) -> Result<ListOptions> {
    let mut options = ListOptions::of(&call.query, served)?;
    let name = &call.info.name;
    if !name.is_empty() {
        if options.fields.is_empty() {
            options.fields = Fields::named(name);
        } else if options.fields.exactly("metadata.name") != Some(name) {
            const WHY: &str = "fieldSelector metadata.name doesn't match requested name";
            return Err(Status::bad_request(WHY));
        }
    }
    Ok(options)
}

/// The objects of a namespace (of all: "") that are selected, as they are or were.
///
/// # Errors
/// As [`list`].
pub async fn read(
    api: &Api,
    served: &Arc<Served>,
    namespace: &str,
    options: &ListOptions,
) -> Result<ListAnswer> {
    let select = Select::new(served, options);
    if let (Some(name), true) = (options.fields.exactly("metadata.name"), options.continue_token.is_empty())
        && (!served.resource.namespaced || !namespace.is_empty())
    {
        return one(api, served, namespace, name, options, &select).await;
    }
    let prefix = Bytes::from(served.prefix(namespace));
    let (at, after) = start(options, &prefix)?;
    let limit = if options.version == Version::Any && options.continue_token.is_empty() {
        0 // As from upstream's cache.
    } else {
        options.limit
    };
    let all_selected = select.is_everything();
    let mut items = Vec::new();
    let mut meta = ListMeta::default();
    let (mut at, mut after) = (at, after);
    loop {
        let wanted = (limit > 0).then(|| limit - items.len());
        // With a selector: more than what is wanted at once, or a rare match costs a read an object.
        let wanted = wanted.map(|wanted| if all_selected { wanted } else { wanted.max(MIN_PAGE) });
        let asked = List { prefix: prefix.clone(), at, limit: wanted, after: after.clone() };
        let page = match api.store.list(asked).await {
            Ok(page) => page,
            Err(StoreError::Compacted { .. }) if !options.continue_token.is_empty() => {
                return Err(pages::expired(&options.continue_token, &prefix));
            }
            Err(error) => return Err(failed(&error)),
        };
        if let Version::At(asked) = options.version
            && asked > page.revision
        {
            return Err(too_large(asked, page.revision));
        }
        meta.revision = page.revision;
        let (more, count) = (page.more(), page.count);
        let mut taken = 0;
        for kv in page.kvs {
            taken += 1;
            after = Some(kv.key.clone());
            if all_selected || select.matches(&kv)? {
                items.push(kv);
                if limit > 0 && items.len() == limit {
                    break;
                }
            }
        }
        let rest = count - taken;
        if limit > 0 && rest > 0 && items.len() == limit {
            let last = after.as_deref().unwrap_or_default();
            meta.continue_token = pages::encode(last, &prefix, meta.revision);
            meta.remaining = all_selected.then_some(rest);
            break;
        }
        if !more || rest == 0 {
            break;
        }
        at = Some(meta.revision);
    }
    Ok(ListAnswer { served: Arc::clone(served), items, meta })
}

const MIN_PAGE: usize = 500;

/// A list that its name makes one of no or one object.
async fn one(
    api: &Api,
    served: &Arc<Served>,
    namespace: &str,
    name: &str,
    options: &ListOptions,
    select: &Select<'_>,
) -> Result<ListAnswer> {
    let key = served.key(namespace, name);
    let at = match (options.version, options.matching) {
        (Version::At(revision), Some(Match::Exact)) => Some(revision),
        _ => None,
    };
    let read = api.store.get(&key, at).await.map_err(|error| failed(&error))?;
    if let Version::At(asked) = options.version
        && asked > read.revision
    {
        return Err(too_large(asked, read.revision));
    }
    let mut items = Vec::new();
    if let Some(kv) = read.kv
        && select.matches(&kv)?
    {
        items.push(kv);
    }
    let meta = ListMeta { revision: at.unwrap_or(read.revision), ..ListMeta::default() };
    Ok(ListAnswer { served: Arc::clone(served), items, meta })
}

/// From which revision, behind which key.
fn start(options: &ListOptions, prefix: &[u8]) -> Result<(Option<Revision>, Option<Bytes>)> {
    if !options.continue_token.is_empty() {
        if matches!(options.version, Version::At(_)) {
            const WHY: &str = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(WHY));
        }
        let Token { revision, after } =
            pages::decode(&options.continue_token, prefix).map_err(|why| invalid_token(&why))?;
        return Ok((revision, Some(after)));
    }
    Ok(match (options.version, options.matching) {
        (Version::At(revision), Some(Match::Exact)) => (Some(revision), None),
        // Without a match, a limit makes it exact (as it was before there was one).
        (Version::At(revision), None) if options.limit > 0 => (Some(revision), None),
        _ => (None, None),
    })
}

/// Which records of a resource are wanted.
pub struct Select<'a> {
    options: &'a ListOptions,
    form: Form,
}

impl<'a> Select<'a> {
    pub fn new(served: &Arc<Served>, options: &'a ListOptions) -> Self {
        Self { options, form: Form::of(served) }
    }

    pub fn is_everything(&self) -> bool {
        self.options.labels.is_empty() && self.options.fields.is_empty()
    }

    /// # Errors
    /// 500: the record cannot be read.
    pub fn matches(&self, kv: &KeyValue) -> Result<bool> {
        if self.is_everything() {
            return Ok(true);
        }
        let object = self.form.object(kv, kv.mod_revision)?;
        Ok(selects(self.options, &self.form.served, &object))
    }
}

/// Do an object's labels and fields hold what is asked for?
pub fn selects(options: &ListOptions, served: &Served, object: &Object) -> bool {
    let labels = object.labels();
    let label = |key: &str| labels?.get(key)?.as_str();
    let field = |field: &str| match field {
        "metadata.name" => Cow::Borrowed(object.name()),
        "metadata.namespace" => Cow::Borrowed(object.namespace()),
        _ => Cow::Owned(served.field(object, field).unwrap_or_default()),
    };
    options.labels.matches(label) && options.fields.matches(field)
}

fn invalid_token(why: &str) -> Status {
    Status::bad_request(format!("invalid continue token: {why}"))
}

pub fn bad_version(text: &str, why: &str) -> Status {
    let cause = Cause::invalid("resourceVersion", &text.into(), why);
    Status::bad_request(format!("invalid resource version: {cause}"))
}

/// 504: the client has seen what this store has not (yet).
pub fn too_large(asked: Revision, current: Revision) -> Status {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    let cause = Cause {
        reason: "ResourceVersionTooLarge",
        message: "Too large resource version".to_owned(),
        field: String::new(),
    };
    let details = Details {
        causes: vec![cause],
        retry_after: Some(std::time::Duration::from_secs(1)),
        ..Details::default()
    };
    Status::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).with(details)
}

/// What the store could not do, as clients know it.
pub fn failed(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { asked, oldest } => Status::expired(format!(
            "The resourceVersion for the provided list is too old. ({asked}, oldest {oldest})"
        )),
        StoreError::Future { asked } => too_large(*asked, 0),
        other => Status::internal(other),
    }
}
