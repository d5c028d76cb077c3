//! Watches.

use std::sync::Arc;
use std::time::Duration;

use corten_store::{Change, Keys, Revision, Store, StoreError, Told, Watcher};

use crate::common::{DEADLINE, Fixture, Kind, changes, create, delete, put};

async fn watch(store: &dyn Store, prefix: &'static str, from: Option<Revision>) -> Box<dyn Watcher> {
    store.watch(Keys::Prefix(prefix.into()), from).await.expect("watch")
}

/// What a change did, for comparison: key, new value, old value, revision.
fn what(change: &Change) -> (String, Option<String>, Option<String>, Revision) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let new = match change {
        Change::Put { kv, .. } => Some(text(&kv.value)),
        Change::Delete { .. } => None,
    };
    (text(change.key()), new, change.previous().map(|kv| text(&kv.value)), change.revision())
}

pub async fn changes_are_told_in_order_with_what_was_before(fixture: &Fixture) {
    let store = &*fixture.store;
    let before = create(store, "/a/0", "before").await;
    let mut watcher = watch(store, "/a/", None).await;
    let first = create(store, "/a/1", "one").await;
    let second = put(store, "/a/1", "two", first).await;
    create(store, "/b", "elsewhere").await;
    let third = put(store, "/a/0", "after", before).await;
    let fourth = delete(store, "/a/1", second).await;
    let told = changes(&mut *watcher, 4).await;
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        told.iter().map(|change| what(change)).collect::<Vec<_>>(),
        [
            ("/a/1".into(), some("one"), None, first),
            ("/a/1".into(), some("two"), some("one"), second),
            ("/a/0".into(), some("after"), some("before"), third),
            ("/a/1".into(), None, some("two"), fourth),
        ]
    );
    let Change::Put { kv, previous: Some(previous) } = &*told[1] else { panic!("{told:?}") };
    assert_eq!(
        (kv.create_revision, kv.version, previous.mod_revision, previous.version),
        (first, 2, first, 1)
    );
}

pub async fn a_watch_begins_at_its_revision(fixture: &Fixture) {
    let store = &*fixture.store;
    let mut last = create(store, "/a", "0").await;
    let mut revisions = vec![last];
    for number in 1..6 {
        last = put(store, "/a", &number.to_string(), last).await;
        revisions.push(last);
    }
    for (number, from) in revisions.iter().enumerate() {
        let mut watcher = watch(store, "/", Some(*from)).await;
        let told = changes(&mut *watcher, revisions.len() - number).await;
        assert_eq!(told.iter().map(|change| change.revision()).collect::<Vec<_>>(), revisions[number..]);
        let previous = told[0].previous().map(|kv| kv.mod_revision);
        assert_eq!(previous, number.checked_sub(1).map(|before| revisions[before]), "from history too");
    }
}

pub async fn a_watch_of_one_key_hears_of_no_other(fixture: &Fixture) {
    let store = &*fixture.store;
    let mut watcher = store.watch(Keys::One("/a".into()), None).await.expect("watch");
    create(store, "/a/b", "x").await;
    create(store, "/ab", "x").await;
    create(store, "/", "x").await;
    let ours = create(store, "/a", "x").await;
    assert_eq!(changes(&mut *watcher, 1).await[0].revision(), ours);
    let mut history = store.watch(Keys::One("/a".into()), Some(2)).await.expect("watch");
    assert_eq!(changes(&mut *history, 1).await[0].revision(), ours);
}

pub async fn a_watch_may_wait_for_a_revision_to_come(fixture: &Fixture) {
    let store = &*fixture.store;
    let mut last = create(store, "/a", "0").await;
    let from = last + 3;
    let mut watcher = watch(store, "/", Some(from)).await;
    for number in 1..5 {
        last = put(store, "/a", &number.to_string(), last).await;
    }
    let told = changes(&mut *watcher, 2).await;
    assert_eq!(told.iter().map(|change| change.revision()).collect::<Vec<_>>(), [from, from + 1]);
}

pub async fn a_compacted_revision_cannot_be_watched(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = create(store, "/a", "one").await;
    let mut last = first;
    for number in 0..5 {
        last = put(store, "/a", &number.to_string(), last).await;
    }
    store.compact(last - 1).await.expect("compact");
    let error = match store.watch(Keys::Prefix("/".into()), Some(first)).await {
        Err(error) => error,
        Ok(mut watcher) => watcher.next().await.expect_err("compacted"),
    };
    assert!(
        matches!(error, StoreError::Compacted { asked, oldest } if asked == first && oldest == last - 1),
        "{error:?}"
    );
    let mut watcher = watch(store, "/", Some(last)).await;
    assert_eq!(changes(&mut *watcher, 1).await[0].revision(), last);
    // One that is open goes on.
    let on = put(store, "/a", "on", last).await;
    store.compact(on).await.expect("compact");
    assert_eq!(changes(&mut *watcher, 1).await[0].revision(), on);
}

