//! Dependents go with their owners: in the background, before them (foreground), or stay (orphan).
//!
//! [`graph`] is who owns whom, kept by watches of all kinds; [`collect`] decides and acts for one object at a time.
//! Nothing is kept anywhere: after a restart the first lists bring all back, and every object with owners is judged.
//! Source: kubernetes `pkg/controller/garbagecollector`.

mod collect;
mod graph;
mod monitor;

use std::sync::{Arc, Mutex};

use kube::Client;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::retry::Queue;
use graph::Graph;

/// Objects that are judged at the same time. Upstream: --concurrent-gc-syncs=20.
const AT_ONCE: usize = 20;

pub async fn run(client: Client) {
    let graph = Arc::new(Mutex::new(Graph::default()));
    let mut queue = Queue::new();
    let handle = queue.handle();
    let kinds = Arc::new(monitor::Kinds::default());
    let watching = monitor::run(client.clone(), Arc::clone(&kinds), Arc::clone(&graph), handle);
    let mut watching = std::pin::pin!(watching);
    // Before all is known an owner that is not seen yet would be asked for one by one.
    tokio::select! {
        () = kinds.ready() => {}
        () = &mut watching => return,
    }
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks: JoinSet<(graph::Uid, kube::Result<()>)> = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut watching => return,
            Some(done) = tasks.join_next() => {
                let Ok((uid, result)) = done else { continue };
                match result {
                    Ok(()) => queue.succeeded(&uid),
                    Err(error) => {
                        tracing::debug!(%uid, "garbage collection: {error}");
                        queue.failed(uid);
                    }
                }
            }
            (uid, slot) = next(&mut queue, &slots) => {
                let collector = collect::Collector {
                    client: client.clone(),
                    graph: Arc::clone(&graph),
                    kinds: Arc::clone(&kinds),
                    queue: queue.handle(),
                };
                tasks.spawn(async move {
                    let result = collector.judge(&uid).await;
                    drop(slot);
                    (uid, result)
                });
            }
        }
    }
}

async fn next(
    queue: &mut Queue<graph::Uid>,
    slots: &Arc<Semaphore>,
) -> (graph::Uid, Option<tokio::sync::OwnedSemaphorePermit>) {
    // The slot first: the key stays in the queue, where it is merged with later ones.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    (queue.next().await, slot)
}
