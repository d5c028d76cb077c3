//! The redb file: what is refused, what is found out, what it costs.
#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use redb::ReadableTable;

use common::{Random, changes, create, delete, effort, open, path, put};
use corten_store::{Change, Config, Embedded, Keys, List, Page, Put, RedbOptions, Store, StoreError, Told};

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("corten-store-").tempdir().expect("temporary directory")
}

fn acknowledged(file: &Path) -> std::path::PathBuf {
    file.with_extension("redb.acknowledged")
}

/// Everything that can be asked of a store.
async fn everything(store: &Embedded) -> Result<(Page, Vec<Arc<Change>>), StoreError> {
    let all = store.list(List::new("")).await?;
    let from = store.statistics().compacted + 1;
    let mut watcher = store.watch(Keys::Prefix("".into()), Some(from)).await?;
    watcher.ask_progress().await?;
    let mut history = Vec::new();
    loop {
        match watcher.next().await? {
            Told::Changes(changes) => history.extend(changes),
            Told::Progress(_) => return Ok((all, history)),
        }
    }
}

/// Keys of all sizes, history, deletions, a compaction.
async fn fill(store: &Embedded) {
    let mut random = Random::new(7);
    let mut last = [0; 40];
    for number in 0..500 {
        let place = random.below(40) as usize;
        let key = format!("/k/{place}");
        if last[place] != 0 && random.below(6) == 0 {
            delete(store, &key, last[place]).await;
            last[place] = 0;
        } else {
            let value = number.to_string().repeat(1 + random.below(900) as usize);
            last[place] = put(store, &key, &value, last[place]).await;
        }
    }
    store.compact(store.revision().await.expect("revision") - 200).await.expect("compact");
    put(store, "/k/0", "the last", last[0]).await;
}

#[tokio::test]
async fn everything_is_there_when_the_file_is_opened_again() {
    let dir = directory();
    let store = open(&path(&dir)).expect("new");
    fill(&store).await;
    let before = everything(&store).await.expect("everything");
    store.close().await.expect("close");
    for cache_bytes in [0, 64 << 20] {
        let config = Config { cache_bytes, ..Config::default() };
        let store = Embedded::open(&path(&dir), RedbOptions::default(), config).expect("open again");
        let after = everything(&store).await.expect("everything");
        assert_eq!(before.0, after.0);
        assert_eq!(before.1, after.1);
        store.close().await.expect("close");
    }
}

#[tokio::test]
async fn what_is_not_ours_is_refused_by_name() {
    let dir = directory();
    let refused = |what: &str| {
        let error = open(&path(&dir)).err().expect("refused");
        assert!(error.to_string().contains(what), "{error}");
        error
    };
    fs::write(path(&dir), "SQLite format 3\0 and more").expect("write");
    assert!(matches!(refused("no redb file"), StoreError::Foreign { .. }));
    fs::remove_file(path(&dir)).expect("remove");

    let table = redb::TableDefinition::<&str, &str>::new("theirs");
    let other = redb::Database::create(path(&dir)).expect("create");
    let write = other.begin_write().expect("write");
    write.open_table(table).expect("table").insert("a", "b").expect("insert");
    write.commit().expect("commit");
    drop(other);
    assert!(matches!(refused("theirs"), StoreError::Foreign { .. }));
    fs::remove_file(path(&dir)).expect("remove");

    // The first byte of the store's facts behind the checksum is the version.
    let store = open(&path(&dir)).expect("new");
    let second = open(&path(&dir)).err().expect("locked");
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    store.close().await.expect("close");
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    let database = redb::Database::create(path(&dir)).expect("open");
    let write = database.begin_write().expect("write");
    {
        let mut table = write.open_table(meta).expect("table");
        let mut bytes = table.get("corten-store").expect("get").expect("there").value().to_vec();
        bytes[4] = 2;
        let checksum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        table.insert("corten-store", bytes.as_slice()).expect("insert");
    }
    write.commit().expect("commit");
    drop(database);
    assert!(matches!(refused("format 2 of another release"), StoreError::Foreign { .. }));
}

