//! Reading, writing, history.

use bytes::Bytes;
use corten_store::{List, MAX_KEY_BYTES, MAX_VALUE_BYTES, Page, Put, StoreError, Swap};

use crate::common::{Fixture, create, delete, done, put};

fn keys(page: &Page) -> Vec<String> {
    page.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

pub async fn an_empty_store_has_a_revision_and_no_keys(fixture: &Fixture) {
    let store = &*fixture.store;
    assert_eq!(store.revision().await.expect("revision"), 1);
    let page = store.list(List::new("")).await.expect("list");
    assert_eq!((page.kvs.len(), page.count, page.revision), (0, 0, 1));
    assert_eq!(store.get(b"/a", None).await.expect("get").kv, None);
    assert_eq!(store.count(b"").await.expect("count"), 0);
}

pub async fn a_key_is_created_only_when_absent(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = create(store, "/a", "one").await;
    let swap = store.put(Put::create("/a", "two")).await.expect("put");
    let Swap::Changed { current: Some(current), revision } = swap else { panic!("{swap:?}") };
    assert_eq!((&current.value[..], current.mod_revision, revision), (&b"one"[..], first, first));
    let swap = store.put(Put::update("/b", "x", first)).await.expect("put");
    assert_eq!(swap, Swap::Changed { current: None, revision: first });
    assert_eq!(store.count(b"/").await.expect("count"), 1);
}

pub async fn a_key_is_updated_only_at_the_revision_it_was_read_at(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = create(store, "/a", "one").await;
    let second = put(store, "/a", "two", first).await;
    let swap = store.put(Put::update("/a", "three", first)).await.expect("put");
    let Swap::Changed { current: Some(current), .. } = swap else { panic!("{swap:?}") };
    assert_eq!((current.mod_revision, current.create_revision, current.version), (second, first, 2));
    let read = store.get(b"/a", None).await.expect("get");
    assert_eq!((read.kv.expect("there"), read.revision), (current, second));
}

pub async fn a_key_is_deleted_only_at_the_revision_it_was_read_at(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = create(store, "/a", "one").await;
    let second = put(store, "/a", "two", first).await;
    for wrong in [first, 0, second + 1] {
        let swap = store.delete(b"/a", wrong).await.expect("delete");
        assert!(
            matches!(&swap, Swap::Changed { current: Some(kv), .. } if kv.mod_revision == second),
            "{swap:?}"
        );
    }
    let third = delete(store, "/a", second).await;
    assert_eq!(third, second + 1);
    assert_eq!(store.get(b"/a", None).await.expect("get").kv, None);
    for gone in [second, 0] {
        let swap = store.delete(b"/a", gone).await.expect("delete");
        assert_eq!(swap, Swap::Changed { current: None, revision: third });
    }
}

pub async fn a_key_that_comes_again_is_a_new_one(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = create(store, "/a", "one").await;
    let second = put(store, "/a", "two", first).await;
    delete(store, "/a", second).await;
    let again = create(store, "/a", "three").await;
    let kv = store.get(b"/a", None).await.expect("get").kv.expect("there");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (again, again, 1));
}

pub async fn every_write_has_the_next_revision(fixture: &Fixture) {
    let store = &*fixture.store;
    let mut last = store.revision().await.expect("revision");
    for number in 0..20 {
        let revision = create(store, &format!("/{number}"), "x").await;
        assert_eq!(revision, last + 1);
        // What changes nothing takes no revision.
        store.put(Put::create(format!("/{number}"), "y")).await.expect("put");
        assert_eq!(store.revision().await.expect("revision"), revision);
        last = revision;
    }
}

pub async fn keys_and_values_are_any_bytes(fixture: &Fixture) {
    let store = &*fixture.store;
    let all: Vec<u8> = (0..=255).collect();
    for (key, value) in
        [(&all[..], &all[..]), (&[0], &[]), (&[0xff, 0xff], &[0]), (&[0xff], &vec![7; 1 << 20])]
    {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        done(store.put(Put::create(key.clone(), value.clone())).await.expect("put"));
        assert_eq!(store.get(&key, None).await.expect("get").kv.expect("there").value, value);
    }
    let page = store.list(List::new(vec![0xff])).await.expect("list");
    assert_eq!(page.kvs.iter().map(|kv| kv.key.to_vec()).collect::<Vec<_>>(), [vec![0xff], vec![0xff, 0xff]]);
    assert_eq!(store.list(List::new("")).await.expect("list").count, 4);
}

pub async fn what_is_too_large_is_refused(fixture: &Fixture) {
    let store = &*fixture.store;
    let error = store.put(Put::create("/a", vec![0; MAX_VALUE_BYTES + 1])).await.expect_err("too large");
    assert!(matches!(error, StoreError::TooLarge { bytes } if bytes == MAX_VALUE_BYTES + 1), "{error}");
    for key in [vec![], vec![1; MAX_KEY_BYTES + 1]] {
        let error = store.put(Put::create(key.clone(), "x")).await.expect_err("no key");
        assert!(matches!(error, StoreError::Key { bytes } if bytes == key.len()), "{error}");
        let error = store.delete(&key, 1).await.expect_err("no key");
        assert!(matches!(error, StoreError::Key { .. }), "{error}");
    }
    assert_eq!(store.count(b"").await.expect("count"), 0);
}

