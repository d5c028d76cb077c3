//! What stays when nobody runs, and who takes it over.

use std::path::Path;

use corten_ebpf::datapath::{Datapath, DatapathError, Endpoint, Hook, How, Reason, probe, state};

use crate::frame::Ip;
use crate::netns::{ifindex, private, run};
use crate::world::{NEXT, POD, World, parse};

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Programs of ours that tcx or clsact shows on an interface.
fn on(name: &str) -> usize {
    let shown = run(&format!("tc filter show dev {name} ingress"));
    shown.matches("direct-action").count()
}

#[test]
fn tables_attachments_and_counters_survive_the_process() {
    let Some(directory) = private() else { return };
    run("ip link add vp1 type veth peer name p1");
    let pod = ifindex("vp1");
    let endpoint = Endpoint { ifindex: pod, mac: POD, gateway_mac: [2; 6] };
    {
        let mut first = Datapath::load_or_open(&directory).unwrap();
        first.insert_endpoint(parse("10.244.1.2"), &endpoint).unwrap();
        first.set_state(state::ON).unwrap();
        first.attach(Hook::FromPod, pod).unwrap();
        first.attach(Hook::FromPod, pod).unwrap();
    }
    assert_eq!(names(&directory.join("links")), [format!("tcx-from_pod-{pod}")]);
    assert_eq!(names(&directory.join("programs")), ["from_nic", "from_pod"]);
    let mut second = Datapath::load_or_open(&directory).unwrap();
    assert_eq!(
        second.endpoints().unwrap().into_iter().collect::<Vec<_>>(),
        [(parse("10.244.1.2"), endpoint)]
    );
    assert_eq!(second.config().unwrap().state, state::ON);
    let attached = second.attached().unwrap();
    assert_eq!(attached.iter().map(|a| (a.hook, a.ifindex)).collect::<Vec<_>>(), [(Hook::FromPod, pod)]);
    second.detach(Hook::FromPod, pod).unwrap();
    second.detach(Hook::FromPod, pod).unwrap();
    assert_eq!(second.attached().unwrap(), []);
    second.remove_endpoint(parse("10.244.1.2")).unwrap();
    second.remove_endpoint(parse("10.244.1.2")).unwrap();
    assert!(second.endpoints().unwrap().is_empty());
}

#[test]
fn links_of_interfaces_that_are_gone_are_forgotten() {
    let Some(directory) = private() else { return };
    run("ip link add vp1 type veth peer name p1");
    let pod = ifindex("vp1");
    let mut datapath = Datapath::load_or_open(&directory).unwrap();
    datapath.attach(Hook::FromPod, pod).unwrap();
    run("ip link del vp1");
    drop(datapath);
    let mut datapath = Datapath::load_or_open(&directory).unwrap();
    assert_eq!(datapath.attached().unwrap(), []);
    assert!(names(&directory.join("links")).is_empty());
    let error = datapath.attach(Hook::FromPod, pod).unwrap_err();
    assert!(matches!(error, DatapathError::NoInterface { .. }), "{error}");
    let endpoint = Endpoint { ifindex: pod, mac: POD, gateway_mac: POD };
    let error = datapath.insert_endpoint(parse("10.244.1.2"), &endpoint).unwrap_err();
    assert!(matches!(error, DatapathError::Live { .. }), "{error}");
    assert!(datapath.endpoints().unwrap().is_empty(), "nothing half done");
}

#[test]
fn clsact_serves_where_tcx_is_not_to_be_had() {
    let Some(directory) = private() else { return };
    run("ip link add vp1 type veth peer name p1");
    let pod = ifindex("vp1");
    {
        let mut first = Datapath::load_with(&directory, How::Clsact).unwrap();
        first.attach(Hook::FromPod, pod).unwrap();
        first.attach(Hook::FromPod, pod).unwrap();
        assert_eq!(on("vp1"), 1);
    }
    let mut second = Datapath::load_with(&directory, How::Clsact).unwrap();
    assert_eq!(on("vp1"), 1, "replaced in place");
    assert_eq!(second.attached().unwrap().len(), 1);
    second.detach(Hook::FromPod, pod).unwrap();
    assert_eq!(on("vp1"), 0);
    assert_eq!(second.attached().unwrap(), []);
    // After an upgrade of the kernel the other way is taken.
    second.attach(Hook::FromPod, pod).unwrap();
    drop(second);
    let third = Datapath::load_with(&directory, How::Tcx).unwrap();
    assert_eq!(on("vp1"), 0);
    assert_eq!(third.attached().unwrap(), []);
}

