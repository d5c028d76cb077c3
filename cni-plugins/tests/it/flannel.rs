use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use corten_netlink::{Protocol, Socket};
use serde_json::{Value, json};

use crate::world::{Host, Maker, Outcome, Pod, ask, first_address, merge, with};

const DUAL: &str = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.7.1/24\n\
    FLANNEL_IPV6_NETWORK=fd42::/48\nFLANNEL_IPV6_SUBNET=fd42:0:0:7::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
const SINGLE: &str =
    "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";

/// As the flannel daemon does.
fn write_subnet(host: &Host, text: &str) {
    let path = subnet_file(host);
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, path).expect("renamed");
}

fn subnet_file(host: &Host) -> PathBuf {
    host.dir.path().join("subnet.env")
}

fn network(host: &Host, version: &str, extra: Value) -> Value {
    let mut config = json!({
        "cniVersion": version, "name": "net", "type": "flannel", "subnetFile": subnet_file(host),
        "dataDir": host.records(), "ipam": {"dataDir": host.data()},
    });
    merge(&mut config, extra);
    config
}

fn record(host: &Host, name: &str) -> Value {
    let text = fs::read_to_string(host.records().join(name)).expect("a record");
    serde_json::from_str(&text).expect("json")
}

#[test]
fn the_nodes_subnet_becomes_a_bridge_network_in_every_version() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let host = Host::new();
        write_subnet(&host, DUAL);
        let (pod, other) = (host.pod("pod-1"), host.pod("pod-2"));
        let config =
            network(&host, version, json!({"delegate": {"isDefaultGateway": true, "hairpinMode": true}}));
        let result = host.call("flannel", "ADD", &pod, &config).ok();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(
            (&result["ips"][0]["address"], &result["ips"][1]["address"]),
            (&json!("10.42.7.2/24"), &json!("fd42:0:0:7::2/64"))
        );
        assert_eq!(result["routes"][0]["dst"], "10.42.0.0/16", "by way of the gateway to all pods");
        let wanted = json!({
            "cniVersion": version, "name": "net", "type": "bridge", "isDefaultGateway": true, "isGateway": true,
            "hairpinMode": true, "mtu": 1450, "ipMasq": false,
            "ipam": {
                "type": "host-local", "dataDir": host.data(),
                "ranges": [[{"subnet": "10.42.7.0/24"}], [{"subnet": "fd42:0:0:7::/64"}]],
                "routes": [{"dst": "10.42.0.0/16"}, {"dst": "fd42::/48"}],
            },
        });
        assert_eq!((record(&host, "pod-1@eth0"), record(&host, "pod-1")), (wanted.clone(), wanted));
        host.call("flannel", "ADD", &other, &config).ok();
        pod.serve(80);
        other.run(|| {
            assert_eq!(ask("10.42.7.2:80").expect("answered"), "10.42.7.3");
            assert_eq!(ask("[fd42:0:0:7::2]:80").expect("answered"), "fd42:0:0:7::3");
            let mut socket = Socket::open(Protocol::Route).expect("a socket");
            assert_eq!(socket.link("eth0").expect("looked up").expect("eth0").mtu, 1450);
        });
        let config = with(&config, "prevResult", result);
        if version >= "0.4" {
            host.call("flannel", "CHECK", &pod, &config).ok();
        }
        for _ in 0..2 {
            host.call("flannel", "DEL", &pod, &config).ok();
        }
        host.call("flannel", "DEL", &other, &config).ok();
        assert_eq!(host.traces(), [] as [&str; 0], "{version}");
    }
}

