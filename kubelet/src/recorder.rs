//! What happened, as v1 Events: the last ones are kept, and each is told to whoever follows. An event that repeats
//! (a failing probe) counts up instead of filling the list.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use tokio::sync::broadcast;

use crate::clock::now_ns;
use crate::pod::{init_containers, name, namespace, uid};
use crate::status::time;

const KEPT: usize = 1000;
/// A follower that is this far behind loses the oldest.
const BACKLOG: usize = 1024;

#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Mutex<Kept>>,
    tell: broadcast::Sender<Arc<Event>>,
    node: String,
}

#[derive(Default)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    serial: u64,
}

impl Recorder {
    pub fn new(node: String) -> Self {
        Self { inner: Arc::default(), tell: broadcast::channel(BACKLOG).0, node }
    }

    pub fn normal(&self, pod: &Pod, container: Option<&str>, reason: &str, message: String) {
        self.record("Normal", about(pod, container), reason, message);
    }
    pub fn warning(&self, pod: &Pod, container: Option<&str>, reason: &str, message: String) {
        self.record("Warning", about(pod, container), reason, message);
    }
    /// An event about a manifest file.
    pub fn file(&self, file: &str, reason: &str, message: String) {
        let object =
            ObjectReference { kind: Some("File".into()), name: Some(file.into()), ..Default::default() };
        self.record("Warning", object, reason, message);
    }

    /// The kept events, oldest first, and all that follow: none twice, none missed.
    pub fn follow(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.events.iter().cloned().collect(), self.tell.subscribe())
    }

    fn record(&self, kind: &str, object: ObjectReference, reason: &str, message: String) {
        if kind == "Normal" {
            tracing::info!(object = object.name, container = object.field_path, reason, "{message}");
        } else {
            tracing::warn!(object = object.name, container = object.field_path, reason, "{message}");
        }
        let now = time(now_ns());
        let mut kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |e: &Arc<Event>| {
            e.involved_object == object
                && e.reason.as_deref() == Some(reason)
                && e.message.as_deref() == Some(message.as_str())
        };
        let repeated = kept.events.iter().rposition(same).and_then(|at| kept.events.remove(at));
        let event = if let Some(before) = repeated {
            let mut event = Event::clone(&before);
            event.count = Some(event.count.unwrap_or(1) + 1);
            event.last_timestamp = Some(now);
            event
        } else {
            kept.serial += 1;
            let mut event = Event {
                count: Some(1),
                first_timestamp: Some(now.clone()),
                last_timestamp: Some(now),
                reason: Some(reason.into()),
                message: Some(message),
                type_: Some(kind.into()),
                source: Some(EventSource {
                    component: Some("kubelet".into()),
                    host: Some(self.node.clone()),
                }),
                ..Event::default()
            };
            event.metadata.name =
                Some(format!("{}.{:x}", object.name.as_deref().unwrap_or_default(), kept.serial));
            event.metadata.namespace.clone_from(&object.namespace);
            event.involved_object = object;
            event
        };
        let event = Arc::new(event);
        kept.events.push_back(event.clone());
        if kept.events.len() > KEPT {
            kept.events.pop_front();
        }
        // Without a follower there is nobody to tell; told under the lock so that `follow` misses none.
        let _ = self.tell.send(event);
    }
}

fn about(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let list = |c: &str| {
        if init_containers(pod).iter().any(|i| i.name == c) { "initContainers" } else { "containers" }
    };
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(namespace(pod).into()),
        name: Some(name(pod).into()),
        uid: Some(uid(pod).into()),
        field_path: container.map(|c| format!("spec.{}{{{c}}}", list(c))),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_event_counts_and_the_list_is_bounded() {
        let recorder = Recorder::new("n".into());
        let pod = Pod::default();
        for _ in 0..3 {
            recorder.warning(&pod, Some("c"), "Unhealthy", "no".into());
        }
        let (events, mut more) = recorder.follow();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].count, Some(3));
        assert_eq!(events[0].involved_object.field_path.as_deref(), Some("spec.containers{c}"));
        for i in 0..KEPT + 5 {
            recorder.normal(&pod, None, "Pulled", i.to_string());
        }
        assert_eq!(recorder.follow().0.len(), KEPT);
        assert!(more.try_recv().is_ok() || more.try_recv().is_ok());
    }
}
