use corten_netlink::nft::{Family, Table};
use corten_netlink::route::Link;
use corten_netlink::{Protocol, Socket};
use serde_json::{Value, json};

use crate::world::{Host, Maker, Pod, ask, first_address, with};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn inside(pod: &Pod) -> (Socket, Option<Link>) {
    let mut socket = pod.run(|| Socket::open(Protocol::Route).expect("a socket"));
    let eth0 = socket.link("eth0").expect("looked up");
    (socket, eth0)
}

fn sysctl(key: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{key}")).expect("a sysctl").trim().to_owned()
}

#[test]
fn add_check_del_in_every_version() {
    for version in VERSIONS {
        let host = Host::new();
        let pod = host.pod("pod-1");
        let config = host.network(version, json!({"isDefaultGateway": true, "ipMasq": true}));
        let result = host.call("bridge", "ADD", &pod, &config).ok();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(first_address(&result), "10.22.0.2");
        if version >= "0.3" {
            let interfaces = result["interfaces"].as_array().expect("a list");
            let names: Vec<&str> = interfaces.iter().map(|i| i["name"].as_str().expect("text")).collect();
            assert_eq!((names[0], names[2]), ("cni0", "eth0"));
            assert_eq!(interfaces[2]["sandbox"], pod.path().to_str().expect("text"));
            assert_eq!(
                (&result["ips"][0]["interface"], &result["ips"][0]["gateway"]),
                (&json!(2), &json!("10.22.0.1"))
            );
            let veth = host.socket().link(names[1]).expect("looked up").expect("the host's end");
            assert_eq!(veth.mac.expect("a MAC").to_string(), interfaces[1]["mac"].as_str().expect("text"));
            let has_version = result["ips"][0].get("version").is_some();
            assert_eq!(has_version, version < "1", "{version}");
        }
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
        pod.serve(80);
        assert_eq!(ask("10.22.0.2:80").expect("answered"), "10.22.0.1");
        let config = with(&config, "prevResult", result);
        if version >= "0.4" {
            host.call("bridge", "CHECK", &pod, &config).ok();
        } else {
            host.call("bridge", "CHECK", &pod, &config).error(1, "does not allow CHECK");
        }
        for _ in 0..2 {
            host.call("bridge", "DEL", &pod, &config).ok();
            assert_eq!(host.traces(), [] as [&str; 0], "{version}: gone when DEL returns");
            assert_eq!(inside(&pod).1, None);
        }
        if version >= "0.4" {
            host.call("bridge", "CHECK", &pod, &config).error(999, "failed to find address");
        }
    }
}

