//! How every source publishes: a snapshot that is another one goes out, and people are told what is new in it.

use tokio::sync::watch;
use tracing::{info, warn};

use super::Snapshot;

/// A channel with the first snapshot in it.
pub fn channel(first: Snapshot) -> (watch::Sender<Snapshot>, watch::Receiver<Snapshot>) {
    say(None, &first);
    watch::channel(first)
}

/// Publishes what `next` makes of the snapshot before; the same one again is no news.
pub fn publish(sender: &watch::Sender<Snapshot>, next: impl FnOnce(&Snapshot) -> Snapshot) {
    let previous = sender.borrow().clone();
    let next = next(&previous);
    if next != previous {
        say(Some(&previous), &next);
        sender.send_replace(next);
    }
}

/// Tells what a person wants to know of a change, once.
fn say(previous: Option<&Snapshot>, next: &Snapshot) {
    if previous.map(|p| &p.fault) != Some(&next.fault) {
        match &next.fault {
            Some(fault) => warn!("{fault}"),
            None if previous.is_some() => info!("nodes can be read again"),
            None => {}
        }
    }
    for left in &next.left_out {
        if previous.is_none_or(|p| !p.left_out.contains(left)) {
            warn!(node = left.node, "left out: {}", left.why);
        }
    }
    if previous.is_none_or(|p| p.peers != next.peers) {
        info!(peers = next.peers.len(), "nodes changed");
    }
}
