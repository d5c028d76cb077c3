//! Concurrent writers. A history is recorded (what each call was answered, when it began and ended) and checked:
//! each key is a register whose values have revisions, so linearizable means that
//! - each write replaced exactly the one before it: the writes of a key form one chain;
//! - of two calls that did not overlap, the later saw, or made, no older state than the earlier.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use corten_store::{Change, Keys, Put, Revision, Store, Swap, Told};

use crate::common::{DEADLINE, Fixture, Random, effort};

const WRITERS: u64 = 8;
const KEYS: u64 = 3;

#[derive(Debug, Clone, Copy)]
struct Call {
    key: u64,
    began: Instant,
    ended: Instant,
    /// The revision of the state that the call saw last or made; 0: the key was not there and its time is unknown.
    state: Revision,
    /// A write: the revision it replaced (0: none).
    replaced: Option<Revision>,
    deletes: bool,
}

async fn write(store: Arc<dyn Store>, writer: u64, calls: u64) -> Vec<Call> {
    let mut random = Random::new(writer + 1);
    let mut history = Vec::new();
    let mut known = HashMap::new();
    for number in 0..calls {
        let key = random.below(KEYS);
        let name = format!("/r/{key}");
        let expected = known.get(&key).copied().unwrap_or(0);
        let kind = random.below(10);
        let began = Instant::now();
        let call =
            |state, replaced, deletes| Call { key, began, ended: Instant::now(), state, replaced, deletes };
        let swap = match kind {
            0..2 => {
                let kv = store.get(name.as_bytes(), None).await.expect("get").kv;
                let state = kv.map_or(0, |kv| kv.mod_revision);
                history.push(call(state, None, false));
                known.insert(key, state);
                continue;
            }
            2 if expected != 0 => store.delete(name.as_bytes(), expected).await.expect("delete"),
            _ => store.put(Put::update(name, format!("{writer} {number}"), expected)).await.expect("put"),
        };
        match swap {
            Swap::Done(revision) => {
                let deletes = kind == 2 && expected != 0;
                history.push(call(revision, Some(expected), deletes));
                known.insert(key, if deletes { 0 } else { revision });
            }
            Swap::Changed { current, .. } => {
                let state = current.map_or(0, |kv| kv.mod_revision);
                assert_ne!(state, expected, "refused though it was as expected");
                history.push(call(state, None, false));
                known.insert(key, state);
            }
        }
    }
    history
}

fn check(history: &[Call]) -> (usize, usize) {
    let mut writes = 0;
    for key in 0..KEYS {
        let mut calls: Vec<_> = history.iter().filter(|call| call.key == key).collect();
        let mut chain: Vec<_> = calls.iter().filter(|call| call.replaced.is_some()).collect();
        chain.sort_by_key(|call| call.state);
        let mut there = 0;
        for call in &chain {
            assert_eq!(call.replaced, Some(there), "a write that did not replace the one before: {call:?}");
            there = if call.deletes { 0 } else { call.state };
        }
        writes += chain.len();
        // Absent states have no revision of their own: they are left to the chain.
        calls.retain(|call| call.state != 0);
        calls.sort_by_key(|call| call.began);
        let mut ended: Vec<_> = calls.clone();
        ended.sort_by_key(|call| call.ended);
        let (mut newest, mut place) = (0, 0);
        for call in calls {
            while place < ended.len() && ended[place].ended < call.began {
                newest = newest.max(ended[place].state);
                place += 1;
            }
            assert!(call.state >= newest, "saw {} though {newest} was answered before: {call:?}", call.state);
        }
    }
    (history.len(), writes)
}

async fn run(fixture: &Fixture, calls: u64) -> Vec<Call> {
    let tasks: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(write(fixture.store.clone(), writer, calls))).collect();
    let mut history = Vec::new();
    for task in tasks {
        history.extend(task.await.expect("writer"));
    }
    history
}

pub async fn concurrent_writers_are_linearizable(fixture: &Fixture) {
    let history = run(fixture, effort("CORTEN_STORE_CALLS", 150)).await;
    let (calls, writes) = check(&history);
    println!("{calls} calls, {writes} writes");
    let mut revisions: Vec<_> =
        history.iter().filter(|call| call.replaced.is_some()).map(|call| call.state).collect();
    revisions.sort_unstable();
    assert!(revisions.windows(2).all(|pair| pair[0] + 1 == pair[1]), "one revision a write, none twice");
}

pub async fn every_watch_sees_the_writers_history(fixture: &Fixture) {
    let watches: Vec<_> = (0..4)
        .map(|number| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                // From now, or from the beginning later on.
                let from = (number % 2 == 1).then_some(2);
                tokio::time::sleep(std::time::Duration::from_millis(number * 30)).await;
                let from = if number == 0 { None } else { from.or(Some(2)) };
                let mut watcher = store.watch(Keys::Prefix("/".into()), from).await.expect("watch");
                let mut seen = Vec::new();
                loop {
                    match tokio::time::timeout(DEADLINE, watcher.next())
                        .await
                        .expect("in time")
                        .expect("next")
                    {
                        Told::Changes(changes) => seen.extend(changes),
                        told @ Told::Progress(_) => panic!("{told:?}"),
                    }
                    if seen.last().is_some_and(|change| change.key() == "/end") {
                        return seen;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let history = run(fixture, 60).await;
    fixture.store.put(Put::create("/end", "x")).await.expect("put");
    let mut written: Vec<_> = history.iter().filter(|call| call.replaced.is_some()).collect();
    written.sort_by_key(|call| call.state);
    for watch in watches {
        let mut seen = watch.await.expect("watch");
        seen.pop();
        let skipped = written.len() - seen.len();
        // The first may have begun after some writes; the others begin at the beginning.
        assert_eq!(
            seen.iter().map(|change| change.revision()).collect::<Vec<_>>(),
            written[skipped..].iter().map(|call| call.state).collect::<Vec<_>>()
        );
        for (change, call) in seen.iter().zip(&written[skipped..]) {
            assert_eq!(matches!(**change, Change::Delete { .. }), call.deletes);
            assert_eq!(change.previous().map_or(0, |kv| kv.mod_revision), call.replaced.unwrap_or(0));
        }
    }
}
