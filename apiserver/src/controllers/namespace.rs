//! Namespaces that are deleted: their content goes first, then they do. Source: kubernetes
//! `pkg/controller/namespace/deletion`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::future::ready;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ListParams, PartialObjectMeta, PostParams};
use kube::discovery::{ApiCapabilities, ApiResource, verbs};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};

use super::kinds;
use super::retry::Queue;

const FINALIZER: &str = "kubernetes";
/// While content remains whose end nobody foretells.
const AGAIN: Duration = Duration::from_millis(200);

pub async fn run(client: Client) {
    let namespaces = watcher::watcher(Api::<Namespace>::all(client.clone()), watcher::Config::default());
    let mut deleted = namespaces
        .filter_map(|event| {
            ready(match event {
                Ok(Event::Apply(namespace) | Event::InitApply(namespace)) => {
                    namespace.metadata.deletion_timestamp.is_some().then(|| namespace.name_any())
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::debug!("watch of namespaces: {error}");
                    None
                }
            })
        })
        .boxed();
    let mut queue = Queue::new();
    let handle = queue.handle();
    loop {
        tokio::select! {
            Some(name) = deleted.next() => handle.add(name),
            name = queue.next() => match end(&client, &name).await {
                Ok(None) => queue.succeeded(&name),
                Ok(Some(after)) => {
                    queue.succeeded(&name);
                    handle.add_after(name, after);
                }
                Err(error) => {
                    tracing::debug!(namespace = %name, "its deletion: {error}");
                    queue.failed(name);
                }
            },
        }
    }
}

/// What is left of a namespace's content.
#[derive(Debug, Default)]
struct Left {
    resources: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    /// The longest grace of a pod.
    grace: i64,
    errors: Vec<String>,
}

/// Goes on with a deletion; `Some`: there is more to do after that time.
async fn end(client: &Client, name: &str) -> kube::Result<Option<Duration>> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let Some(mut namespace) = namespaces.get_opt(name).await? else { return Ok(None) };
    if namespace.metadata.deletion_timestamp.is_none() {
        return Ok(None);
    }
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(None);
    }
    let status = namespace.status.get_or_insert_default();
    if status.phase.as_deref() != Some("Terminating") {
        status.phase = Some("Terminating".to_owned());
        namespace = namespaces.replace_status(name, &PostParams::default(), &namespace).await?;
    }
    let (left, undiscovered) = match kinds::in_namespaces(client).await {
        Ok(kinds) => (content(client, name, kinds).await, None),
        Err(error) => (Left::default(), Some(error.to_string())),
    };
    let remains = !left.resources.is_empty() || !left.errors.is_empty() || undiscovered.is_some();
    if !remains {
        let spec = namespace.spec.get_or_insert_default();
        spec.finalizers = Some(finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect());
        return match namespaces
            .replace_subresource::<Namespace>("finalize", name, &PostParams::default(), &namespace)
            .await
        {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        };
    }
    let after = Duration::from_secs((left.grace / 2).max(0).cast_unsigned()).max(AGAIN);
    let status = namespace.status.get_or_insert_default();
    let had = status.conditions.get_or_insert_default();
    if update(had, conditions(&left, undiscovered), Timestamp::now()) {
        namespaces.replace_status(name, &PostParams::default(), &namespace).await?;
    }
    Ok(Some(after))
}

/// Deletes pods, and when none is left everything else (KEP-5080); tells what is still there.
async fn content(client: &Client, namespace: &str, kinds: Vec<(ApiResource, ApiCapabilities)>) -> Left {
    let mut left = Left::default();
    let (pods, others): (Vec<_>, Vec<_>) =
        kinds.into_iter().partition(|(resource, _)| resource.group.is_empty() && resource.plural == "pods");
    for kinds in [pods, others] {
        for (resource, can) in &kinds {
            if let Err(error) = empty(client, namespace, resource, can, &mut left).await {
                left.errors.push(error.to_string());
            }
        }
        if !left.resources.is_empty() {
            break;
        }
    }
    left
}

