//! Crashes, failures and sharing of commits, on an engine that can be copied at any moment and told to fail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Config, Embedded, locked};
use crate::StoreError;
use crate::api::{Keys, List, Put, Revision, Store, Told};
use crate::engine::memory::Memory;
use crate::engine::{Batch, Engine, Loaded, Record};

/// Memory that fails when told to, takes its time, and keeps a copy after each commit.
#[derive(Default)]
struct Trial {
    memory: Memory,
    fails: AtomicBool,
    delay: Duration,
    commits: AtomicU64,
    copies: Mutex<Vec<Arc<Memory>>>,
}

impl Engine for Trial {
    fn load(&self, each: &mut dyn FnMut(Loaded) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.memory.load(each)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        std::thread::sleep(self.delay);
        if self.fails.load(Ordering::Acquire) {
            return Err(StoreError::NoSpace { what: "the trial".into() });
        }
        self.commits.fetch_add(1, Ordering::AcqRel);
        self.memory.commit(batch)?;
        locked(&self.copies).push(Arc::new(self.memory.copy()));
        Ok(())
    }

    fn read(&self, revisions: &[Revision]) -> Result<Vec<Option<Arc<Record>>>, StoreError> {
        self.memory.read(revisions)
    }

    fn scan(&self, from: Revision, limit: usize) -> Result<Vec<(Revision, Arc<Record>)>, StoreError> {
        self.memory.scan(from, limit)
    }

    fn shrink(&self, _live_bytes: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn volatile() -> Config {
    Config { volatile: vec!["/events/".into()], volatile_delay: Duration::from_hours(1), ..Config::default() }
}

async fn create(store: &Embedded, key: &str) -> Revision {
    store.put(Put::create(key.to_owned(), "x")).await.expect("put").done().expect("new")
}

/// The store after a crash of this one.
fn crashed(memory: &Memory) -> (Embedded, Arc<Memory>) {
    let left = Arc::new(memory.copy());
    (Embedded::start(left.clone(), volatile()).expect("start"), left)
}

fn is_compacted<T>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Compacted { .. }))
}

#[tokio::test]
async fn a_crash_never_gives_a_revision_another_meaning() {
    let memory = Arc::new(Memory::default());
    let store = Embedded::start(memory.clone(), volatile()).expect("start");
    let durable = create(&store, "/a").await;
    let lost = create(&store, "/events/1").await;
    let last = create(&store, "/events/2").await;
    assert_eq!((lost, last), (durable + 1, durable + 2));

    let (after, memory) = crashed(&memory);
    assert_eq!(after.count(b"").await.expect("count"), 1, "what was volatile is gone");
    let now = after.revision().await.expect("revision");
    assert!(now >= last, "its revisions are used up");
    // Who has seen a lost change must list anew; who has not goes on.
    assert!(is_compacted(&watch(&after, last).await));
    assert!(is_compacted(&watch(&after, last + 1).await));
    assert!(is_compacted(&after.list(List { at: Some(lost), ..List::new("") }).await));
    assert_eq!(after.list(List { at: Some(durable), ..List::new("") }).await.expect("list").count, 1);
    assert_eq!(after.list(List { at: Some(now), ..List::new("") }).await.expect("list").count, 1);
    watch(&after, durable + 1).await.expect("nothing missed");
    watch(&after, now + 1).await.expect("nothing missed");
    let next = create(&after, "/b").await;
    assert_eq!(next, now + 1);

    // And once more: both gaps are remembered.
    let (again, _) = crashed(&memory);
    assert!(is_compacted(&watch(&again, last).await));
    let mut watcher = again.watch(Keys::Prefix("/".into()), Some(durable)).await.expect("watch");
    let Told::Changes(told) = watcher.next().await.expect("next") else { panic!("no progress") };
    assert_eq!(told.iter().map(|change| change.revision()).collect::<Vec<_>>(), [durable, next]);
    // Until they are compacted.
    again.compact(again.revision().await.expect("revision")).await.expect("compact");
    assert!(super::read(&again.handle.shared.state).lost.is_empty());
}

/// Can a watch begin there?
async fn watch(store: &Embedded, from: Revision) -> Result<(), StoreError> {
    store.watch(Keys::Prefix("/".into()), Some(from)).await.map(|_| ())
}

#[tokio::test]
async fn volatile_changes_ride_with_the_next_durable_one() {
    let trial = Arc::new(Trial::default());
    let store = Embedded::start(trial.clone(), volatile()).expect("start");
    let before = trial.commits.load(Ordering::Acquire);
    let lease = store.grant(Duration::from_mins(10)).await.expect("grant").id;
    for number in 0..100 {
        let put = Put::create(format!("/events/{number}"), "x").lease(Some(lease));
        store.put(put).await.expect("put");
        store.keep_alive(lease).await.expect("keep alive");
    }
    assert_eq!(trial.commits.load(Ordering::Acquire), before, "no sync of their own");
    create(&store, "/a").await;
    assert_eq!(trial.commits.load(Ordering::Acquire), before + 1);
    let (after, _) = crashed(&trial.memory);
    assert_eq!(after.count(b"").await.expect("count"), 101);
    after.revoke(lease).await.expect("the lease too");
    assert_eq!(after.count(b"").await.expect("count"), 1);
}