#[test]
fn ipmasq_is_the_opposite_of_the_daemons() {
    let host = Host::new();
    let neighbour = host.neighbour();
    neighbour.serve(80);
    write_subnet(&host, SINGLE);
    let pod = host.pod("pod-1");
    let config = network(&host, "1.0.0", json!({"delegate": {"isDefaultGateway": true}}));
    host.call("flannel", "ADD", &pod, &config).ok();
    assert_eq!(pod.run(|| ask("192.0.2.2:80")).expect("answered"), "192.0.2.1", "masqueraded by bridge");
    host.call("flannel", "DEL", &pod, &config).ok();
    assert_eq!(host.traces(), [] as [&str; 0]);
}

/// Upstream removes its record even when the delegate's DEL failed; the retry then finds nothing to do and returns
/// success, and address, veth and rules leak.
#[test]
fn a_failed_del_of_the_delegate_is_finished_by_the_retry() {
    let host = Host::new();
    write_subnet(&host, SINGLE);
    let pod = host.pod("pod-1");
    let config = network(&host, "1.0.0", json!({}));
    host.call("flannel", "ADD", &pod, &config).ok();
    assert!(host.traces().len() > 2, "address, record and rules: {:?}", host.traces());
    let lock = host.data().join("net/lock");
    fs::remove_file(&lock).expect("removed");
    fs::create_dir(&lock).expect("a directory in its place");
    host.call("flannel", "DEL", &pod, &config).error(5, "EISDIR");
    assert_eq!(record(&host, "pod-1@eth0")["type"], "bridge", "the record is still there");
    assert!(host.data().join("net/10.42.7.2").exists(), "so is the address");
    fs::remove_dir(&lock).expect("removed");
    host.call("flannel", "DEL", &pod, &config).ok();
    assert_eq!(host.traces(), [] as [&str; 0]);
}

/// Upstream names its record by the container alone.
#[test]
fn two_interfaces_of_a_pod_are_deleted_each_by_its_own_record() {
    let host = Host::new();
    write_subnet(&host, SINGLE);
    let pod = host.pod("pod-1");
    let first = network(&host, "1.0.0", json!({}));
    let second = network(
        &host,
        "1.0.0",
        json!({"name": "second", "delegate": {"bridge": "cni1", "isGateway": false}}),
    );
    let net1 = [("CNI_IFNAME", "net1")];
    host.call("flannel", "ADD", &pod, &first).ok();
    host.call_of(Maker::Corten, "flannel", "ADD", &pod, &second, &net1).ok();
    assert_eq!(record(&host, "pod-1@net1")["bridge"], "cni1");
    assert_eq!(record(&host, "pod-1")["name"], "net", "upstream's name is the first interface's");
    for _ in 0..2 {
        host.call_of(Maker::Corten, "flannel", "DEL", &pod, &second, &net1).ok();
        assert_eq!(record(&host, "pod-1@eth0")["name"], "net");
    }
    host.call("flannel", "DEL", &pod, &first).ok();
    let traces = host.traces();
    assert_eq!(traces, ["cni1"], "the second network's bridge, no more");
    assert_eq!(
        fs::read_dir(host.data().join("second"))
            .expect("listed")
            .filter(|e| { e.as_ref().expect("an entry").file_name().to_string_lossy().starts_with("10.") })
            .count(),
        0
    );
}

#[test]
fn without_subnet_env_add_says_try_again_and_status_not_available() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    let config = network(&host, "1.1.0", json!({}));
    let missing = |code_of_add: u32, wanted: &str| {
        host.call("flannel", "ADD", &pod, &config).error(code_of_add, wanted);
        host.call("flannel", "STATUS", &pod, &config).error(50, wanted);
    };
    missing(11, "subnet.env: No such file");
    for (text, wanted) in [
        ("", "is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET"),
        ("FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.4", "FLANNEL_SUBNET has an invalid value \"10.4\""),
    ] {
        fs::write(subnet_file(&host), text).expect("written");
        missing(11, wanted);
    }
    assert_eq!(host.traces(), [] as [&str; 0], "nothing was begun");
    host.call("flannel", "DEL", &pod, &config).ok();
    write_subnet(&host, SINGLE);
    host.call("flannel", "STATUS", &pod, &config).ok();
    let impossible = with(&config, "dataDir", json!("/proc/nothing"));
    host.call("flannel", "STATUS", &pod, &impossible).error(50, "/proc/nothing");
    let broken = with(&config, "ipam", json!({"dataDir": "/proc/nothing"}));
    host.call("flannel", "STATUS", &pod, &broken).error(50, "/proc/nothing");
}

