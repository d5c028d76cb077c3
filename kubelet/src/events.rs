//! Which pods changed in the runtime (upstream: PLEG). By the runtime's event stream when it has one; else, and only
//! while there are pods, by a list once a second, as upstream does. Tells UIDs, not what happened: the pod's worker
//! looks for itself.

use std::collections::HashMap;
use std::time::Duration;

use corten_cri_api::v1 as cri;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;

use crate::cri::{Code, Cri, CriError};
use crate::pod::labels::POD_UID;

const RELIST: Duration = Duration::from_secs(1);
/// With a stream, in case it lost one.
const RELIST_WITH_STREAM: Duration = Duration::from_mins(5);
const STREAM_RETRY: Duration = Duration::from_secs(1);

/// Watches until the receiver is gone. `pods` says whether there is any pod to watch for.
pub async fn watch(cri: Cri, changed: mpsc::UnboundedSender<String>, mut pods: watch::Receiver<bool>) {
    let (stream_lives, has_stream) = watch::channel(false);
    let streamed = stream(cri.clone(), changed.clone(), stream_lives);
    tokio::select! {
        () = streamed => {}
        () = relist(cri, changed, &mut pods, has_stream) => {}
    }
}

/// Follows the event stream, again and again; ends never: a runtime without one leaves the relist alone.
async fn stream(cri: Cri, changed: mpsc::UnboundedSender<String>, lives: watch::Sender<bool>) {
    loop {
        match cri.container_events().await {
            Err(error) if error.code() == Code::Unimplemented => std::future::pending().await,
            Err(error) => tracing::debug!("container events: {error}"),
            Ok(mut events) => {
                lives.send_replace(true);
                while let Some(Ok(event)) = events.next().await {
                    let metadata = event.pod_sandbox_status.and_then(|s| s.metadata);
                    if let Some(metadata) = metadata {
                        let _ = changed.send(metadata.uid);
                    }
                }
                lives.send_replace(false);
            }
        }
        tokio::time::sleep(STREAM_RETRY).await;
    }
}

async fn relist(
    cri: Cri,
    changed: mpsc::UnboundedSender<String>,
    pods: &mut watch::Receiver<bool>,
    mut has_stream: watch::Receiver<bool>,
) {
    let mut before = HashMap::new();
    loop {
        if pods.wait_for(|any| *any).await.is_err() || changed.is_closed() {
            return;
        }
        match list(&cri).await {
            Ok(now) => {
                for uid in differing(&before, &now) {
                    let _ = changed.send(uid);
                }
                before = now;
            }
            Err(error) => tracing::debug!("relist: {error}"),
        }
        let pause = if *has_stream.borrow_and_update() { RELIST_WITH_STREAM } else { RELIST };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // The stream came or went: list at once, for what happened in between.
            _ = has_stream.changed() => {}
        }
    }
}

/// What a list says of each pod: ids and states of its sandboxes and containers, sorted.
type Seen = HashMap<String, Vec<(String, i32)>>;

async fn list(cri: &Cri) -> Result<Seen, CriError> {
    let sandboxes = cri.list_pod_sandbox(cri::ListPodSandboxRequest::default());
    let containers = cri.list_containers(cri::ListContainersRequest::default());
    let (sandboxes, containers) = tokio::try_join!(sandboxes, containers)?;
    let sandboxes = sandboxes.items.into_iter().map(|s| (s.labels, s.id, s.state));
    let containers = containers.containers.into_iter().map(|c| (c.labels, c.id, c.state));
    let mut seen = Seen::new();
    for (mut labels, id, state) in sandboxes.chain(containers) {
        if let Some(uid) = labels.remove(POD_UID) {
            seen.entry(uid).or_default().push((id, state));
        }
    }
    for list in seen.values_mut() {
        list.sort();
    }
    Ok(seen)
}

fn differing(before: &Seen, now: &Seen) -> Vec<String> {
    let differs = |uid: &&String| before.get(*uid) != now.get(*uid);
    let gone = before.keys().filter(|uid| !now.contains_key(*uid));
    now.keys().filter(differs).chain(gone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_changed_when_anything_of_it_did() {
        let seen = |pods: &[(&str, &[(&str, i32)])]| -> Seen {
            pods.iter()
                .map(|(uid, l)| (uid.to_string(), l.iter().map(|(i, s)| (i.to_string(), *s)).collect()))
                .collect()
        };
        let before = seen(&[("a", &[("c", 1)]), ("b", &[("d", 1)]), ("gone", &[("e", 1)])]);
        let now = seen(&[("a", &[("c", 2)]), ("b", &[("d", 1)]), ("new", &[("f", 0)])]);
        let mut changed = differing(&before, &now);
        changed.sort();
        assert_eq!(changed, ["a", "gone", "new"]);
    }
}