#[test]
fn two_pods_talk_over_the_bridge_in_both_families() {
    let host = Host::new();
    let ipam = json!({"ipam": {"subnet": null, "ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "fd22::/64"}]]}});
    let mut config = host.network("1.1.0", json!({"isDefaultGateway": true, "mtu": 1400}));
    crate::world::merge(&mut config, ipam);
    let (a, b) = (host.pod("a"), host.pod("b"));
    let result = host.call("bridge", "ADD", &a, &config).ok();
    assert_eq!(result["ips"][1]["address"], "fd22::2/64");
    host.call("bridge", "ADD", &b, &config).ok();
    a.serve(80);
    b.run(|| {
        assert_eq!(ask("10.22.0.2:80").expect("answered"), "10.22.0.3");
        assert_eq!(ask("[fd22::2]:80").expect("answered"), "fd22::3");
    });
    assert_eq!(ask("[fd22::2]:80").expect("answered"), "fd22::1");
    let (mut socket, eth0) = inside(&a);
    let eth0 = eth0.expect("eth0");
    assert_eq!((eth0.mtu, eth0.up), (1400, true));
    let addresses = socket.addresses(eth0.index).expect("listed");
    assert!(!addresses.iter().any(corten_netlink::route::Address::tentative), "settled when ADD returns");
    a.run(|| {
        assert_eq!(sysctl("ipv4/conf/eth0/arp_notify"), "1");
        assert_eq!(sysctl("ipv6/conf/eth0/keep_addr_on_down"), "1");
        assert_eq!(sysctl("ipv6/conf/eth0/accept_dad"), "0");
    });
    assert_eq!(sysctl("ipv6/conf/all/forwarding"), "1");
    host.call("bridge", "CHECK", &a, &with(&config, "prevResult", result)).ok();
    for pod in [&a, &b] {
        host.call("bridge", "DEL", pod, &config).ok();
    }
    assert_eq!(host.traces(), [] as [&str; 0]);
}

#[test]
fn a_neighbour_of_the_host_sees_masqueraded_pods_by_the_hosts_address() {
    let host = Host::new();
    let neighbour = host.neighbour();
    neighbour.serve(80);
    let config = host.network("1.0.0", json!({"isDefaultGateway": true, "ipMasq": true}));
    let (pod, other) = (host.pod("pod-1"), host.pod("pod-2"));
    host.call("bridge", "ADD", &pod, &config).ok();
    host.call("bridge", "ADD", &other, &config).ok();
    assert_eq!(pod.run(|| ask("192.0.2.2:80")).expect("answered"), "192.0.2.1");
    other.serve(81);
    assert_eq!(
        pod.run(|| ask("10.22.0.3:81")).expect("answered"),
        "10.22.0.2",
        "inside the subnet it is itself"
    );
    host.call("bridge", "DEL", &other, &config).ok();
    assert_eq!(
        pod.run(|| ask("192.0.2.2:80")).expect("answered"),
        "192.0.2.1",
        "the other's DEL took only its own"
    );
}

#[test]
fn check_finds_what_is_missing() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    let plain = host.network("1.0.0", json!({"isDefaultGateway": true, "ipMasq": true}));
    let result = host.call("bridge", "ADD", &pod, &plain).ok();
    let config = with(&plain, "prevResult", result.clone());
    host.call("bridge", "CHECK", &pod, &plain).error(7, "prevResult");
    let broken = |path: &str, value: Value| {
        let mut config = config.clone();
        *config.pointer_mut(path).expect("there") = value;
        config
    };
    for (path, value, wanted) in [
        ("/prevResult/interfaces/0/mac", json!("02:00:00:00:00:01"), "MAC"),
        ("/prevResult/interfaces/1/name", json!("veth0"), "veth"),
        ("/prevResult/interfaces/2/sandbox", json!("/else"), "sandbox"),
        ("/prevResult/ips/0/address", json!("10.22.0.9/24"), "10.22.0.9/24 is not on"),
        ("/prevResult/routes/0/dst", json!("192.0.2.0/24"), "route 192.0.2.0/24"),
        ("/bridge", json!("cni9"), "cni9"),
    ] {
        host.call("bridge", "CHECK", &pod, &broken(path, value)).error(999, wanted);
    }
    host.call("bridge", "CHECK", &pod, &with(&config, "promiscMode", json!(true))).error(999, "promiscuous");
    let mut nft = Socket::open(Protocol::Netfilter).expect("a socket");
    let mut batch = corten_netlink::nft::Batch::new();
    batch.flush_chain(Table { family: Family::Inet, name: "cni_plugins_masquerade" }, "masq_checks");
    batch.commit(&mut nft).expect("flushed");
    host.call("bridge", "CHECK", &pod, &config).error(999, "masquerade rule for 10.22.0.2/24 is missing");
}

#[test]
fn a_bridge_with_another_address_is_refused_unless_forced() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.call("bridge", "ADD", &a, &host.network("1.0.0", json!({"isGateway": true}))).ok();
    let other = json!({"isGateway": true, "name": "other", "ipam": {"subnet": "10.33.0.0/24"}});
    let config = host.network("1.0.0", other);
    let before = host.traces();
    host.call("bridge", "ADD", &b, &config).error(7, "already has an IP address different from 10.33.0.1/24");
    assert_eq!(host.traces(), before, "nothing of b is left");
    assert_eq!(inside(&b).1, None);
    let result = host.call("bridge", "ADD", &b, &with(&config, "forceAddress", json!(true))).ok();
    let address = first_address(&result);
    b.serve(80);
    assert_eq!(ask(&format!("{address}:80")).expect("answered"), "10.33.0.1");
}

#[test]
fn port_settings_reach_the_kernel() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    let extra = json!({"hairpinMode": true, "portIsolation": true, "mtu": 1300});
    let result = host.call("bridge", "ADD", &pod, &host.network("1.0.0", extra)).ok();
    let veth = result["interfaces"][1]["name"].as_str().expect("text");
    let output = std::process::Command::new("ip").args(["-d", "-j", "link", "show", veth]).output();
    let Ok(output) = output else {
        return println!("SKIP: ip(8) is not installed (apt-get install iproute2)");
    };
    let links: Value = serde_json::from_slice(&output.stdout).expect("json");
    let data = &links[0]["linkinfo"]["info_slave_data"];
    assert_eq!(
        (&data["hairpin"], &data["isolated"], &links[0]["mtu"]),
        (&json!(true), &json!(true), &json!(1300))
    );
    let promiscuous = host.network("1.0.0", json!({"promiscMode": true, "name": "net2"}));
    host.call("bridge", "ADD", &host.pod("pod-2"), &promiscuous).ok();
    assert_ne!(host.socket().link("cni0").expect("looked up").expect("cni0").promiscuity, 0);
}