#[tokio::test]
async fn an_older_copy_in_the_files_place_is_found_out() {
    let dir = directory();
    let store = open(&path(&dir)).expect("new");
    let first = create(&store, "/a", "one").await;
    store.close().await.expect("close");
    let copy = dir.path().join("copy");
    fs::copy(path(&dir), &copy).expect("copy");
    let store = open(&path(&dir)).expect("open");
    put(&store, "/a", "two", first).await;
    store.close().await.expect("close");
    fs::copy(&copy, path(&dir)).expect("copy back");
    let error = open(&path(&dir)).err().expect("found out");
    assert!(matches!(&error, StoreError::Corrupted { what, .. } if what.contains("older copy")), "{error}");
    // Whoever wants it says so by removing what it is compared with.
    fs::remove_file(acknowledged(&path(&dir))).expect("remove");
    let store = open(&path(&dir)).expect("trusted");
    assert_eq!(store.get(b"/a", None).await.expect("get").kv.expect("there").value, "one");
    store.close().await.expect("close");
}

/// A copy of the file, changed at random places, is refused or has everything: never something else.
#[tokio::test]
async fn a_damaged_file_is_refused_or_whole() {
    let dir = directory();
    let store = open(&path(&dir)).expect("new");
    fill(&store).await;
    let truth = everything(&store).await.expect("everything");
    // As a crash leaves it, and as it is when closed in order.
    let unclean = fs::read(path(&dir)).expect("read");
    let unclean_note = fs::read(acknowledged(&path(&dir))).expect("read");
    store.close().await.expect("close");
    let clean = fs::read(path(&dir)).expect("read");
    let note = fs::read(acknowledged(&path(&dir))).expect("read");
    let mut random = Random::new(effort("CORTEN_STORE_SEED", 1));
    let (mut refused, mut whole, mut panicked) = (0, 0, 0);
    for number in 0..effort("CORTEN_STORE_DAMAGES", 60) {
        let (original, note) = if number % 2 == 0 { (&unclean, &unclean_note) } else { (&clean, &note) };
        let (bytes, what) = damage(original, &mut random);
        fs::write(path(&dir), bytes).expect("write");
        fs::write(acknowledged(&path(&dir)), note).expect("write");
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let cache_bytes = if number % 4 < 2 { 0 } else { 64 << 20 };
            Embedded::open(&path(&dir), RedbOptions::default(), Config { cache_bytes, ..Config::default() })
        }));
        match opened {
            Err(_) => {
                println!("panic after {what}");
                panicked += 1;
            }
            Ok(Err(StoreError::Corrupted { .. } | StoreError::Foreign { .. })) => refused += 1,
            Ok(Err(error)) => panic!("{what}: {error}"),
            Ok(Ok(store)) => {
                match everything(&store).await {
                    Ok((all, history)) => {
                        assert_eq!(all.kvs, truth.0.kvs, "{what}");
                        assert_eq!(history.len(), truth.1.len(), "{what}");
                        assert_eq!(history, truth.1, "{what}");
                        whole += 1;
                    }
                    Err(StoreError::Corrupted { .. }) => refused += 1,
                    Err(error) => panic!("{what}: {error}"),
                }
                let _ = store.close().await;
            }
        }
    }
    println!("{refused} refused, {whole} whole, {panicked} ended in redb");
    assert!(refused > 0 && whole > 0);
}

fn damage(original: &[u8], random: &mut Random) -> (Vec<u8>, String) {
    const PAGE: usize = 4096;
    let mut bytes = original.to_vec();
    let place = random.below(bytes.len() as u64) as usize;
    let page = place / PAGE * PAGE;
    let what = match random.below(6) {
        0 => {
            bytes.truncate(place);
            format!("cut at {place}")
        }
        1 | 2 => {
            let bit = random.below(8);
            bytes[place] ^= 1 << bit;
            format!("bit {bit} of byte {place} flipped")
        }
        3 => {
            let end = (page + PAGE).min(bytes.len());
            bytes[page..end].fill(0);
            format!("page at {page} zeroed")
        }
        4 => {
            let other = random.below((bytes.len() / PAGE) as u64) as usize * PAGE;
            let copy = bytes[other..other + PAGE].to_vec();
            let end = (page + PAGE).min(bytes.len());
            bytes[page..end].copy_from_slice(&copy[..end - page]);
            format!("page {other} also at {page}")
        }
        _ => {
            let end = (place + 512).min(bytes.len());
            for byte in &mut bytes[place..end] {
                *byte = random.below(256) as u8;
            }
            format!("512 bytes of noise at {place}")
        }
    };
    (bytes, what)
}