#[tokio::test]
async fn volatile_changes_become_durable_after_their_delay_and_when_the_store_closes() {
    let memory = Arc::new(Memory::default());
    let config = Config { volatile_delay: Duration::from_millis(20), ..volatile() };
    let store = Embedded::start(memory.clone(), config).expect("start");
    create(&store, "/events/1").await;
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while memory.scan(0, 9).expect("scan").is_empty() {
        assert!(std::time::Instant::now() < end, "durable in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.close().await.expect("close");

    let store = Embedded::start(memory.clone(), volatile()).expect("start");
    let last = create(&store, "/events/2").await;
    store.close().await.expect("close");
    assert!(matches!(store.put(Put::create("/a", "x")).await, Err(StoreError::Closed)));
    let store = Embedded::start(memory, volatile()).expect("start");
    assert_eq!(store.revision().await.expect("revision"), last, "closed in order: no revision left out");
    assert_eq!(store.count(b"").await.expect("count"), 2);
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_loses_nothing() {
    let trial = Arc::new(Trial::default());
    let store = Embedded::start(trial.clone(), volatile()).expect("start");
    let first = create(&store, "/a").await;
    create(&store, "/events/1").await;
    trial.fails.store(true, Ordering::Release);
    for _ in 0..3 {
        let error = store.put(Put::create("/b", "x")).await.expect_err("full");
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
        let error = store.delete(b"/a", first).await.expect_err("full");
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
        let error = store.compact(first).await.expect_err("full");
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    }
    let last = create(&store, "/events/2").await;
    assert_eq!(last, first + 2, "what failed took no revision");
    assert_eq!(store.count(b"").await.expect("count"), 3);
    // Volatile ones only as long as they can be kept.
    let mut taken = 0;
    while store.put(Put::create(format!("/events/more/{taken}"), "x")).await.is_ok() {
        taken += 1;
        assert!(taken < 20_000, "bounded");
    }
    trial.fails.store(false, Ordering::Release);
    create(&store, "/b").await;
    let (after, _) = crashed(&trial.memory);
    assert_eq!(after.count(b"").await.expect("count"), 4 + taken);
    assert_eq!(
        after.get(b"/a", Some(first)).await.expect("not compacted").kv.expect("there").mod_revision,
        first
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_wait_together_share_a_commit() {
    let trial = Arc::new(Trial { delay: Duration::from_millis(5), ..Trial::default() });
    let store = Embedded::start(trial.clone(), Config::default()).expect("start");
    let before = trial.commits.load(Ordering::Acquire);
    let writers = (0..32).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..10 {
                create(&store, &format!("/{writer}/{number}")).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writer");
    }
    let commits = trial.commits.load(Ordering::Acquire) - before;
    assert!(commits < 100, "{commits} commits for 320 writes");
    let statistics = store.statistics();
    assert_eq!((statistics.writes, statistics.keys, statistics.watches), (320, 320, 0));
}

#[tokio::test]
async fn a_crash_between_any_two_commits_leaves_a_whole_store() {
    let trial = Arc::new(Trial::default());
    let config = Config { volatile_delay: Duration::from_millis(1), ..volatile() };
    let store = Embedded::start(trial.clone(), config).expect("start");
    let lease = store.grant(Duration::from_mins(10)).await.expect("grant").id;
    let mut last = 0;
    for number in 0..60 {
        let put = Put::update("/a", number.to_string(), last).lease((number % 3 == 0).then_some(lease));
        last = store.put(put).await.expect("put").done().expect("done");
        create(&store, &format!("/events/{number}")).await;
        match number % 10 {
            4 => store.compact(last).await.expect("compact"),
            7 => {
                store.delete(b"/a", last).await.expect("delete").done().expect("done");
                last = 0;
            }
            _ => {}
        }
    }
    store.revoke(lease).await.expect("revoke");
    let copies = std::mem::take(&mut *locked(&trial.copies));
    assert!(copies.len() > 60);
    let mut revision = 0;
    for copy in copies {
        let (after, _) = crashed(&copy);
        let reached = after.revision().await.expect("revision");
        assert!(reached >= revision, "forward only");
        revision = reached;
        let all = after.list(List::new("")).await.expect("list");
        assert_eq!(all.kvs.len(), all.count);
        create(&after, "/next").await;
    }
}

#[tokio::test]
async fn values_beyond_the_cache_are_read_from_the_engine() {
    let memory = Arc::new(Memory::default());
    let store = Embedded::start(memory.clone(), Config::default()).expect("start");
    for number in 0..50 {
        create(&store, &format!("/{number:02}")).await;
    }
    store.close().await.expect("close");
    let store = Embedded::start(memory, Config { cache_bytes: 10, ..Config::default() }).expect("start");
    assert!(store.statistics().cached_bytes <= 10);
    let page = store.list(List::new("/")).await.expect("list");
    assert_eq!((page.kvs.len(), &page.kvs[49].key[..]), (50, &b"/49"[..]));
    assert_eq!(store.get(b"/07", None).await.expect("get").kv.expect("there").key, "/07");
    let mut watcher = store.watch(Keys::Prefix("/".into()), Some(2)).await.expect("watch");
    let Told::Changes(told) = watcher.next().await.expect("next") else { panic!("no progress") };
    assert_eq!(told.len(), 50);
}