#[test]
fn the_mac_is_taken_from_arguments() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    let mac = "0a:58:0a:16:00:02";
    let environment = [("CNI_ARGS", "IgnoreUnknown=1;MAC=0a:58:0a:16:00:02;K8S_POD_NAME=x")];
    let config = host.network("1.0.0", json!({}));
    let result = host.call_of(Maker::Corten, "bridge", "ADD", &pod, &config, &environment).ok();
    assert_eq!(result["interfaces"][2]["mac"], mac);
    assert_eq!(inside(&pod).1.and_then(|l| l.mac).expect("a MAC").to_string(), mac);
}

#[test]
fn without_ipam_it_is_a_wire_and_may_stay_down() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge"});
    let result = host.call("bridge", "ADD", &a, &config).ok();
    assert_eq!(result.get("ips"), None);
    assert!(inside(&a).1.expect("eth0").up);
    host.call("bridge", "ADD", &a, &config).error(999, "already exists");
    assert!(inside(&a).1.is_some(), "the refused ADD left the first one's link");
    let down = with(&config, "disableContainerInterface", json!(true));
    host.call("bridge", "ADD", &b, &down).ok();
    assert!(!inside(&b).1.expect("eth0").up);
    for pod in [&a, &b] {
        host.call("bridge", "DEL", pod, &config).ok();
    }
    assert_eq!(host.traces(), [] as [&str; 0]);
}

#[test]
fn frames_with_a_forged_mac_do_not_pass_macspoofchk() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let config = host.network("1.0.0", json!({"macspoofchk": true}));
    host.call("bridge", "ADD", &a, &config).ok();
    host.call("bridge", "ADD", &b, &config).ok();
    a.serve(80);
    assert!(b.run(|| ask("10.22.0.2:80")).is_ok());
    let (mut socket, eth0) = inside(&b);
    let mac = Some("02:00:00:00:00:07".parse().expect("a MAC"));
    let change = corten_netlink::route::LinkChange { mac, ..Default::default() };
    socket
        .transact(vec![corten_netlink::route::encode::set_link(eth0.expect("eth0").index, &change)])
        .expect("forged");
    assert!(b.run(|| ask("10.22.0.2:80")).is_err(), "dropped");
    for pod in [&a, &b] {
        host.call("bridge", "DEL", pod, &config).ok();
        host.call("bridge", "DEL", pod, &config).ok();
    }
    let mut nft = Socket::open(Protocol::Netfilter).expect("a socket");
    let chains = nft.nft_chains(Table { family: Family::Bridge, name: "nat" }).expect("listed");
    assert_eq!(chains, ["PREROUTING"]);
    assert_eq!(host.traces(), [] as [&str; 0]);
}

