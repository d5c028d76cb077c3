//! What a pod costs. Figures are printed (`--nocapture`); only what no busy machine can spoil is asserted.

use std::fs;
use std::time::{Duration, Instant};

use corten_monitor::protocol::{Answer, Request};

use crate::pod::{Pod, read_all, run, shell};

/// (RSS, PSS, private) in kB.
fn memory(pid: u32) -> (u64, u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("Rss:"), field("Pss:"), field("Private_Dirty:"))
}

fn p50(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples[samples.len() / 2]
}

#[test]
fn an_idle_monitor_is_small_also_after_work() {
    let mut pod = Pod::start();
    let pause = pod.start_sandbox();
    pod.run_to_end("busy", &shell("seq 1 200000"));
    pod.run("c", &run(&["/bin/sleep", "300"])).unwrap();
    let ours = memory(pod.monitor.id());
    println!("monitor (RSS, PSS, private dirty) kB: {ours:?}; pause: {:?}", memory(pause as u32));
    let limit_kb = if cfg!(debug_assertions) { 2048 } else { 512 };
    assert!(ours.2 < limit_kb, "private memory of {} kB", ours.2);
}

#[test]
fn times_of_start_create_and_exec() {
    let start = Instant::now();
    let mut pod = Pod::start();
    let prepared = start.elapsed();
    pod.client.list();
    println!(
        "prepare + spawn {prepared:?}, to the first answer {:?}",
        start.elapsed().saturating_sub(prepared)
    );
    let mut create_start = Vec::new();
    let mut delete = Vec::new();
    for n in 0..20 {
        let id = format!("c{n}");
        let request = pod.request(&id, &run(&["/bin/sleep", "300"]));
        let before = Instant::now();
        pod.client.call(Request::CreateContainer(request)).unwrap();
        pod.client.call(Request::StartContainer { id: id.clone() }).unwrap();
        create_start.push(before.elapsed());
        if n > 0 {
            let before = Instant::now();
            assert_eq!(pod.client.call(Request::DeleteContainer { id }).unwrap(), Answer::Done);
            delete.push(before.elapsed());
        }
    }
    let mut exec = Vec::new();
    for _ in 0..50 {
        let before = Instant::now();
        let (number, out, _err) = pod.exec("c0", &["/bin/true"]).unwrap();
        read_all(out);
        pod.client.exit_of_exec(number);
        exec.push(before.elapsed());
    }
    println!(
        "p50: create+start {:?}, kill+delete {:?}, exec {:?}",
        p50(create_start),
        p50(delete),
        p50(exec)
    );
}
