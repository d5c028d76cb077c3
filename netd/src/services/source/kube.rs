//! Services and EndpointSlices of an apiserver, by list and watch.
//!
//! What belongs to another proxy or to a headless Service is left out by the apiserver itself, as for kube-proxy. A lost
//! connection keeps the last objects, and [`Snapshot::fault`] says so until a watch works again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::Snapshot;
use crate::services::model::{Objects, Place};
use crate::services::object::{HEADLESS_LABEL, ObjectName, PROXY_NAME_LABEL};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// A rollout changes several objects: wait this long for the rest.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// At most this share of the time goes into models, however much changes.
const REST: u32 = 4;

/// Watches from now on. The zone of `place` is read from the Node of its name, unless it is given.
pub fn watch(client: Client, place: Place) -> watch::Receiver<Snapshot> {
    let mut news = streams(&client, &place);
    let sender = watch::Sender::new(Snapshot::default());
    let receiver = sender.subscribe();
    tokio::spawn(async move {
        let mut known = Known { place, ..Known::default() };
        let mut due: Option<Instant> = None;
        let mut rest = DEBOUNCE;
        loop {
            tokio::select! {
                heard = news.next() => {
                    let Some(heard) = heard else { return };
                    if known.hear(heard) && due.is_none() {
                        due = Some(Instant::now() + rest);
                    }
                }
                () = until(due), if due.is_some() => {
                    due = None;
                    let start = Instant::now();
                    let snapshot = known.snapshot(sender.borrow().model.clone());
                    sender.send_if_modified(|old| {
                        let new = *old != snapshot;
                        *old = snapshot;
                        new
                    });
                    rest = DEBOUNCE.max(start.elapsed() * REST);
                }
                () = sender.closed() => return,
            }
        }
    });
    receiver
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

enum Heard {
    Service(Box<Result<Event<Service>, watcher::Error>>),
    Slice(Box<Result<Event<EndpointSlice>, watcher::Error>>),
    Node(Box<Result<Event<PartialObjectMeta<Node>>, watcher::Error>>),
}

fn streams(client: &Client, place: &Place) -> futures::stream::SelectAll<BoxStream<'static, Heard>> {
    let ours = watcher::Config::default().labels(&format!("!{PROXY_NAME_LABEL},!{HEADLESS_LABEL}"));
    let services = watcher(Api::<Service>::all(client.clone()), ours.clone()).default_backoff();
    let slices = watcher(Api::<EndpointSlice>::all(client.clone()), ours).default_backoff();
    let mut streams = vec![
        services.map(|heard| Heard::Service(Box::new(heard))).boxed(),
        slices.map(|heard| Heard::Slice(Box::new(heard))).boxed(),
    ];
    if place.zone.is_none() {
        let one = watcher::Config::default().fields(&format!("metadata.name={}", place.node));
        let node = watcher(Api::<PartialObjectMeta<Node>>::all(client.clone()), one).default_backoff();
        streams.push(node.map(|heard| Heard::Node(Box::new(heard))).boxed());
    }
    select_all(streams)
}

/// Everything heard so far.
#[derive(Default)]
struct Known {
    objects: Objects,
    place: Place,
    services: Listing,
    slices: Listing,
}

/// How far the objects of one kind are known.
#[derive(Default)]
struct Listing {
    /// Listed once, whole.
    complete: bool,
    /// A list is being read: what it has had so far.
    listed: Option<BTreeSet<ObjectName>>,
    fault: Option<String>,
}

impl Listing {
    /// Returns the names that are gone, of those `known`, when a list has ended.
    fn ended<'a>(&mut self, known: impl Iterator<Item = &'a ObjectName>) -> Vec<ObjectName> {
        self.complete = true;
        let listed = self.listed.take().unwrap_or_default();
        known.filter(|name| !listed.contains(*name)).cloned().collect()
    }

    fn failed(&mut self, what: &str, error: &watcher::Error) {
        let fault = format!("{what}: {error}");
        if self.fault.as_ref() != Some(&fault) {
            warn!("{fault}");
        }
        self.fault = Some(fault);
    }
}

impl Known {
    /// Whether a snapshot would differ, as far as can be told cheaply.
    fn hear(&mut self, heard: Heard) -> bool {
        match heard {
            Heard::Service(heard) => match *heard {
                Ok(event) => self.service(event),
                Err(error) => self.services.failed("watch Services", &error),
            },
            Heard::Slice(heard) => match *heard {
                Ok(event) => self.slice(event),
                Err(error) => self.slices.failed("watch EndpointSlices", &error),
            },
            Heard::Node(heard) => return self.node(*heard),
        }
        true
    }