#[test]
fn refused_keys_change_nothing() {
    let host = Host::new();
    let pod = host.pod("pod-1");
    for (extra, code, wanted) in [
        (json!({"vlan": 7}), 2, "\"vlan\""),
        (json!({"ipMasqBackend": "iptables"}), 2, "ipMasqBackend"),
        (json!({"hairpinMode": true, "promiscMode": true}), 7, "hairpinMode"),
        (json!({"ipam": {"type": "nothing"}}), 4, "failed to find plugin \"nothing\""),
        (json!({"ipam": {"subnet": "x"}}), 7, "invalid range set"),
        (json!({"isGateway": 1}), 6, "\"isGateway\""),
        (json!({"bridge": "lo"}), 7, "not a bridge"),
    ] {
        let config = host.network("1.0.0", extra);
        host.call("bridge", "ADD", &pod, &config).error(code, wanted);
        assert_eq!(host.traces(), [] as [&str; 0], "{wanted}");
        assert_eq!(inside(&pod).1, None);
        if wanted != "failed to find plugin \"nothing\"" {
            host.call("bridge", "DEL", &pod, &config).ok();
        }
    }
    let own = [("CNI_NETNS", "/proc/self/ns/net")];
    let config = host.network("1.0.0", json!({}));
    host.call_of(Maker::Corten, "bridge", "DEL", &pod, &config, &own).error(8, "should not be the same");
}

#[test]
fn gc_and_status_reach_ipam_and_rules() {
    let host = Host::new();
    let (keep, drop_) = (host.pod("keep"), host.pod("drop"));
    let config = host.network("1.1.0", json!({"isGateway": true, "ipMasq": true}));
    host.call("bridge", "STATUS", &keep, &config).ok();
    for pod in [&keep, &drop_] {
        host.call("bridge", "ADD", pod, &config).ok();
    }
    let other = host.network("1.1.0", json!({"name": "other", "ipMasq": true}));
    host.call("bridge", "ADD", &host.pod("alien"), &other).ok();
    let valid = json!([{"containerID": "keep", "ifname": "eth0"}]);
    host.call("bridge", "GC", &keep, &with(&config, "cni.dev/valid-attachments", valid)).ok();
    let traces = host.traces().join(" ");
    assert!(
        traces.contains("10.22.0.2") && traces.contains("id: keep") && traces.contains("id: alien"),
        "{traces}"
    );
    assert!(!traces.contains("10.22.0.3") && !traces.contains("id: drop"), "{traces}");
    let broken = host.network("1.1.0", json!({"ipam": {"dataDir": "/proc/nothing"}}));
    host.call("bridge", "STATUS", &keep, &broken).error(50, "/proc/nothing");
}

#[test]
fn a_foreign_ipam_plugin_is_run_from_the_path() {
    if !Maker::Debian.is_here() {
        return;
    }
    let host = Host::new();
    let pod = host.pod("pod-1");
    let statics =
        json!({"type": "static", "addresses": [{"address": "10.44.0.5/24", "gateway": "10.44.0.1"}]});
    let config = with(&host.network("0.4.0", json!({"isGateway": true})), "ipam", statics);
    let result = host.call("bridge", "ADD", &pod, &config).ok();
    assert_eq!(first_address(&result), "10.44.0.5");
    host.call("bridge", "CHECK", &pod, &with(&config, "prevResult", result)).ok();
    host.call("bridge", "DEL", &pod, &config).ok();
    let exec = [("CORTEN_CNI_EXEC_IPAM", "1")];
    let config = host.network("1.0.0", json!({}));
    host.call_of(Maker::Corten, "bridge", "ADD", &pod, &config, &exec).ok();
    host.call_of(Maker::Corten, "bridge", "DEL", &pod, &config, &exec).ok();
    assert_eq!(host.traces(), [] as [&str; 0]);
}
