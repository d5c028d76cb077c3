use corten_netlink::{Protocol, Socket};
use serde_json::{Value, json};

use crate::world::{Host, Pod, with};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn lo_is_up(pod: &Pod) -> bool {
    pod.run(|| {
        Socket::open(Protocol::Route).expect("a socket").link("lo").expect("looked up").expect("lo").up
    })
}

fn config(version: &str) -> Value {
    json!({"cniVersion": version, "name": "net", "type": "loopback"})
}

#[test]
fn lo_comes_up_and_goes_down_in_every_version() {
    let host = Host::new();
    for version in VERSIONS {
        let pod = host.pod("pod-1");
        let result = host.call("loopback", "ADD", &pod, &config(version)).ok();
        assert_eq!(result["cniVersion"], version);
        let address = if version < "0.3" { &result["ip4"]["ip"] } else { &result["ips"][0]["address"] };
        assert_eq!(address, "127.0.0.1/8", "{version}");
        assert!(lo_is_up(&pod));
        if version >= "0.4" {
            host.call("loopback", "CHECK", &pod, &config(version)).ok();
        }
        host.call("loopback", "DEL", &pod, &config(version)).ok();
        assert!(!lo_is_up(&pod));
        if version >= "0.4" {
            host.call("loopback", "CHECK", &pod, &config(version)).error(999, "down");
        }
        host.call("loopback", "DEL", &pod, &config(version)).ok();
    }
}

#[test]
fn a_prev_result_is_passed_on_with_fields_unknown_to_us() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    let prev = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24", "x": 1}], "vendor": "v"});
    let result = host.call("loopback", "ADD", &pod, &with(&config("1.0.0"), "prevResult", prev.clone())).ok();
    assert_eq!(result, prev);
}

#[test]
fn a_vanished_namespace_is_no_error_on_del_and_one_on_add() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    let gone = [("CNI_NETNS", "/proc/1/nothing")];
    let maker = crate::world::Maker::Corten;
    host.call_of(maker, "loopback", "DEL", &pod, &config("1.0.0"), &gone).ok();
    host.call_of(maker, "loopback", "ADD", &pod, &config("1.0.0"), &gone).error(4, "/proc/1/nothing: ENOENT");
    let file = [("CNI_NETNS", "/etc/passwd")];
    host.call_of(maker, "loopback", "ADD", &pod, &config("1.0.0"), &file).error(4, "ordinary file");
    host.call_of(maker, "loopback", "DEL", &pod, &config("1.0.0"), &file).ok();
}

#[test]
fn gc_and_status_are_there() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    host.call("loopback", "STATUS", &pod, &config("1.1.0")).ok();
    let gc = with(&config("1.1.0"), "cni.dev/valid-attachments", json!([]));
    host.call("loopback", "GC", &pod, &gc).ok();
    host.call("loopback", "GC", &pod, &config("1.1.0")).error(7, "valid-attachments");
}
