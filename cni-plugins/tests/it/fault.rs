//! What must not be left behind, whatever happened.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Host, Maker, Outcome, Pod, first_address, wait_for, with};

fn masqueraded(host: &Host) -> Value {
    host.network("1.1.0", json!({"isDefaultGateway": true, "ipMasq": true, "macspoofchk": true}))
}

fn mapped(config: &Value, result: &Value) -> Value {
    let mut portmap =
        json!({"cniVersion": "1.1.0", "name": config["name"], "type": "portmap", "prevResult": result});
    portmap["runtimeConfig"] =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    portmap
}

#[test]
fn del_after_the_namespace_vanished_leaves_no_address_rule_or_link() {
    for keep_alive in [false, true] {
        let host = Host::new();
        let pod = host.pod("pod-1");
        let config = masqueraded(&host);
        let result = host.call("bridge", "ADD", &pod, &config).ok();
        let portmap = mapped(&config, &result);
        host.call("portmap", "ADD", &pod, &portmap).ok();
        // Alive without a path: a process of the container still runs. Then only DEL can remove the link.
        let handle = keep_alive.then(|| pod.handle());
        let path = pod.path().to_str().expect("text").to_owned();
        let id = pod.id.clone();
        drop(pod);
        let stand_in = host.pod(&id);
        for netns in [path.as_str(), ""] {
            let environment = [("CNI_NETNS", netns)];
            let config = with(&config, "prevResult", result.clone());
            host.call_of(Maker::Corten, "portmap", "DEL", &stand_in, &portmap, &environment).ok();
            host.call_of(Maker::Corten, "bridge", "DEL", &stand_in, &config, &environment).ok();
        }
        host.wait_for_no_traces();
        drop(handle);
    }
}

#[test]
fn del_of_a_doomed_namespace_leaves_the_link_alone_to_the_kernel() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    let config = masqueraded(&host);
    let result = host.call("bridge", "ADD", &pod, &config).ok();
    let veth = result["interfaces"][1]["name"].as_str().expect("text").to_owned();
    let config = with(&config, "prevResult", result);
    let doomed = [("CORTEN_NETNS_DOOMED", "1")];
    host.call_of(Maker::Corten, "bridge", "DEL", &pod, &config, &doomed).ok();
    assert_eq!(host.traces(), std::slice::from_ref(&veth), "everything else is gone");
    let released = host.files().remove("released").expect("remembered");
    assert!(released.ends_with(&format!(" 10.22.0.2 {veth}\n")), "{released}");
    drop(pod);
    host.wait_for_no_traces();
    let next = host.pod("pod-2");
    let result = host.call("bridge", "ADD", &next, &masqueraded(&host)).ok();
    assert_eq!(first_address(&result), "10.22.0.3", "another address while there is one");
}

#[test]
fn sixty_four_parallel_adds_and_dels_of_the_whole_chain() {
    let host = Host::new();
    let config = masqueraded(&host);
    let pods: Vec<Pod> = (0..64).map(|i| host.pod(&format!("pod-{i}"))).collect();
    let all = |plugin: &str, verb: &str, configs: &[Value]| -> Vec<Value> {
        let spawn = |(pod, config)| host.spawn(Maker::Corten, plugin, verb, pod, config, &[]);
        let children: Vec<_> = pods.iter().zip(configs).map(spawn).collect();
        children.into_iter().map(|child| Outcome::of(child).ok()).collect()
    };
    let same: Vec<Value> = pods.iter().map(|_| config.clone()).collect();
    let results = all("bridge", "ADD", &same);
    let mut addresses: Vec<String> = results.iter().map(first_address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 64);
    let mut portmaps: Vec<Value> = results.iter().map(|result| mapped(&config, result)).collect();
    for (index, portmap) in portmaps.iter_mut().enumerate() {
        portmap["runtimeConfig"]["portMappings"][0]["hostPort"] = (9000 + index).into();
    }
    all("portmap", "ADD", &portmaps);
    pods[63].serve(80);
    crate::world::ask("127.0.0.1:9063").expect("the last one answers");
    all("portmap", "DEL", &portmaps);
    all("bridge", "DEL", &same);
    assert_eq!(host.traces(), [] as [&str; 0]);
}

/// Kills ADD at points spread over its time until 20 were killed in the middle; then DEL runs, with the
/// namespace there and not. The first ADD is the slowest (it makes the bridge), so an ADD that was done
/// before its kill shortens the time that the next points are spread over.
#[test]
fn del_after_add_was_killed_anywhere_leaves_nothing() {
    let host = Host::new();
    let config = masqueraded(&host);
    let start = Instant::now();
    let pod = host.pod("measure");
    host.call("bridge", "ADD", &pod, &config).ok();
    let mut whole = start.elapsed();
    host.call("bridge", "DEL", &pod, &config).ok();
    let mut killed = 0;
    for attempt in 0..400_u32 {
        let pod = host.pod(&format!("pod-{attempt}"));
        let delay = whole * (attempt % 20) / 20;
        let mut child = host.spawn(Maker::Corten, "bridge", "ADD", &pod, &config, &[]);
        std::thread::sleep(delay);
        child.kill().expect("killed");
        match Outcome::of(child).code {
            None => killed += 1,
            Some(_) => whole = (whole * 3 + delay) / 4,
        }
        let vanished = [("CNI_NETNS", "")];
        let environment: &[(&str, &str)] = if attempt % 2 == 0 { &[] } else { &vanished };
        host.call_of(Maker::Corten, "bridge", "DEL", &pod, &config, environment).ok();
        drop(pod);
        host.wait_for_no_traces();
        if killed == 20 {
            return;
        }
    }
    panic!("only {killed} of 400 were killed in the middle");
}

#[test]
fn a_failing_step_undoes_the_ones_before() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    // The container refuses this route: its gateway cannot be reached.
    let routes = json!({"ipam": {"routes": [{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]}});
    let mut config = masqueraded(&host);
    crate::world::merge(&mut config, routes);
    host.call("bridge", "ADD", &pod, &config)
        .error(999, "add route 192.0.2.0/24 via 198.51.100.1: ENETUNREACH");
    assert_eq!(host.traces(), [] as [&str; 0]);
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named_and_leaves_nothing() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    let impossible = json!({"ipam": {"dataDir": "/dev/full/data"}});
    let config = host.network("1.0.0", impossible);
    host.call("bridge", "ADD", &pod, &config).error(5, "/dev/full/data/net: ENOTDIR");
    assert_eq!(host.traces(), [] as [&str; 0]);
}

#[test]
fn a_plugin_waits_for_the_lock_of_another() {
    let host = Host::new();
    let config = host.network("1.0.0", json!({}));
    std::fs::create_dir_all(host.data().join("net")).expect("made");
    let lock = std::fs::File::create(host.data().join("net/lock")).expect("a file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let pod = host.pod("pod-1");
    let mut child = host.spawn(Maker::Corten, "bridge", "ADD", &pod, &config, &[]);
    std::thread::sleep(Duration::from_millis(50));
    assert!(child.try_wait().expect("asked").is_none(), "it waits");
    drop(lock);
    wait_for("the lock", || child.try_wait().expect("asked").map(drop).ok_or("still waiting"));
    Outcome::of(child).ok();
}