    fn node(&mut self, heard: Result<Event<PartialObjectMeta<Node>>, watcher::Error>) -> bool {
        let node = match heard {
            Ok(Event::Apply(node) | Event::InitApply(node)) => node,
            Ok(_) => return false,
            Err(error) => {
                // Without it traffic only stays less near.
                warn!("watch the Node {}: {error}", self.place.node);
                return false;
            }
        };
        let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL));
        let new = self.place.zone.as_ref() != zone;
        self.place.zone = zone.cloned();
        new
    }

    fn service(&mut self, event: Event<Service>) {
        self.services.fault = None;
        match event {
            Event::Init => self.services.listed = Some(BTreeSet::new()),
            Event::Apply(service) => self.objects.put_service(&service),
            Event::InitApply(service) => {
                self.objects.put_service(&service);
                self.services.listed.get_or_insert_default().insert(ObjectName::of(&service.metadata));
            }
            Event::Delete(service) => self.objects.remove_service(&ObjectName::of(&service.metadata)),
            Event::InitDone => {
                for name in self.services.ended(self.objects.services.keys()) {
                    self.objects.remove_service(&name);
                }
            }
        }
    }

    fn slice(&mut self, event: Event<EndpointSlice>) {
        self.slices.fault = None;
        match event {
            Event::Init => self.slices.listed = Some(BTreeSet::new()),
            Event::Apply(slice) => self.objects.put_slice(&slice),
            Event::InitApply(slice) => {
                self.objects.put_slice(&slice);
                self.slices.listed.get_or_insert_default().insert(ObjectName::of(&slice.metadata));
            }
            Event::Delete(slice) => self.objects.remove_slice(&ObjectName::of(&slice.metadata)),
            Event::InitDone => {
                for name in self.slices.ended(self.objects.slices.keys()) {
                    self.objects.remove_slice(&name);
                }
            }
        }
    }

    /// A model only of everything: half a list would refuse connections to the other half. While a list is read again
    /// the objects of before are still among them. `last`: taken when nothing has changed, so that it is the same one.
    fn snapshot(&self, last: Option<Arc<crate::services::model::Model>>) -> Snapshot {
        let faults = [&self.services.fault, &self.slices.fault];
        let fault = faults.into_iter().flatten().cloned().collect::<Vec<_>>().join("; ");
        let complete = self.services.complete && self.slices.complete;
        let model = complete.then(|| self.objects.model(&self.place));
        let model = model.map(|model| last.filter(|last| **last == model).unwrap_or_else(|| Arc::new(model)));
        Snapshot { model, fault: (!fault.is_empty()).then_some(fault) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, address: &str) -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "d"},
            "spec": {"clusterIP": address, "ports": [{"port": 80}]},
        }))
        .expect("a Service")
    }

    fn slice(service: &str, address: &str) -> EndpointSlice {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": service, "namespace": "d", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": [address]}],
        }))
        .expect("an EndpointSlice")
    }

    fn hear(known: &mut Known, services: Vec<Event<Service>>, slices: Vec<Event<EndpointSlice>>) {
        for event in services {
            known.hear(Heard::Service(Box::new(Ok(event))));
        }
        for event in slices {
            known.hear(Heard::Slice(Box::new(Ok(event))));
        }
    }

    fn counts(known: &Known) -> Option<(usize, usize)> {
        known.snapshot(None).model.map(|model| (model.service_count(), model.endpoint_count()))
    }

    #[test]
    fn there_is_no_model_before_both_lists_are_whole() {
        let mut known = Known::default();
        let services = vec![Event::Init, Event::InitApply(service("a", "10.96.0.1")), Event::InitDone];
        hear(&mut known, services, vec![Event::Init, Event::InitApply(slice("a", "10.0.0.1"))]);
        assert_eq!(counts(&known), None);
        hear(&mut known, vec![], vec![Event::InitDone]);
        assert_eq!(counts(&known), Some((1, 1)));
    }

    #[test]
    fn what_went_while_we_did_not_watch_goes_when_the_next_list_ends() {
        let mut known = Known::default();
        let first =
            ["a", "b"].map(|name| Event::InitApply(service(name, &format!("10.96.0.{}", name.len()))));
        hear(&mut known, first.into_iter().chain([Event::InitDone]).collect(), vec![Event::InitDone]);
        hear(&mut known, vec![Event::Init, Event::InitApply(service("a", "10.96.0.1"))], vec![]);
        assert_eq!(known.objects.services.len(), 2, "the list has not ended");
        hear(&mut known, vec![Event::InitDone], vec![]);
        assert_eq!(counts(&known), Some((1, 0)));
        hear(
            &mut known,
            vec![Event::Delete(service("a", "10.96.0.1"))],
            vec![Event::Apply(slice("a", "10.0.0.1"))],
        );
        assert_eq!(counts(&known), Some((0, 0)));
    }

    #[test]
    fn a_fault_is_told_with_the_last_model_and_forgotten_with_the_next_event() {
        let mut known = Known::default();
        hear(
            &mut known,
            vec![Event::InitApply(service("a", "10.96.0.1")), Event::InitDone],
            vec![Event::InitDone],
        );
        assert!(known.hear(Heard::Slice(Box::new(Err(watcher::Error::NoResourceVersion)))));
        let snapshot = known.snapshot(None);
        assert!(snapshot.model.is_some());
        assert!(snapshot.fault.expect("said").starts_with("watch EndpointSlices: "));
        hear(&mut known, vec![], vec![Event::Apply(slice("a", "10.0.0.1"))]);
        let again = known.snapshot(None);
        assert_eq!(again.fault, None);
        let kept = known.snapshot(again.model.clone()).model.expect("a model");
        assert!(Arc::ptr_eq(&kept, &again.model.expect("a model")), "nothing changed");
    }
}
