//! GET that goes on: what changes. Source: apiserver `pkg/endpoints/handlers/watch.go`, `pkg/storage/cacher/cacher.go`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_store::{Keys, Revision, StoreError, Told};
use corten_streaming::upgrade::is_websocket;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc::{Receiver, channel};

use super::list;
use crate::api::{Api, Body};
use crate::fresh;
use crate::registry::Served;
use crate::request::shape::Include;
use crate::request::{Answer, Call, Format, ListOptions, Offers, Version, not_acceptable_stream};
use crate::status::{Result, Status};
use crate::watch::{Encoder, Interest, Item, Joined, Scope, WatchBody, refused, told_alone, upgrade};

/// Changes of the past that wait for a client.
const MISSED_QUEUE: usize = 64;

/// # Errors
/// 400 and 422 of options, 406, 429 on the way down; what goes wrong later is an event of the watch.
pub async fn watch(
    api: &Arc<Api>,
    call: &Call,
    served: &Arc<Served>,
    mut request: Request<Body>,
) -> Result<Answer> {
    let accept = call.accept(Offers::Watches)?;
    if accept.format != Format::Json {
        return Err(not_acceptable_stream());
    }
    let options = list::options(call, served)?;
    let timeout = options.timeout.filter(|time| !time.is_zero()).unwrap_or_else(|| {
        // Spread, so that clients do not come back all at once.
        api.config.min_request_timeout.mul_f64(1.0 + fresh::fraction())
    });
    let encoder = Arc::new(Encoder::new(served, accept.shape, Include::of(&call.query)?));
    let namespace = &call.info.namespace;
    let scope = match options.fields.exactly("metadata.name") {
        Some(name) if !served.resource.namespaced || !namespace.is_empty() => {
            Scope::Key(served.key(namespace, name).into())
        }
        _ => Scope::Prefix(served.prefix(namespace).into()),
    };
    let interest = Arc::new(Interest { scope, options, encoder });
    let body = match begin(api, served, namespace, &interest, timeout).await {
        Ok(Some(body)) => body.boxed_unsync(),
        // client-go lists anew after a watch that ends at once; after this it asks again from where it was.
        Ok(None) => return Err(shutting_down()),
        // As upstream: from here on, errors are events.
        Err(status) => whole(refused(&status)),
    };
    if is_websocket(&call.headers) {
        return Ok(Answer::Raw(upgrade(call, &mut request, body)?));
    }
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let json = HeaderValue::from_static(Format::Json.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(Answer::Raw(response))
}

/// Source: apiserver `pkg/server/filters/with_retry_after.go`.
fn shutting_down() -> Status {
    const MESSAGE: &str = "The apiserver is shutting down, please try again later.";
    Status::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", MESSAGE).retry_after(Duration::from_secs(1))
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

async fn begin(
    api: &Arc<Api>,
    served: &Arc<Served>,
    namespace: &str,
    interest: &Arc<Interest>,
    timeout: Duration,
) -> Result<Option<WatchBody>> {
    let prefix = Bytes::from(served.prefix(""));
    // First a place among the watchers, then the past: nothing falls between.
    let joined = api.watches.join(&prefix, interest).await.map_err(|error| list::failed(&error))?;
    let Some(joined) = joined else { return Ok(None) };
    let options = &interest.options;
    Ok(Some(match (options.version, options.send_initial_events) {
        (Version::At(revision), None | Some(false)) => {
            resume(api, interest, joined, revision, timeout).await?
        }
        (Version::Unset | Version::Any, Some(false)) => {
            let since = joined.since;
            WatchBody::live(Arc::clone(interest), joined, since, timeout)
        }
        (version, _) => {
            // Not older than what is asked for: the store's answer is the newest.
            let options = ListOptions { version, matching: None, limit: 0, ..options.clone() };
            let found = list::read(api, served, namespace, &options).await?;
            let body = WatchBody::live(Arc::clone(interest), joined, found.meta.revision, timeout);
            body.with_initial(found.items, options.bookmarks)
        }
    }))
}

/// What happened after `revision`, without a gap.
async fn resume(
    api: &Arc<Api>,
    interest: &Arc<Interest>,
    joined: Joined,
    revision: Revision,
    timeout: Duration,
) -> Result<WatchBody> {
    let until = joined.since;
    let body = WatchBody::live(Arc::clone(interest), joined, revision, timeout);
    if revision >= until {
        return Ok(body);
    }
    let missed = missed(api, interest, revision, until).await.map_err(|error| match error {
        StoreError::Compacted { asked, oldest } => {
            Status::expired(format!("too old resource version: {} ({oldest})", asked - 1))
        }
        other => list::failed(&other),
    })?;
    Ok(body.with_missed(missed))
}

/// The changes after `from` up to and with `until`, from a watch of its own.
async fn missed(
    api: &Arc<Api>,
    interest: &Arc<Interest>,
    from: Revision,
    until: Revision,
) -> Result<Receiver<Result<Item>>, StoreError> {
    let keys = match &interest.scope {
        Scope::Prefix(prefix) => Keys::Prefix(prefix.clone()),
        Scope::Key(key) => Keys::One(key.clone()),
    };
    let mut watcher = api.store.watch(keys, Some(from + 1)).await?;
    // Without progress the end of the past is told by the first change of the present.
    if api.store.tells_progress() {
        watcher.ask_progress().await?;
    }
    let interest = Arc::clone(interest);
    let (queue, receiver) = channel(MISSED_QUEUE);
    tokio::spawn(async move {
        let mut headers = interest.encoder.has_headers();
        loop {
            let changes = match watcher.next().await {
                Ok(Told::Changes(changes)) => changes,
                Ok(Told::Progress(revision)) if revision >= until => return,
                Ok(Told::Progress(_)) => {
                    let _ = watcher.ask_progress().await;
                    continue;
                }
                Err(error) => {
                    let _ = queue.send(Err(list::failed(&error))).await;
                    return;
                }
            };
            for change in changes {
                if change.revision() > until {
                    return;
                }
                if let Some(item) = told_alone(&interest, &change, headers) {
                    headers = false;
                    if queue.send(Ok(item)).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    Ok(receiver)
}
