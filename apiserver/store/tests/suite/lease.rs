//! Leases.

use std::time::{Duration, Instant};

use corten_store::{Keys, LeaseId, Put, Store, StoreError, Told};

use crate::common::{DEADLINE, Fixture, changes, create, done};

const TTL: Duration = Duration::from_secs(2);

async fn leased(store: &dyn Store, key: &'static str, lease: LeaseId) -> i64 {
    done(store.put(Put::create(key, "x").lease(Some(lease))).await.expect("put"))
}

pub async fn keys_go_when_their_lease_runs_out(fixture: &Fixture) {
    let store = &*fixture.store;
    let lease = store.grant(TTL).await.expect("grant");
    assert!(lease.granted >= TTL && lease.left <= lease.granted);
    create(store, "/stays", "x").await;
    let start = Instant::now();
    leased(store, "/a", lease.id).await;
    let last = leased(store, "/b", lease.id).await;
    assert_eq!(store.get(b"/a", None).await.expect("get").kv.expect("there").lease, Some(lease.id));
    let mut watcher = store.watch(Keys::Prefix("/".into()), Some(last + 1)).await.expect("watch");
    let told = changes(&mut *watcher, 2).await;
    assert!(start.elapsed() + Duration::from_millis(200) >= lease.granted, "not before its time");
    assert!(told.iter().all(|change| change.revision() == last + 1), "all at one revision: {told:?}");
    assert!(told.iter().all(|change| change.previous().is_some_and(|kv| kv.lease == Some(lease.id))));
    assert_eq!(store.count(b"/").await.expect("count"), 1);
    let error = store.keep_alive(lease.id).await.expect_err("run out");
    assert!(matches!(error, StoreError::NoLease(id) if id == lease.id), "{error}");
}

pub async fn a_lease_that_is_kept_alive_stays(fixture: &Fixture) {
    let store = &*fixture.store;
    let lease = store.grant(TTL).await.expect("grant");
    leased(store, "/a", lease.id).await;
    let end = Instant::now() + lease.granted * 2;
    while Instant::now() < end {
        let kept = store.keep_alive(lease.id).await.expect("keep alive");
        assert_eq!((kept.id, kept.left), (lease.id, lease.granted));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(store.get(b"/a", None).await.expect("get").kv.is_some());
    assert_eq!(store.lease(lease.id).await.expect("lease").granted, lease.granted);
    let deadline = Instant::now() + DEADLINE;
    while store.get(b"/a", None).await.expect("get").kv.is_some() {
        assert!(Instant::now() < deadline, "goes when it is not kept alive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub async fn a_revoked_lease_takes_its_keys_at_one_revision(fixture: &Fixture) {
    let store = &*fixture.store;
    let lease = store.grant(Duration::from_mins(10)).await.expect("grant").id;
    for number in 0..300 {
        done(store.put(Put::create(format!("/l/{number}"), "x").lease(Some(lease))).await.expect("put"));
    }
    let before = create(store, "/m", "x").await;
    let mut watcher = store.watch(Keys::Prefix("/l/".into()), Some(before + 1)).await.expect("watch");
    let mut late = Vec::new();
    store.revoke(lease).await.expect("revoke");
    match watcher.next().await.expect("next") {
        Told::Changes(changes) => late.extend(changes),
        told @ Told::Progress(_) => panic!("{told:?}"),
    }
    assert_eq!(late.len(), 300, "told together");
    assert!(late.iter().all(|change| change.revision() == before + 1), "at one revision");
    assert_eq!(store.revision().await.expect("revision"), before + 1);
    assert_eq!(store.count(b"/l/").await.expect("count"), 0);
    // The same from history.
    let mut history = store.watch(Keys::Prefix("/l/".into()), Some(before + 1)).await.expect("watch");
    assert_eq!(changes(&mut *history, 300).await.len(), 300);
    // A lease without keys takes no revision.
    let empty = store.grant(TTL).await.expect("grant").id;
    store.revoke(empty).await.expect("revoke");
    assert_eq!(store.revision().await.expect("revision"), before + 1);
}

pub async fn a_key_belongs_to_its_last_lease(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = store.grant(Duration::from_mins(10)).await.expect("grant").id;
    let second = store.grant(Duration::from_mins(10)).await.expect("grant").id;
    let moved = leased(store, "/moved", first).await;
    let freed = leased(store, "/freed", first).await;
    leased(store, "/kept", first).await;
    done(store.put(Put::update("/moved", "y", moved).lease(Some(second))).await.expect("put"));
    done(store.put(Put::update("/freed", "y", freed)).await.expect("put"));
    store.revoke(first).await.expect("revoke");
    assert!(store.get(b"/kept", None).await.expect("get").kv.is_none());
    assert_eq!(store.get(b"/moved", None).await.expect("get").kv.expect("there").lease, Some(second));
    assert_eq!(store.get(b"/freed", None).await.expect("get").kv.expect("there").lease, None);
    store.revoke(second).await.expect("revoke");
    assert_eq!(store.count(b"/").await.expect("count"), 1);
}

pub async fn a_lease_that_is_not_there_is_refused(fixture: &Fixture) {
    let store = &*fixture.store;
    let lease = LeaseId::of(0x1234_5678).expect("not 0");
    let is_ours = |error: &StoreError| matches!(error, StoreError::NoLease(id) if *id == lease);
    let error = store.put(Put::create("/a", "x").lease(Some(lease))).await.expect_err("no lease");
    assert!(is_ours(&error), "{error}");
    assert!(is_ours(&store.keep_alive(lease).await.expect_err("no lease")));
    assert!(is_ours(&store.lease(lease).await.expect_err("no lease")));
    assert!(is_ours(&store.revoke(lease).await.expect_err("no lease")));
    assert_eq!(store.count(b"").await.expect("count"), 0);
}