#[test]
fn check_finds_a_changed_subnet_and_a_missing_interface() {
    let host = Host::new();
    write_subnet(&host, SINGLE);
    let pod = host.pod("pod-1");
    let config = network(&host, "1.0.0", json!({}));
    host.call("flannel", "CHECK", &pod, &config).error(3, "no record");
    let result = host.call("flannel", "ADD", &pod, &config).ok();
    let config = with(&config, "prevResult", result);
    host.call("flannel", "CHECK", &pod, &config).ok();
    for (from, to, wanted) in [
        ("10.42.7.1/24", "10.42.8.1/24", "ipam.ranges [[{\"subnet\":\"10.42.7.0/24\"}]]"),
        ("10.42.0.0/16", "10.40.0.0/13", "ipam.routes"),
        ("MTU=1450", "MTU=1400", "mtu 1450, now it would be 1400"),
        ("IPMASQ=false", "IPMASQ=true", "ipMasq true, now it would be false"),
    ] {
        write_subnet(&host, &SINGLE.replace(from, to));
        host.call("flannel", "CHECK", &pod, &config).error(999, wanted);
    }
    fs::remove_file(subnet_file(&host)).expect("removed");
    host.call("flannel", "CHECK", &pod, &config).error(11, "subnet.env");
    write_subnet(&host, SINGLE);
    pod.run(|| {
        let mut socket = Socket::open(Protocol::Route).expect("a socket");
        let index = socket.link("eth0").expect("looked up").expect("eth0").index;
        socket.transact(vec![corten_netlink::route::encode::delete_link(index)]).expect("deleted");
    });
    host.call("flannel", "CHECK", &pod, &config).error(999, "\"eth0\" is not in the container");
}

#[test]
fn del_uses_the_record_even_when_the_subnet_and_the_namespace_are_gone() {
    let host = Host::new();
    write_subnet(&host, SINGLE);
    let pod = host.pod("pod-1");
    let config = network(&host, "1.0.0", json!({}));
    let result = host.call("flannel", "ADD", &pod, &config).ok();
    fs::remove_file(subnet_file(&host)).expect("removed");
    let id = pod.id.clone();
    drop(pod);
    let stand_in = host.pod(&id);
    let config = with(&config, "prevResult", result);
    for netns in ["", "/proc/1/nothing"] {
        host.call_of(Maker::Corten, "flannel", "DEL", &stand_in, &config, &[("CNI_NETNS", netns)]).ok();
    }
    host.wait_for_no_traces();
}

#[test]
fn half_a_record_still_frees_the_address() {
    let host = Host::new();
    write_subnet(&host, SINGLE);
    let pod = host.pod("pod-1");
    let config = network(&host, "1.0.0", json!({}));
    host.call("flannel", "ADD", &pod, &config).ok();
    fs::write(host.records().join("pod-1@eth0"), "{\"cniVer").expect("written");
    host.call("flannel", "DEL", &pod, &config).ok();
    assert_eq!(host.traces(), [] as [&str; 0]);
}

#[test]
fn what_the_go_plugin_recorded_is_deleted() {
    let host = Host::new();
    write_subnet(&host, SINGLE);
    let pod = host.pod("pod-1");
    let config = network(&host, "1.0.0", json!({}));
    host.call("flannel", "ADD", &pod, &config).ok();
    fs::remove_file(host.records().join("pod-1@eth0")).expect("only upstream's name is left");
    host.call("flannel", "DEL", &pod, &config).ok();
    assert_eq!(host.traces(), [] as [&str; 0]);
}