/// Watches that end at any time and go on where they were, under writers.
pub async fn a_watch_that_resumes_misses_and_repeats_nothing(fixture: &Fixture) {
    const WRITES: usize = 400;
    let store = fixture.store.clone();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            let mut revisions = Vec::new();
            let mut last = [0; 7];
            for number in 0..WRITES {
                let key = number % 7;
                let revision = put(&*store, &format!("/w/{key}"), &number.to_string(), last[key]).await;
                last[key] = revision;
                revisions.push(revision);
            }
            revisions
        }
    });
    let mut seen: Vec<Arc<Change>> = Vec::new();
    let mut stop = 1;
    while seen.len() < WRITES {
        let from = seen.last().map_or(2, |change| change.revision() + 1);
        let mut watcher = watch(&*store, "/w/", Some(from)).await;
        let target = (seen.len() + stop).min(WRITES);
        stop = stop * 2 % 61 + 1;
        while seen.len() < target {
            match tokio::time::timeout(DEADLINE, watcher.next()).await.expect("in time").expect("next") {
                Told::Changes(changes) => seen.extend(changes),
                told @ Told::Progress(_) => panic!("{told:?}"),
            }
        }
    }
    let written = writer.await.expect("writer");
    assert_eq!(seen.iter().map(|change| change.revision()).collect::<Vec<_>>(), written);
}

pub async fn a_slow_reader_hears_everything_or_that_it_is_compacted(fixture: &Fixture) {
    const WRITES: usize = 1000;
    let store = &*fixture.store;
    let mut patient = watch(store, "/", None).await;
    let mut hopeless = watch(store, "/", None).await;
    let first = create(store, "/a", "0").await;
    let mut last = first;
    for number in 1..WRITES {
        last = put(store, "/a", &format!("{number} {}", "x".repeat(1000)), last).await;
    }
    let told = changes(&mut *patient, WRITES).await;
    assert!(
        told.iter().zip(first..=last).all(|(change, revision)| change.revision() == revision),
        "each once"
    );
    store.compact(last).await.expect("compact");
    let mut heard = first - 1;
    let error = loop {
        match tokio::time::timeout(DEADLINE, hopeless.next()).await.expect("in time") {
            Ok(Told::Changes(changes)) => {
                for change in changes {
                    assert_eq!(change.revision(), heard + 1, "no gap before it ends");
                    heard += 1;
                }
            }
            Ok(told) => panic!("{told:?}"),
            Err(error) => break Some(error),
        }
        if heard == last {
            break None;
        }
    };
    match error {
        Some(StoreError::Compacted { .. }) => assert!(heard < last),
        // etcd had sent it all already.
        None => assert_eq!(fixture.kind, Kind::Etcd),
        Some(error) => panic!("{error}"),
    }
}

pub async fn progress_is_told_after_the_changes_before_it(fixture: &Fixture) {
    let store = &*fixture.store;
    let mut watcher = watch(store, "/a/", None).await;
    if !store.tells_progress() {
        let error = watcher.ask_progress().await.expect_err("refused");
        assert!(matches!(error, StoreError::NoProgress), "{error}");
        println!("SKIP: this etcd tells progress too early");
        return;
    }
    let ours = create(store, "/a/1", "x").await;
    let other = create(store, "/b/1", "x").await;
    watcher.ask_progress().await.expect("ask");
    assert_eq!(changes(&mut *watcher, 1).await[0].revision(), ours);
    // The hub may be a moment behind the answer to the writer.
    loop {
        match tokio::time::timeout(DEADLINE, watcher.next()).await.expect("in time").expect("next") {
            Told::Progress(revision) if revision >= other => break,
            Told::Progress(revision) => assert!(revision >= ours, "{revision}"),
            told @ Told::Changes(_) => panic!("{told:?}"),
        }
        watcher.ask_progress().await.expect("ask");
    }
}

pub async fn many_idle_watches_stay_silent(fixture: &Fixture) {
    let store = &*fixture.store;
    let count = if fixture.kind == Kind::Etcd { 200 } else { 5000 };
    let mut watchers = Vec::new();
    for number in 0..count {
        let keys = if number % 2 == 0 {
            Keys::Prefix(format!("/w/{number}/").into())
        } else {
            Keys::One(format!("/w/{number}/a").into())
        };
        watchers.push(store.watch(keys, None).await.expect("watch"));
    }
    for number in [count / 2, count / 2 + 1] {
        let revision = create(store, &format!("/w/{number}/a"), "x").await;
        assert_eq!(changes(&mut *watchers[number], 1).await[0].revision(), revision);
    }
    for watcher in watchers.iter_mut().step_by(97) {
        let silent = tokio::time::timeout(Duration::from_millis(1), watcher.next()).await;
        assert!(silent.is_err(), "{silent:?}");
    }
    drop(watchers);
    create(store, "/w/0/b", "x").await;
}