async fn empty(
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
    can: &ApiCapabilities,
    left: &mut Left,
) -> kube::Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let none = |result: kube::Result<()>| match result {
        // The kind is served no more.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => Ok(()),
        other => other,
    };
    let list = match api.list_metadata(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) => return none(Err(error)),
    };
    if list.is_empty() {
        return Ok(());
    }
    let how = DeleteParams::background();
    if can.supports_operation(verbs::DELETE_COLLECTION) {
        none(api.delete_collection(&how, &ListParams::default()).await.map(|_| ()))?;
    } else {
        for object in &list {
            none(api.delete(&object.name_any(), &how).await.map(|_| ()))?;
        }
    }
    let remaining: Vec<PartialObjectMeta<DynamicObject>> =
        api.list_metadata(&ListParams::default()).await?.items;
    if remaining.is_empty() {
        return Ok(());
    }
    left.resources.insert(format!("{}.{}", resource.plural, resource.group), remaining.len());
    for object in &remaining {
        for finalizer in object.finalizers() {
            *left.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        left.grace = left.grace.max(object.metadata.deletion_grace_period_seconds.unwrap_or_default());
    }
    Ok(())
}

/// Type, status, reason and message of each condition.
fn conditions(left: &Left, undiscovered: Option<String>) -> [(&'static str, bool, &'static str, String); 5] {
    let list = |counts: &BTreeMap<String, usize>, what: &dyn Fn(&str, usize) -> String| {
        counts.iter().map(|(name, count)| what(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let mut errors = left.errors.clone();
    errors.sort();
    [
        match undiscovered {
            Some(error) => ("NamespaceDeletionDiscoveryFailure", true, "DiscoveryFailed", error),
            None => (
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".to_owned(),
            ),
        },
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        if errors.is_empty() {
            (
                "NamespaceDeletionContentFailure",
                false,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_owned(),
            )
        } else {
            let count = errors.len();
            let what =
                format!("Failed to delete all resource types, {count} remaining: {}", errors.join(", "));
            ("NamespaceDeletionContentFailure", true, "ContentDeletionFailed", what)
        },
        if left.resources.is_empty() {
            (
                "NamespaceContentRemaining",
                false,
                "ContentRemoved",
                "All content successfully removed".to_owned(),
            )
        } else {
            let list = list(&left.resources, &|name, count| format!("{name} has {count} resource instances"));
            let what = format!("Some resources are remaining: {list}");
            ("NamespaceContentRemaining", true, "SomeResourcesRemain", what)
        },
        if left.finalizers.is_empty() {
            (
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            )
        } else {
            let list = list(&left.finalizers, &|name, count| format!("{name} in {count} resource instances"));
            let what = format!("Some content in the namespace has finalizers remaining: {list}");
            ("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", what)
        },
    ]
}

/// Did anything change?
fn update(
    had: &mut Vec<NamespaceCondition>,
    new: [(&'static str, bool, &'static str, String); 5],
    now: Timestamp,
) -> bool {
    let mut changed = false;
    for (type_, status, reason, message) in new {
        let status = if status { "True" } else { "False" };
        let at = had.iter().position(|one| one.type_ == type_);
        let old = at.map(|at| &had[at]);
        if old.is_some_and(|old| {
            old.status == status
                && old.reason.as_deref() == Some(reason)
                && old.message.as_deref() == Some(&message)
        }) {
            continue;
        }
        changed = true;
        let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        };
        match at {
            Some(at) => had[at] = condition,
            None => had.push(condition),
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_told_in_upstreams_words() {
        let left = Left {
            resources: BTreeMap::from([("pods.".to_owned(), 2), ("deployments.apps".to_owned(), 1)]),
            finalizers: BTreeMap::from([("example.org/a".to_owned(), 1)]),
            ..Left::default()
        };
        let mut had = Vec::new();
        assert!(update(&mut had, conditions(&left, None), Timestamp::UNIX_EPOCH));
        assert!(!update(&mut had, conditions(&left, None), Timestamp::now()));
        let of = |name: &str| had.iter().find(|one| one.type_ == name).expect("it is there").clone();
        let remaining = of("NamespaceContentRemaining");
        assert_eq!(remaining.status, "True");
        assert_eq!(
            remaining.message.as_deref(),
            Some(
                "Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances"
            )
        );
        let finalizers = of("NamespaceFinalizersRemaining").message;
        assert_eq!(
            finalizers.as_deref(),
            Some(
                "Some content in the namespace has finalizers remaining: example.org/a in 1 resource instances"
            )
        );
        assert_eq!(of("NamespaceDeletionContentFailure").status, "False");
    }
}