#[test]
fn a_refused_add_leaves_no_record_and_a_second_add_keeps_the_firsts() {
    let host = Host::new();
    write_subnet(&host, SINGLE);
    let pod = host.pod("pod-1");
    for (extra, code, wanted) in [
        (json!({"delegate": {"name": "x"}}), 7, "'name'"),
        (json!({"delegate": {"type": "flannel"}}), 7, "itself"),
        (json!({"delegate": {"type": "../bridge"}}), 7, "delegate.type"),
        (json!({"delegate": {"vlan": 7}}), 2, "\"vlan\""),
        (json!({"delegate": {"type": "nothing"}}), 4, "failed to find plugin \"nothing\""),
        (json!({"ipam": {"routes": [{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]}}), 999, "ENETUNREACH"),
    ] {
        host.call("flannel", "ADD", &pod, &network(&host, "1.0.0", extra)).error(code, wanted);
        let traces: Vec<_> = host.traces().into_iter().filter(|t| !t.contains("nothing")).collect();
        if code != 4 {
            assert_eq!(traces, [] as [&str; 0], "{wanted}");
        }
        let _ = fs::remove_dir_all(host.records());
    }
    let config = network(&host, "1.0.0", json!({}));
    host.call("flannel", "ADD", &pod, &config).ok();
    host.call("flannel", "ADD", &pod, &config).error(999, "already exists");
    host.call("flannel", "DEL", &pod, &config).ok();
    assert_eq!(host.traces(), [] as [&str; 0]);
}

/// A delegate of somebody else: records what it was asked in a file.
fn foreign_delegate(host: &Host) -> PathBuf {
    let dir = host.dir.path().join("bin");
    fs::create_dir_all(&dir).expect("made");
    let path = dir.join("wire");
    let log = host.dir.path().join("log");
    let script = format!(
        "#!/bin/sh\ncat > {log}.stdin\necho \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME\" >> {log}\n\
         [ -e {log}.fail ] && {{ echo '{{\"code\":107,\"msg\":\"not now\"}}'; exit 1; }}\n\
         [ $CNI_COMMAND = ADD ] && echo '{{\"cniVersion\":\"1.0.0\",\"ips\":[{{\"address\":\"10.42.7.9/24\"}}]}}'\nexit 0\n",
        log = log.display()
    );
    fs::write(&path, script).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    dir
}

#[test]
fn a_foreign_delegate_is_run_from_the_path_and_told_to_undo() {
    let host = Host::new();
    write_subnet(&host, DUAL);
    let bin = foreign_delegate(&host);
    let path = [("CNI_PATH", bin.to_str().expect("text"))];
    let pod = host.pod("pod-1");
    let log = host.dir.path().join("log");
    let fail = host.dir.path().join("log.fail");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let config = network(
        &host,
        "1.1.0",
        json!({"delegate": {"type": "wire", "master": "eth9"}, "runtimeConfig": {"mac": "m"}}),
    );
    let call = |verb: &str, config: &Value| host.call_of(Maker::Corten, "flannel", verb, &pod, config, &path);
    fs::write(&fail, "").expect("written");
    call("ADD", &config).error(107, "delegate wire: not now");
    assert_eq!(said(), "ADD pod-1 eth0\nDEL pod-1 eth0\n");
    assert!(
        host.records().join("pod-1@eth0").exists(),
        "its DEL failed too: the record waits for the runtime's"
    );
    fs::remove_file(&fail).expect("removed");
    call("DEL", &config).ok();
    assert_eq!(host.traces(), [] as [&str; 0]);
    let result = call("ADD", &config).ok();
    assert_eq!(result["ips"][0]["address"], "10.42.7.9/24");
    let stdin: Value =
        serde_json::from_str(&fs::read_to_string(host.dir.path().join("log.stdin")).expect("read"))
            .expect("json");
    assert_eq!(
        (&stdin["master"], &stdin["runtimeConfig"], stdin.get("isGateway"), &stdin["mtu"]),
        (&json!("eth9"), &json!({"mac": "m"}), None, &json!(1450))
    );
    fs::write(&log, "").expect("emptied");
    call("GC", &with(&config, "cni.dev/valid-attachments", json!([]))).ok();
    assert_eq!(said(), "DEL pod-1 eth0\nGC pod-1 eth0\n", "the stale attachment by DEL, then its own GC");
    assert_eq!(host.traces(), [] as [&str; 0]);
}

#[test]
fn gc_removes_what_is_not_valid_and_leaves_other_networks() {
    let host = Host::new();
    write_subnet(&host, SINGLE);
    let config = network(&host, "1.1.0", json!({}));
    let (keep, lost) = (host.pod("keep"), host.pod("lost"));
    host.call("flannel", "ADD", &keep, &config).ok();
    host.call("flannel", "ADD", &lost, &config).ok();
    let other = network(
        &host,
        "1.1.0",
        json!({"name": "other", "delegate": {"bridge": "cni1"}, "subnetFile": host.dir.path().join("other.env")}),
    );
    fs::write(host.dir.path().join("other.env"), SINGLE.replace("10.42.7", "10.42.8")).expect("written");
    host.call("flannel", "ADD", &host.pod("alien"), &other).ok();
    let valid = json!([{"containerID": "keep", "ifname": "eth0"}]);
    host.call("flannel", "GC", &keep, &with(&config, "cni.dev/valid-attachments", valid)).ok();
    let traces = host.traces().join(" ");
    assert!(!traces.contains("lost") && !traces.contains("10.42.7.3"), "{traces}");
    for wanted in ["keep@eth0", "10.42.7.2", "id: keep", "alien@eth0", "id: alien"] {
        assert!(traces.contains(wanted), "{wanted}: {traces}");
    }
    let none = with(&config, "cni.dev/valid-attachments", json!([]));
    fs::remove_file(subnet_file(&host)).expect("removed");
    host.call("flannel", "GC", &keep, &none).ok();
    let traces = host.traces().join(" ");
    assert!(!traces.contains("keep") && traces.contains("alien@eth0"), "also without subnet.env: {traces}");
}

#[test]
fn subnet_env_may_be_replaced_at_any_moment() {
    let host = Host::new();
    write_subnet(&host, SINGLE);
    let (path, stop) = (subnet_file(&host), AtomicBool::new(false));
    let larger = format!("{SINGLE}{}", "# a comment\n".repeat(500));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let new = path.with_extension("new");
            for text in [SINGLE, &larger].into_iter().cycle() {
                fs::write(&new, text).expect("written");
                fs::rename(&new, &path).expect("renamed");
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let pod = host.pod("pod-1");
        let config = network(&host, "1.1.0", json!({}));
        let outcomes: Vec<Outcome> = (0..60).map(|_| host.call("flannel", "STATUS", &pod, &config)).collect();
        stop.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            outcome.ok();
        }
    });
}

#[test]
fn parallel_adds_get_different_addresses_and_dels_leave_nothing() {
    let host = Host::new();
    write_subnet(&host, DUAL);
    let config = network(&host, "1.0.0", json!({"delegate": {"isDefaultGateway": true, "ipMasq": true}}));
    let pods: Vec<Pod> = (0..32).map(|i| host.pod(&format!("pod-{i}"))).collect();
    let all = |verb: &str| -> Vec<Value> {
        let spawn = |pod| host.spawn(Maker::Corten, "flannel", verb, pod, &config, &[]);
        let children: Vec<_> = pods.iter().map(spawn).collect();
        children.into_iter().map(|child| Outcome::of(child).ok()).collect()
    };
    let mut addresses: Vec<String> = all("ADD").iter().map(first_address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 32);
    all("DEL");
    assert_eq!(host.traces(), [] as [&str; 0]);
}
