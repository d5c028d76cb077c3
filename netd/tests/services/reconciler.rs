//! The reconciler as the daemon runs it: on a thread in the node's network namespace, from files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use corten_netd::services::model::Place;
use corten_netd::services::{Config, Mode, Services, Status, remove, source};
use tokio::sync::oneshot;

use crate::common::{Cgroup, move_to, wait_for};
use crate::world::{CLUSTER_IP, NODE_IP, World, service, settings, socket, tcp};
use corten_ebpf::socket::Options;

const SOON: Duration = Duration::from_secs(10);

struct Running {
    status: tokio::sync::watch::Receiver<Status>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(world: &World, resync: Duration) -> (Self, PathBuf) {
        Self::start_with(world, resync, Err("a test of packets".into()))
    }

    fn start_with(world: &World, resync: Duration, sockets: Result<Options, String>) -> (Self, PathBuf) {
        let file = world.stage.path("services.yaml");
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let (node, path) = (world.node.clone(), file.clone());
        let thread = std::thread::spawn(move || {
            node.within(|| {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let snapshots = source::file::watch(&path, Place { node: "node".into(), zone: None });
                    let config = Config { settings: settings(), sockets, resync };
                    let services = Services::open(config).expect("nf_tables");
                    tell.send(services.status()).expect("the test listens");
                    tokio::select! {
                        ended = services.run(snapshots) => panic!("{ended:?}"),
                        _ = stopped => {}
                    }
                });
            });
        });
        let status = told.recv().expect("it starts");
        (Self { status, stop: Some(stop), thread: Some(thread) }, file)
    }

    fn wait(&self, what: &str, condition: impl Fn(&Status) -> bool) {
        wait_for(what, SOON, || condition(&self.status.borrow()).then_some(()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().expect("joined once").join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// As a file holds them: with apiVersions.
fn file_of(yaml: &str) -> String {
    yaml.replace("kind: Service\n", "apiVersion: v1\nkind: Service\n")
        .replace("kind: EndpointSlice\n", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n")
}

#[test]
fn harm_is_healed_within_a_second_and_edits_take_effect() {
    let world = World::new();
    world.pod(11);
    world.pod(12);
    let (running, file) = Running::start(&world, Duration::from_mins(10));
    let put = |yaml: &str| std::fs::write(&file, file_of(yaml)).expect("written");
    running.wait("the missing file is told", |status| status.source_fault.is_some());
    put(&service("type: NodePort", &[11]));
    running.wait("in force", |status| status.in_force && status.endpoints == 2);
    let answers = |name: &str| {
        let at = [socket(CLUSTER_IP[0], 80), socket(NODE_IP[1], 30080)];
        at.into_iter().all(|to| tcp(&world.client, to).is_ok_and(|(found, _)| found == name))
    };
    assert!(answers("pod11"));
    let list = "nft list table inet corten-services";
    let good = world.node.sh(list);
    for harm in [
        "nft flush ruleset",
        "nft delete table inet corten-services",
        "nft flush chain inet corten-services services",
    ] {
        world.node.sh(harm);
        let healed = || world.node.try_sh(list).then(|| world.node.sh(list)).filter(|now| *now == good);
        wait_for(harm, Duration::from_secs(1), healed);
        assert!(answers("pod11"), "{harm}");
    }
    put(&service("type: NodePort", &[12]));
    wait_for("the edit", SOON, || answers("pod12").then_some(()));
    put("kind: [");
    running.wait("the bad edit is told", |status| status.source_fault.is_some());
    assert!(answers("pod12"), "the last good stays");
    let status = running.status.borrow().clone();
    assert_eq!(status.mode, Mode::PacketsOnly { why: "a test of packets".into() });
    assert_eq!((status.services, status.errors.len(), status.warnings.len()), (1, 0, 0));
    // Rules of others are heard of and are no reason to do anything.
    let passes = running.status.borrow().done.passes;
    world.node.sh("nft add table ip other");
    put(&service("type: NodePort", &[11]));
    wait_for("the edit", SOON, || answers("pod11").then_some(()));
    running.wait("the pass is told", |status| status.done.passes > passes);
    assert_eq!(running.status.borrow().done.passes, passes + 1);
}

#[test]
fn what_runs_on_after_the_daemon_is_taken_over_without_a_change() {
    let world = World::new();
    world.pod(11);
    std::fs::write(world.stage.path("services.yaml"), file_of(&service("type: NodePort", &[11])))
        .expect("written");
    for first in [true, false] {
        let (running, _) = Running::start(&world, Duration::from_millis(50));
        running.wait("several passes", |status| status.done.passes > 5 && status.in_force);
        let done = running.status.borrow().done;
        assert_eq!((done.tables, done.elements > 0), (u64::from(first), first));
        drop(running);
        assert_eq!(tcp(&world.client, socket(CLUSTER_IP[0], 80)).expect("an answer").0, "pod11");
    }
}

#[test]
fn a_load_balancers_health_check_is_answered() {
    let world = World::new();
    let (running, file) = Running::start(&world, Duration::from_mins(10));
    let spec = "type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: 32111";
    let get = || {
        let to = socket(NODE_IP[0], 32111);
        let mut stream = world.client.within(|| TcpStream::connect_timeout(&to, SOON)).ok()?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    };
    for (pods, code, count) in [(&[11, 12, 111][..], "200 OK", 2), (&[111][..], "503 Service Unavailable", 0)]
    {
        std::fs::write(&file, file_of(&service(spec, pods))).expect("written");
        let answer = wait_for("an answer", SOON, || get().filter(|text| text.contains(code)));
        assert!(answer.contains(&format!(r#""localEndpoints":{count}"#)), "{answer}");
        assert!(answer.contains(r#"{"name":"web","namespace":"test"}"#), "{answer}");
    }
    std::fs::write(&file, file_of(&service("type: ClusterIP", &[11]))).expect("written");
    wait_for("the port is closed", SOON, || get().is_none().then_some(()));
    drop(running);
}

#[test]
fn sockets_and_packets_are_served_together_and_all_is_taken_away_at_the_end() {
    let Some(cgroup) = Cgroup::new() else { return };
    let world = World::new();
    let pod = world.pod(11);
    let pins = world.stage.path("bpf").join("socket");
    let options = Options { pin_directory: pins.clone(), cgroup: cgroup.path.clone() };
    let (running, file) = Running::start_with(&world, Duration::from_mins(10), Ok(options));
    std::fs::write(&file, file_of(&service("type: NodePort", &[11, 111]))).expect("written");
    running.wait("in force", |status| status.in_force && status.services == 1);
    assert_eq!(running.status.borrow().mode, Mode::SocketsAndPackets);
    move_to(&cgroup.path);
    // Without rules for packets only sockets can do it.
    drop(running);
    world.node.sh("nft delete table inet corten-services");
    for to in [socket(CLUSTER_IP[0], 80), socket(CLUSTER_IP[1], 80), socket(NODE_IP[0], 30080)] {
        for from in [&pod, &world.node] {
            assert!(["pod11", "far"].contains(&tcp(from, to).expect("an answer").0.as_str()), "{to}");
        }
    }
    let options = Options { pin_directory: pins.clone(), cgroup: cgroup.path.clone() };
    let (running, _) = Running::start_with(&world, Duration::from_mins(10), Ok(options));
    running.wait("in force again", |status| status.in_force && status.services == 1);
    let connected =
        running.status.borrow().sockets.iter().find(|(what, _)| *what == "connected").map(|(_, n)| *n);
    assert!(connected.is_some_and(|n| n >= 6), "{connected:?}");
    // A client that is no process of this node.
    move_to(&cgroup.parent);
    assert!(tcp(&world.client, socket(NODE_IP[0], 30080)).is_ok());
    move_to(&cgroup.path);
    drop(running);
    world.node.within(|| remove(&pins)).expect("removed");
    assert!(!world.node.sh("nft list tables").contains("corten"));
    assert!(tcp(&pod, socket(CLUSTER_IP[0], 80)).is_err());
    assert!(!pins.exists() || std::fs::read_dir(&pins).expect("a directory").next().is_none());
    world.node.within(|| remove(&pins)).expect("what is not there is no error");
}
