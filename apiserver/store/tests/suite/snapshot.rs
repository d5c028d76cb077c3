//! Snapshots, taken while the store is in use.

use std::time::Duration;

use corten_store::{Image, Keys, List, Put, StoreError, save};

use crate::common::{Fixture, Kind, changes, create, delete, done, put};

async fn filled(fixture: &Fixture) -> Vec<u8> {
    let store = &*fixture.store;
    let lease = store.grant(Duration::from_mins(10)).await.expect("grant").id;
    for number in 0..1200 {
        let put = Put::create(format!("/s/{number:04}"), format!("value {number}"));
        done(store.put(put.lease((number % 100 == 0).then_some(lease))).await.expect("put"));
    }
    let kv = store.get(b"/s/0007", None).await.expect("get").kv.expect("there");
    put(store, "/s/0007", "changed", kv.mod_revision).await;
    let kv = store.get(b"/s/0008", None).await.expect("get").kv.expect("there");
    delete(store, "/s/0008", kv.mod_revision).await;
    let mut bytes = Vec::new();
    save(store, &mut bytes).await.expect("snapshot");
    bytes
}

pub async fn a_snapshot_is_of_one_revision_and_restores_to_the_same(fixture: &Fixture) {
    let bytes = filled(fixture).await;
    let store = &*fixture.store;
    let revision = store.revision().await.expect("revision");
    let all = store.list(List::new("")).await.expect("list");
    // Another while somebody writes.
    let writer = tokio::spawn({
        let store = fixture.store.clone();
        async move {
            for number in 0..200 {
                create(&*store, &format!("/s/0600-{number}"), "late").await;
            }
        }
    });
    let mut second = Vec::new();
    let at = save(store, &mut second).await.expect("snapshot");
    writer.await.expect("writer");
    let second = Image::read(&mut &second[..]).await.expect("image");
    let expected = store.list(List { at: Some(at), ..List::new("") }).await.expect("list");
    assert_eq!((&second.kvs, second.revision), (&expected.kvs, at));

    let image = Image::read(&mut &bytes[..]).await.expect("image");
    assert_eq!((image.revision, &image.kvs, image.leases.len()), (revision, &all.kvs, 1));
    let Some(restored) = fixture.restored(&image).await else { return };
    let store = &*restored.store;
    let page = store.list(List::new("")).await.expect("list");
    let pairs = |kvs: &[std::sync::Arc<corten_store::KeyValue>]| {
        kvs.iter().map(|kv| (kv.key.clone(), kv.value.clone(), kv.lease.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(pairs(&page.kvs), pairs(&all.kvs));
    if fixture.kind != Kind::Etcd {
        // Revisions go on; what was before is history.
        assert_eq!(page, all);
        let error = store.watch(Keys::Prefix("/".into()), Some(revision - 1)).await.err().expect("compacted");
        assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
        let mut watcher = store.watch(Keys::Prefix("/".into()), Some(revision + 1)).await.expect("watch");
        let next = create(store, "/new", "x").await;
        assert_eq!((next, changes(&mut *watcher, 1).await[0].revision()), (revision + 1, next));
    }
    let lease = page.kvs.iter().find_map(|kv| kv.lease).expect("a lease");
    store.revoke(lease).await.expect("revoke");
    assert_eq!(store.count(b"/s/").await.expect("count"), all.count - 12);
}

pub async fn a_damaged_snapshot_is_refused(fixture: &Fixture) {
    create(&*fixture.store, "/a", "one").await;
    create(&*fixture.store, "/b", "two").await;
    let mut bytes = Vec::new();
    save(&*fixture.store, &mut bytes).await.expect("snapshot");
    Image::read(&mut &bytes[..]).await.expect("whole");
    for place in 0..bytes.len() {
        let error = Image::read(&mut &bytes[..place]).await.expect_err("cut short");
        assert!(matches!(error, StoreError::Snapshot(_)), "{error}");
        let mut changed = bytes.clone();
        changed[place] ^= 0x10;
        let error = Image::read(&mut &changed[..]).await.expect_err("changed");
        assert!(matches!(error, StoreError::Snapshot(_)), "{error}");
    }
}

pub async fn a_store_that_has_keys_is_not_restored_into(fixture: &Fixture) {
    create(&*fixture.store, "/a", "one").await;
    let mut bytes = Vec::new();
    save(&*fixture.store, &mut bytes).await.expect("snapshot");
    let image = Image::read(&mut &bytes[..]).await.expect("image");
    let error = fixture.restore_again(&image).await.expect_err("not empty");
    assert!(matches!(error, StoreError::NotEmpty), "{error}");
}