#[tokio::test]
async fn the_file_does_not_grow_with_what_is_compacted() {
    const VALUE: usize = 256 << 10;
    let dir = directory();
    let store = open(&path(&dir)).expect("new");
    let size = || fs::metadata(path(&dir)).expect("metadata").len() >> 20;
    let mut last = 0;
    let mut most = 0;
    for number in 0..200 {
        let value = vec![number as u8; VALUE];
        last = store.put(Put::update("/a", value, last)).await.expect("put").done().expect("done");
        if number % 20 == 19 {
            store.compact(last).await.expect("compact");
        }
        most = most.max(size());
    }
    assert!(most <= 40, "{most} MiB for 50 MiB written, of which 5 MiB are kept");
    store.close().await.expect("close");
    let store = open(&path(&dir)).expect("open");
    assert_eq!(store.get(b"/a", None).await.expect("get").kv.expect("there").version, 200);
    store.close().await.expect("close");
}

#[tokio::test]
async fn room_is_given_back_when_much_is_deleted() {
    let dir = directory();
    let store = open(&path(&dir)).expect("new");
    let size = || fs::metadata(path(&dir)).expect("metadata").len() >> 20;
    let lease = store.grant(std::time::Duration::from_mins(10)).await.expect("grant").id;
    for number in 0..60 {
        let put = Put::create(format!("/{number}"), vec![7; 1 << 20]);
        store.put(put.lease(Some(lease))).await.expect("put");
    }
    create(&store, "/stays", "x").await;
    let most = size();
    assert!(most >= 60);
    store.revoke(lease).await.expect("revoke");
    store.compact(store.revision().await.expect("revision")).await.expect("compact");
    create(&store, "/more", "x").await;
    store.close().await.expect("close");
    let store = open(&path(&dir)).expect("open");
    assert!(size() < most / 2, "{} of {most} MiB", size());
    assert_eq!(store.count(b"").await.expect("count"), 2);
    store.close().await.expect("close");
}

/// In a mount namespace of its own, so that the small file system goes with the process.
#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let dir = directory();
    let test = std::env::current_exe().expect("this program");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(test)
        .args(["--exact", "on_a_small_file_system", "--nocapture"])
        .env("CORTEN_STORE_SMALL", dir.path())
        .output();
    let output = match output {
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare failed") => {
            return println!("SKIP: no mount namespace (needs root)");
        }
        Ok(output) => output,
        Err(error) => return println!("SKIP: unshare: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(
        output.status.success() && text.contains("room again"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The inner half of the test above; alone it does nothing.
#[tokio::test]
async fn on_a_small_file_system() {
    let Some(dir) = std::env::var_os("CORTEN_STORE_SMALL") else { return };
    let dir = Path::new(&dir);
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(dir).status();
    assert!(mounted.expect("mount").success());
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 8 << 20]).expect("ballast");
    let file = dir.join("store.redb");
    let config = Config { volatile: vec!["/events/".into()], cache_bytes: 0, ..Config::default() };
    let store = Embedded::open(&file, RedbOptions { cache_bytes: 1 << 20 }, config).expect("new");
    let value = |number: usize| number.to_string().repeat(20_000);
    let mut written = Vec::new();
    // A failed write may leave room for one more: full is when three in a row fail.
    let mut failures = 0;
    while failures < 3 {
        let number = written.len();
        match store.put(Put::create(format!("/k/{number:04}"), value(number))).await {
            Ok(swap) => {
                written.push(swap.done().expect("new"));
                failures = 0;
                continue;
            }
            Err(StoreError::NoSpace { .. }) => failures += 1,
            Err(error) => panic!("{error}"),
        }
        // All is read meanwhile, from the file.
        let page = store.list(List::new("/k/")).await.expect("list");
        assert_eq!(page.kvs.iter().map(|kv| kv.mod_revision).collect::<Vec<_>>(), written);
        assert!(page.kvs.iter().enumerate().all(|(number, kv)| kv.value == value(number)));
    }
    println!("full after {} writes", written.len());
    let event = create(&store, "/events/1", "x").await;
    assert_eq!(event, written.last().expect("some") + 1, "what failed took no revision");
    let mut watcher = store.watch(Keys::Prefix("/".into()), Some(2)).await.expect("watch");
    assert_eq!(changes(&mut *watcher, written.len() + 1).await.last().expect("last").revision(), event);

    fs::remove_file(&ballast).expect("remove");
    let more = create(&store, "/k/more", "x").await;
    assert_eq!(more, event + 1);
    store.close().await.expect("close");
    let store = open(&file).expect("open again");
    assert_eq!(store.count(b"/k/").await.expect("count"), written.len() + 1);
    assert_eq!(store.get(b"/events/1", None).await.expect("get").kv.expect("there").mod_revision, event);
    store.close().await.expect("close");
    println!("room again: {} keys", written.len() + 2);
}