#[test]
fn a_clsact_filter_of_somebody_else_stays() {
    let Some(directory) = private() else { return };
    run("ip link add vp1 type veth peer name p1");
    run("tc qdisc add dev vp1 clsact");
    run("tc filter add dev vp1 ingress protocol all prio 5 u32 match u32 0 0 classid 1:1");
    let mut datapath = Datapath::load_with(&directory, How::Clsact).unwrap();
    datapath.attach(Hook::FromPod, ifindex("vp1")).unwrap();
    Datapath::remove(&directory).unwrap();
    assert!(run("tc filter show dev vp1 ingress").contains("u32"));
    assert_eq!(on("vp1"), 0);
}

#[test]
fn removing_leaves_nothing_behind() {
    let Some(directory) = private() else { return };
    run("ip link add vp1 type veth peer name p1");
    {
        let mut datapath = Datapath::load_or_open(&directory).unwrap();
        datapath.attach(Hook::FromPod, ifindex("vp1")).unwrap();
        datapath.attach(Hook::FromNic, ifindex("p1")).unwrap();
    }
    Datapath::remove(&directory).unwrap();
    assert!(!directory.exists());
    Datapath::remove(&directory).unwrap();
}

#[test]
fn maps_of_another_version_make_room() {
    let Some(directory) = private() else { return };
    run("ip link add vp1 type veth peer name p1");
    {
        let mut first = Datapath::load_or_open(&directory).unwrap();
        first.set_state(state::ON).unwrap();
        first.attach(Hook::FromPod, ifindex("vp1")).unwrap();
    }
    std::fs::rename(directory.join("config"), directory.join("eps")).unwrap();
    let mut second = Datapath::load_or_open(&directory).unwrap();
    assert_eq!((second.config().unwrap().state, second.attached().unwrap()), (state::OFF, vec![]));
    assert!(second.endpoints().unwrap().is_empty());
    second.attach(Hook::FromPod, ifindex("vp1")).unwrap();
}

#[test]
fn a_directory_elsewhere_is_refused() {
    let Some(_) = private() else { return };
    let directory = tempfile::tempdir().unwrap();
    let error = Datapath::load_or_open(directory.path()).err().expect("no bpffs");
    assert!(matches!(error, DatapathError::NotBpffs { .. }), "{error}");
    assert!(!probe(directory.path()).is_fine());
}

#[test]
fn the_probe_says_what_this_kernel_has() {
    let Some(directory) = private() else { return };
    let probe = probe(&directory);
    assert!(probe.is_fine(), "{:?}", probe.missing);
    assert_eq!(probe.how, Datapath::load_or_open(&directory).unwrap().how());
}

#[test]
fn two_nodes_on_one_machine_do_not_meet() {
    let Some(directory) = private() else { return };
    let mut one = Datapath::load_or_open(&directory.join("one")).unwrap();
    let two = Datapath::load_or_open(&directory.join("two")).unwrap();
    one.set_state(state::ON).unwrap();
    assert_eq!(two.config().unwrap().state, state::OFF);
}

#[test]
fn an_older_process_may_still_hold_what_the_newer_one_took_over() {
    let Some(mut world) = World::new() else { return };
    let directory = Path::new("/sys/fs/corten/v1/tc");
    let mut newer = Datapath::load_or_open(directory).unwrap();
    newer.set_state(state::OFF).unwrap();
    let packet = Ip::udp("10.244.1.2", "10.244.1.3", (1, 2), 9);
    let outcome = world.pod_sends(POD, &packet);
    assert_eq!((outcome.verdict, outcome.reason), (NEXT, Reason::Off), "one set of maps");
}

/// Of a mistyped option (`--bpf-dir /etc`).
#[test]
fn nothing_is_ever_removed_from_a_file_system_that_is_not_bpffs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("links").join("tcx-from_pod-1");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "mine").unwrap();
    Datapath::remove(directory.path()).unwrap();
    corten_ebpf::socket::remove(directory.path()).unwrap();
    corten_ebpf::socket::remove(file.parent().unwrap()).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}
