//! The stores beside each other in one run: writes with one and 32 writers, a watch's fan-out to 1,000, a list of
//! 10,000. `cargo run --release -p corten-store --example bench`; etcd must be installed, and syncs as it does.
#![forbid(unsafe_code)]
#![expect(clippy::cast_precision_loss, reason = "figures to read")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Etcd, done};
use corten_store::{Config, Embedded, Keys, List, Put, RedbOptions, Store, Told};

/// As a pod is.
const VALUE_BYTES: usize = 3000;
const SPAN: Duration = Duration::from_secs(3);
const WATCHERS: usize = 1000;
const FANNED: usize = 200;
const KEYS: usize = 10_000;

#[tokio::main]
async fn main() {
    let dir = tempfile::Builder::new().prefix("corten-store-").tempdir().expect("temporary directory");
    let memory = Embedded::memory(Config::default()).expect("memory");
    measure("memory", Arc::new(memory), None).await;
    let file = dir.path().join("store.redb");
    let redb = Embedded::open(&file, RedbOptions::default(), Config::default()).expect("redb");
    measure("redb", Arc::new(redb.clone()), None).await;
    let statistics = redb.statistics();
    println!("  {:.1} writes a sync", statistics.writes as f64 / statistics.commits as f64);
    redb.close().await.expect("close");
    let size = std::fs::metadata(&file).expect("metadata").len();
    let start = Instant::now();
    let redb = Embedded::open(&file, RedbOptions::default(), Config::default()).expect("redb");
    let took = start.elapsed();
    println!("  opened again, every page checked: {:.0} ms for {} MB", ms(took), size / 1_000_000);
    redb.close().await.expect("close");
    if let Some(etcd) = Etcd::start(&["--quota-backend-bytes=8589934592"]) {
        let store = etcd.store().await;
        measure("etcd", Arc::new(store), Some(etcd.pid())).await;
    }
}

async fn measure(name: &str, store: Arc<dyn Store>, server: Option<u32>) {
    println!("{name}");
    for writers in [1, 32] {
        let (rate, p50, p99) = write(&store, writers).await;
        println!("  {writers} writers: {rate:.0} writes/s, p50 {p50:.2} ms, p99 {p99:.2} ms");
    }
    let (p50, p99, cpu) = fan_out(&store, server).await;
    println!(
        "  {WATCHERS} watchers: all told after p50 {p50:.2} ms, p99 {p99:.2} ms; {cpu:.2} ms of CPU a change"
    );
    list(&store).await;
}

fn value(number: usize) -> Vec<u8> {
    let mut value = number.to_string().into_bytes();
    value.resize(VALUE_BYTES, b'x');
    value
}

async fn write(store: &Arc<dyn Store>, writers: usize) -> (f64, f64, f64) {
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while start.elapsed() < SPAN {
                    let put =
                        Put::create(format!("/w{writers}/{writer}/{}", times.len()), value(times.len()));
                    let began = Instant::now();
                    done(store.put(put).await.expect("put"));
                    times.push(began.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("writer"));
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    let (p50, p99) = percentiles(times);
    (rate, p50, p99)
}

/// From before the write until the last watcher has it.
async fn fan_out(store: &Arc<dyn Store>, server: Option<u32>) -> (f64, f64, f64) {
    let (told, mut heard) = tokio::sync::mpsc::channel(WATCHERS);
    let mut tasks = Vec::new();
    for _ in 0..WATCHERS {
        let mut watcher = store.watch(Keys::Prefix("/f/".into()), None).await.expect("watch");
        let told = told.clone();
        tasks.push(tokio::spawn(async move {
            while let Ok(Told::Changes(changes)) = watcher.next().await {
                for _ in changes {
                    if told.send(()).await.is_err() {
                        return;
                    }
                }
            }
        }));
    }
    let before = cpu(server);
    let mut times = Vec::new();
    for number in 0..FANNED {
        let began = Instant::now();
        done(store.put(Put::create(format!("/f/{number}"), value(number))).await.expect("put"));
        for _ in 0..WATCHERS {
            heard.recv().await.expect("a watcher");
        }
        times.push(began.elapsed());
    }
    let cpu = (cpu(server) - before) / FANNED as f64;
    for task in tasks {
        task.abort();
    }
    let (p50, p99) = percentiles(times);
    (p50, p99, cpu)
}

async fn list(store: &Arc<dyn Store>) {
    let mut next = 0;
    while next < KEYS {
        let tasks = (next..next + 100).map(|number| {
            let store = store.clone();
            tokio::spawn(
                async move { store.put(Put::create(format!("/l/{number:05}"), value(number))).await },
            )
        });
        for task in tasks.collect::<Vec<_>>() {
            done(task.await.expect("task").expect("put"));
        }
        next += 100;
    }
    let (mut times, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let began = Instant::now();
        let page = store.list(List::new("/l/")).await.expect("list");
        times.push(began.elapsed());
        assert_eq!(page.kvs.len(), KEYS);
        let began = Instant::now();
        let copy = page.kvs.iter().fold(Vec::new(), |mut copy, kv| {
            copy.extend_from_slice(&kv.value);
            copy
        });
        copies.push(began.elapsed());
        assert_eq!(copy.len(), KEYS * VALUE_BYTES);
    }
    let (p50, p99) = percentiles(times);
    let (copy, _) = percentiles(copies);
    println!("  list of {KEYS}: p50 {p50:.2} ms, p99 {p99:.2} ms; copying its bytes {copy:.2} ms");
}

fn percentiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    (ms(times[times.len() / 2]), ms(times[times.len() * 99 / 100]))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Of this process and the server's, in ms, user and system.
fn cpu(server: Option<u32>) -> f64 {
    const TICK_MS: f64 = 10.0;
    let of = |process: String| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("stat");
        let fields = stat.rsplit(')').next().expect("fields behind the name").split_whitespace();
        fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks") * TICK_MS).sum::<f64>()
    };
    of("self".into()) + server.map_or(0.0, |server| of(server.to_string()))
}