pub async fn a_prefix_is_listed_in_byte_order_with_its_count(fixture: &Fixture) {
    let store = &*fixture.store;
    for key in ["/b/2", "/a", "/b/10", "/b0", "/b/1", "/c"] {
        create(store, key, "x").await;
    }
    let page = store.list(List::new("/b/")).await.expect("list");
    assert_eq!(
        (keys(&page), page.count, page.more()),
        (vec!["/b/1".into(), "/b/10".into(), "/b/2".into()], 3, false)
    );
    let page = store.list(List { limit: Some(2), ..List::new("/b/") }).await.expect("list");
    assert_eq!((keys(&page), page.count, page.more()), (vec!["/b/1".into(), "/b/10".into()], 3, true));
    let after = Some(Bytes::from("/b/10"));
    let page = store.list(List { limit: Some(2), after, ..List::new("/b/") }).await.expect("list");
    assert_eq!((keys(&page), page.count, page.more()), (vec!["/b/2".into()], 1, false));
    let page = store.list(List { limit: Some(0), ..List::new("/b/") }).await.expect("list");
    assert_eq!((page.kvs.len(), page.count), (0, 3));
    assert_eq!(store.count(b"/b").await.expect("count"), 4);
    assert_eq!(keys(&store.list(List::new("/b/3")).await.expect("list")), Vec::<String>::new());
}

pub async fn pages_are_of_one_revision_while_writes_go_on(fixture: &Fixture) {
    let store = &*fixture.store;
    let mut revisions = Vec::new();
    for number in 0..30 {
        revisions.push(create(store, &format!("/p/{number:02}"), "old").await);
    }
    let mut list = List { limit: Some(7), ..List::new("/p/") };
    let mut seen = Vec::new();
    loop {
        let page = store.list(list.clone()).await.expect("list");
        assert_eq!(page.revision, revisions[29], "of the first page's revision");
        assert_eq!(page.count, 30 - seen.len(), "with what is left of it");
        assert!(page.kvs.iter().all(|kv| &kv.value[..] == b"old"));
        seen.extend(keys(&page));
        // Changed, deleted and new keys behind the page.
        let number = seen.len();
        if number < 28 {
            put(store, &format!("/p/{number:02}"), "new", revisions[number]).await;
            delete(store, &format!("/p/{:02}", number + 1), revisions[number + 1]).await;
            create(store, &format!("/p/{number:02}x"), "new").await;
        }
        if !page.more() {
            break;
        }
        list.at = Some(page.revision);
        list.after = page.kvs.last().map(|kv| kv.key.clone());
    }
    assert_eq!(seen, (0..30).map(|number| format!("/p/{number:02}")).collect::<Vec<_>>());
}

pub async fn old_revisions_show_what_was(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = create(store, "/a", "one").await;
    let second = put(store, "/a", "two", first).await;
    let third = delete(store, "/a", second).await;
    let fourth = create(store, "/a", "four").await;
    for (at, value) in [
        (first - 1, None),
        (first, Some("one")),
        (second, Some("two")),
        (third, None),
        (fourth, Some("four")),
    ] {
        let read = store.get(b"/a", Some(at)).await.expect("get");
        let found = read.kv.map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
        assert_eq!((found.as_deref(), read.revision), (value, fourth), "at {at}");
        let page = store.list(List { at: Some(at), ..List::new("/") }).await.expect("list");
        assert_eq!(
            (page.count, page.kvs.len(), page.revision),
            (usize::from(value.is_some()), page.count, at)
        );
    }
}

pub async fn revisions_to_come_cannot_be_read(fixture: &Fixture) {
    let store = &*fixture.store;
    let next = create(store, "/a", "one").await + 1;
    let error = store.get(b"/a", Some(next)).await.expect_err("not reached");
    assert!(matches!(error, StoreError::Future { asked } if asked == next), "{error}");
    let error = store.list(List { at: Some(next), ..List::new("/") }).await.expect_err("not reached");
    assert!(matches!(error, StoreError::Future { .. }), "{error}");
}

pub async fn compaction_forgets_the_past_and_keeps_the_present(fixture: &Fixture) {
    let store = &*fixture.store;
    let still = create(store, "/still", "there").await;
    let gone = create(store, "/gone", "x").await;
    delete(store, "/gone", gone).await;
    let mut last = create(store, "/a", "0").await;
    let mut revisions = vec![last];
    for number in 1..10 {
        last = put(store, "/a", &number.to_string(), last).await;
        revisions.push(last);
    }
    store.compact(revisions[5]).await.expect("compact");
    for old in [still, gone, revisions[4]] {
        let error = store.get(b"/a", Some(old)).await.expect_err("compacted");
        assert!(matches!(error, StoreError::Compacted { asked, .. } if asked == old), "{error}");
        let error = store.list(List { at: Some(old), ..List::new("/") }).await.expect_err("compacted");
        assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
    }
    for (number, revision) in revisions.iter().enumerate().skip(5) {
        let page = store.list(List { at: Some(*revision), ..List::new("/") }).await.expect("list");
        assert_eq!(keys(&page), ["/a", "/still"]);
        assert_eq!(page.kvs[0].value, number.to_string());
    }
    let kv = store.get(b"/still", None).await.expect("get").kv.expect("there");
    assert_eq!((kv.mod_revision, kv.create_revision, kv.version), (still, still, 1));
    // All of the past, and on.
    store.compact(last).await.expect("compact");
    let last = put(store, "/a", "on", last).await;
    assert_eq!(store.get(b"/a", Some(last)).await.expect("get").kv.expect("there").version, 11);
}

pub async fn compaction_goes_forward_only(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = create(store, "/a", "one").await;
    let second = put(store, "/a", "two", first).await;
    let error = store.compact(second + 1).await.expect_err("not reached");
    assert!(matches!(error, StoreError::Future { .. }), "{error}");
    store.compact(second).await.expect("compact");
    for again in [first, second] {
        let error = store.compact(again).await.expect_err("compacted");
        assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
    }
}
