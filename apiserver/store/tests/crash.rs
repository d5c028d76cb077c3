//! `kill -9` under load: what was answered is there, no revision comes again, watches resume without a gap.
#![forbid(unsafe_code)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Random, create, effort, path};
use corten_store::{
    Change, Config, Embedded, Keys, Put, RedbOptions, Revision, Store, StoreError, Swap, Told,
};

const WRITERS: u64 = 6;

fn open(file: &Path) -> Embedded {
    let config = Config {
        volatile: vec!["/v/".into()],
        volatile_delay: Duration::from_millis(40),
        ..Config::default()
    };
    Embedded::open(file, RedbOptions::default(), config).expect("open")
}

/// The program that is killed: writes, and says each answer in a line: revision, key, value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_process() {
    let Some(file) = std::env::var_os("CORTEN_STORE_WRITES_TO") else { return };
    let store = open(Path::new(&file));
    let tasks: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(store.clone(), writer))).collect();
    for task in tasks {
        task.await.expect("writer");
    }
}

async fn write(store: Embedded, writer: u64) {
    let durable_in_100 = effort("CORTEN_STORE_DURABLE_IN_100", 75);
    let mut random = Random::new(u64::from(std::process::id()) << 8 | writer);
    for number in 0_u64.. {
        let prefix = if random.below(100) < durable_in_100 { "d" } else { "v" };
        let key = format!("/{prefix}/{writer}/{}", random.below(8));
        let kv = store.get(key.as_bytes(), None).await.expect("get").kv;
        let expected = kv.map_or(0, |kv| kv.mod_revision);
        let value =
            format!("{}-{writer}-{number}-{}", std::process::id(), "x".repeat(random.below(3000) as usize));
        match store.put(Put::update(key.clone(), value.clone(), expected)).await.expect("put") {
            // One write call, so that a kill leaves whole lines.
            Swap::Done(revision) => {
                let line = format!("{revision} {key} {value}\n");
                std::io::stdout().write_all(line.as_bytes()).expect("say");
            }
            Swap::Changed { .. } => panic!("nobody else writes {key}"),
        }
        if writer == 0 && number % 100 == 99 {
            let revision = store.revision().await.expect("revision");
            match store.compact(revision - 300).await {
                Ok(()) | Err(StoreError::Compacted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Starts the writer, kills it after its first answer and `after`; what it answered.
fn killed(file: &Path, after: Duration, durable_in_100: u64) -> BTreeMap<Revision, (String, String)> {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "writer_process", "--nocapture"])
        .env("CORTEN_STORE_WRITES_TO", file)
        .env("CORTEN_STORE_DURABLE_IN_100", durable_in_100.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("start the writer");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut answered = BTreeMap::new();
    let mut end = None;
    for line in lines.by_ref() {
        let line = line.expect("a line");
        let mut words = line.splitn(3, ' ');
        let revision = words.next().and_then(|word| word.parse().ok());
        // The test harness speaks on the same stream.
        if let (Some(revision), Some(key), Some(value)) = (revision, words.next(), words.next()) {
            let before: Option<(String, String)> =
                answered.insert(revision, (key.to_owned(), value.to_owned()));
            assert!(before.is_none(), "revision {revision} was answered twice");
            if Instant::now() >= *end.get_or_insert_with(|| Instant::now() + after) {
                // SIGKILL; what it said before is still in the pipe.
                let _ = child.kill();
            }
        }
    }
    let status = child.wait().expect("wait");
    assert!(status.code().is_none(), "it ended by itself: {status}");
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_kill_9_under_load() {
    let dir = tempfile::Builder::new().prefix("corten-store-").tempdir().expect("temporary directory");
    let file = path(&dir);
    let rounds = effort("CORTEN_STORE_KILLS", 10);
    let mut random = Random::new(effort("CORTEN_STORE_SEED", 1));
    let mut highest = 0;
    let mut durable: HashMap<String, (Revision, String)> = HashMap::new();
    let (mut answers, mut lost, mut resumed, mut relisted) = (0, 0, 0, 0);
    for round in 0..rounds {
        // In every other round there is next to nothing that takes volatile changes along.
        let durable_in_100 = if round % 2 == 0 { 75 } else { 3 };
        let answered = killed(&file, Duration::from_millis(random.below(250)), durable_in_100);
        answers += answered.len();
        let first = *answered.keys().next().expect("an answer");
        assert!(first > highest, "round {round}: revision {first} again, {highest} was told before");
        for (revision, (key, value)) in &answered {
            if key.starts_with("/d/") {
                durable.insert(key.clone(), (*revision, value.clone()));
            }
        }
        let store = open(&file);
        let last = *answered.keys().last().expect("an answer");
        let reached = store.revision().await.expect("revision");
        assert!(reached >= last, "round {round}: at {reached}, {last} was told");
        // Each durable key is as it was answered last, or as a write that was not answered any more left it.
        for (key, (revision, value)) in &durable {
            let kv =
                store.get(key.as_bytes(), None).await.expect("get").kv.expect("answered, so it is there");
            assert!(
                kv.mod_revision >= *revision,
                "round {round}: {key} at {}, answered at {revision}",
                kv.mod_revision
            );
            if kv.mod_revision == *revision {
                assert_eq!(kv.value, *value, "round {round}: {key}");
            } else {
                assert!(!answered.contains_key(&kv.mod_revision));
            }
        }
        // A client that has heard all up to `heard` goes on: each durable answer since comes once, in order.
        let heard = (first - 1).max(store.statistics().compacted);
        let told = history(&store, heard + 1, reached).await.expect("its next revision is known");
        let told: BTreeMap<_, _> =
            told.iter().map(|change| (change.revision(), change.key().clone())).collect();
        for (revision, (key, _)) in answered.range(heard + 1..) {
            if let Some(told) = told.get(revision) {
                assert_eq!(told, key);
            } else {
                assert!(
                    key.starts_with("/v/"),
                    "round {round}: {key} at {revision} was answered and is not told"
                );
                lost += 1;
            }
        }
        // One that has heard a change that is lost must be told so.
        match history(&store, last + 1, reached).await {
            Ok(_) => {
                assert!(told.contains_key(&last), "round {round}: a watch goes on behind a lost change");
                resumed += 1;
            }
            Err(StoreError::Compacted { .. }) => relisted += 1,
            Err(error) => panic!("{error}"),
        }
        highest = create(&store, &format!("/round/{round}"), "x").await;
        store.close().await.expect("close");
    }
    println!(
        "{rounds} kills, {answers} answers; volatile and lost: {lost}; watches from the last answer: \
         {resumed} resumed, {relisted} told to list anew"
    );
}

/// All changes from a revision to another, as a watch tells them.
async fn history(
    store: &Embedded,
    from: Revision,
    to: Revision,
) -> Result<Vec<std::sync::Arc<Change>>, StoreError> {
    let mut watcher = store.watch(Keys::Prefix("/".into()), Some(from)).await?;
    watcher.ask_progress().await?;
    let mut told: Vec<std::sync::Arc<Change>> = Vec::new();
    loop {
        match tokio::time::timeout(common::DEADLINE, watcher.next()).await.expect("in time")? {
            Told::Changes(changes) => told.extend(changes),
            Told::Progress(revision) => {
                assert!(revision >= to);
                assert!(
                    told.windows(2).all(|pair| pair[0].revision() < pair[1].revision()),
                    "once and in order"
                );
                return Ok(told);
            }
        }
    }
}
