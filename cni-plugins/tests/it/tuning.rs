use std::collections::BTreeMap;
use std::fs;

use corten_netlink::route::{Link, LinkChange, encode};
use corten_netlink::{Protocol, Socket};
use serde_json::{Value, json};

use crate::world::{Host, Maker, Pod, with};

const MAC: &str = "02:11:22:33:44:55";

/// A pod with eth0 on a bridge, and what bridge said of it.
fn attached(host: &Host, id: &str, version: &str) -> (Pod, Value) {
    let pod = host.pod(id);
    let result = host.call("bridge", "ADD", &pod, &host.network(version, json!({"isGateway": true}))).ok();
    (pod, result)
}

fn config(host: &Host, version: &str, result: &Value, extra: Value) -> Value {
    let mut config = json!({
        "cniVersion": version, "name": "net", "type": "tuning", "dataDir": host.backups(), "prevResult": result,
    });
    crate::world::merge(&mut config, extra);
    config
}

fn eth0(pod: &Pod) -> Link {
    pod.run(|| {
        Socket::open(Protocol::Route).expect("a socket").link("eth0").expect("looked up").expect("eth0")
    })
}

fn mac_of(pod: &Pod) -> String {
    eth0(pod).mac.expect("a MAC").to_string()
}

fn sysctl(pod: &Pod, key: &str) -> String {
    pod.run(|| fs::read_to_string(format!("/proc/sys/net/{key}")).expect("a sysctl").trim().to_owned())
}

#[test]
fn attributes_and_sysctls_are_set_checked_and_restored_in_every_version() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let host = Host::new();
        let (pod, result) = attached(&host, "pod-1", version);
        let before = eth0(&pod);
        let extra = json!({
            "mac": MAC, "promisc": true, "mtu": 1280, "allmulti": true, "txQLen": 77,
            "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500", "net.ipv4.ip_local_port_range": "2000 3000"},
        });
        let config = config(&host, version, &result, extra);
        let tuned = host.call("tuning", "ADD", &pod, &config).ok();
        assert_eq!(tuned["interfaces"][2]["mac"], MAC);
        assert_eq!(tuned["interfaces"][1], result["interfaces"][1], "the host's end is as it was");
        assert_eq!((&tuned["ips"], &tuned["cniVersion"]), (&result["ips"], &json!(version)));
        let link = eth0(&pod);
        assert_eq!((mac_of(&pod).as_str(), link.mtu, link.tx_queue_len), (MAC, 1280, 77));
        assert!(link.promiscuity > 0 && link.all_multicast);
        assert_eq!(sysctl(&pod, "ipv4/conf/eth0/arp_filter"), "1");
        assert_eq!(sysctl(&pod, "core/somaxconn"), "500");
        assert_ne!(fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the host's").trim(), "500");
        let checked = with(&config, "prevResult", tuned);
        if version >= "0.4" {
            host.call("tuning", "CHECK", &pod, &checked).ok();
        }
        for _ in 0..2 {
            host.call("tuning", "DEL", &pod, &checked).ok();
            assert_eq!(eth0(&pod), before, "restored");
        }
        if version >= "0.4" {
            host.call("tuning", "CHECK", &pod, &checked).error(999, "mac of \"eth0\"");
        }
        host.call("bridge", "DEL", &pod, &host.network(version, json!({}))).ok();
        assert_eq!(host.traces(), [] as [&str; 0]);
    }
}

#[test]
fn check_names_what_differs() {
    let host = Host::new();
    let (pod, result) = attached(&host, "pod-1", "1.0.0");
    let extra = json!({"promisc": true, "mtu": 1280, "allmulti": true, "txQLen": 77, "sysctl": {"net.core.somaxconn": "500"}});
    let config = config(&host, "1.0.0", &result, extra);
    host.call("tuning", "ADD", &pod, &config).ok();
    host.call("tuning", "CHECK", &pod, &config).ok();
    let change = |change: LinkChange| {
        let index = eth0(&pod).index;
        pod.run(|| {
            Socket::open(Protocol::Route)
                .expect("a socket")
                .transact(vec![encode::set_link(index, &change)])
                .expect("changed");
        });
    };
    let none = LinkChange::default;
    change(LinkChange { tx_queue_len: Some(5), ..none() });
    host.call("tuning", "CHECK", &pod, &config).error(999, "txQLen of \"eth0\" is configured as 77, it is 5");
    change(LinkChange { all_multicast: Some(false), ..none() });
    host.call("tuning", "CHECK", &pod, &config).error(999, "allmulti");
    change(LinkChange { mtu: Some(1300), ..none() });
    host.call("tuning", "CHECK", &pod, &config)
        .error(999, "mtu of \"eth0\" is configured as 1280, it is 1300");
    change(LinkChange { promiscuous: Some(false), ..none() });
    host.call("tuning", "CHECK", &pod, &config).error(999, "promisc");
    pod.run(|| fs::write("/proc/sys/net/core/somaxconn", "501").expect("written"));
    host.call("tuning", "CHECK", &pod, &config)
        .error(999, "net/core/somaxconn is configured as \"500\", it is \"501\"");
}

#[test]
fn the_runtimes_mac_reaches_the_interface_and_the_result() {
    let host = Host::new();
    for (id, extra, environment) in [
        ("a", json!({"runtimeConfig": {"mac": MAC}}), ""),
        ("b", json!({"args": {"cni": {"mac": MAC}}, "mac": "02:00:00:00:00:01"}), ""),
        ("c", json!({}), "IgnoreUnknown=1;MAC=02:11:22:33:44:55"),
    ] {
        let (pod, result) = attached(&host, id, "1.0.0");
        let config = config(&host, "1.0.0", &result, extra);
        let arguments = [("CNI_ARGS", environment)];
        let tuned = host.call_of(Maker::Corten, "tuning", "ADD", &pod, &config, &arguments).ok();
        assert_eq!((tuned["interfaces"][2]["mac"].as_str(), mac_of(&pod).as_str()), (Some(MAC), MAC), "{id}");
    }
}

#[test]
fn keys_outside_the_containers_network_are_refused_before_anything_changes() {
    let host = Host::new();
    let (pod, result) = attached(&host, "pod-1", "1.0.0");
    let before = eth0(&pod);
    let somaxconn = sysctl(&pod, "core/somaxconn");
    for (extra, code, wanted) in [
        (json!({"sysctl": {"kernel.core_pattern": "|/bin/sh"}}), 7, "kernel.core_pattern"),
        (json!({"sysctl": {"net/../kernel/core_pattern": "|/bin/sh"}}), 7, "net/../kernel"),
        (
            json!({"sysctl": {"net.core.somaxconn": "1", "net/core/somaxconn": "2"}}),
            7,
            "duplicated sysctl keys",
        ),
        (json!({"mac": "x"}), 7, "\"x\""),
    ] {
        let config = config(&host, "1.0.0", &result, extra);
        host.call("tuning", "ADD", &pod, &config).error(code, wanted);
    }
    let text = config(&host, "1.0.0", &result, json!({"sysctl": {"net.core.somaxconn": "1"}})).to_string();
    let twice =
        text.replace(r#""net.core.somaxconn":"1""#, r#""net.core.somaxconn":"1","net.core.somaxconn":"2""#);
    host.call_text(Maker::Corten, "tuning", "ADD", &pod, &twice, &[]).error(7, "duplicated sysctl keys");
    let mut alone = config(&host, "1.0.0", &result, json!({"mtu": 1280}));
    alone.as_object_mut().expect("an object").remove("prevResult");
    host.call("tuning", "ADD", &pod, &alone).error(7, "prevResult");
    assert_eq!((eth0(&pod), sysctl(&pod, "core/somaxconn")), (before, somaxconn));
    assert!(fs::read_dir(host.backups()).is_err(), "nothing was recorded");
}

#[test]
fn the_administrators_list_limits_sysctls() {
    let host = Host::new();
    let (pod, result) = attached(&host, "pod-1", "1.1.0");
    let list = host.dir.path().join("allowlist.conf");
    fs::write(&list, "^net\\.core\\.somaxconn$\n").expect("written");
    let variable = [("CORTEN_CNI_ALLOWLIST", list.to_str().expect("text"))];
    let call = |verb: &str, key: &str| {
        let config = config(&host, "1.1.0", &result, json!({"sysctl": {key: "300"}}));
        host.call_of(Maker::Corten, "tuning", verb, &pod, &config, &variable)
    };
    call("STATUS", "net.core.somaxconn").ok();
    call("ADD", "net.core.somaxconn").ok();
    call("ADD", "net.core.xfrm_larval_drop").error(7, "Sysctl net.core.xfrm_larval_drop is not allowed");
    call("STATUS", "net.core.xfrm_larval_drop").error(7, "is not allowed");
    fs::write(&list, "(").expect("written");
    call("ADD", "net.core.somaxconn").error(7, "not a regular expression");
}

#[test]
fn a_refused_attribute_undoes_the_others() {
    let host = Host::new();
    let (pod, result) = attached(&host, "pod-1", "1.0.0");
    let (before, somaxconn) = (eth0(&pod), sysctl(&pod, "core/somaxconn"));
    for extra in [
        json!({"mac": MAC, "mtu": 9_999_999, "txQLen": 7, "sysctl": {"net.core.somaxconn": "300"}}),
        json!({"mac": "01:00:5e:00:00:01", "mtu": 1280, "sysctl": {"net.core.somaxconn": "300"}}),
        json!({"mtu": 1280, "sysctl": {"net.core.somaxconn": "300", "net.core.nothing": "1"}}),
    ] {
        let outcome = host.call("tuning", "ADD", &pod, &config(&host, "1.0.0", &result, extra.clone()));
        assert!(outcome.value["code"].is_number(), "{extra}");
        assert_eq!(
            (eth0(&pod), sysctl(&pod, "core/somaxconn")),
            (before.clone(), somaxconn.clone()),
            "{extra}"
        );
        assert_eq!(fs::read_dir(host.backups()).map_or(0, Iterator::count), 0, "{extra}");
    }
}

#[test]
fn del_without_a_namespace_and_gc_remove_backups() {
    let host = Host::new();
    let names = || -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(host.backups())
            .expect("listed")
            .map(|e| e.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    };
    let mut configs = BTreeMap::new();
    for id in ["gone", "keep", "lost"] {
        let (pod, result) = attached(&host, id, "1.1.0");
        let config = config(&host, "1.1.0", &result, json!({"mtu": 1280}));
        host.call("tuning", "ADD", &pod, &config).ok();
        configs.insert(id, config);
    }
    let (alien, result) = attached(&host, "alien", "1.1.0");
    let other = config(&host, "1.1.0", &result, json!({"mtu": 1280, "name": "other"}));
    host.call("tuning", "ADD", &alien, &other).ok();
    fs::write(host.backups().join("go_eth0.json"), r#"{"mtu": 1500}"#).expect("a file of the Go plugin");
    let stand_in = host.pod("gone");
    host.call_of(Maker::Corten, "tuning", "DEL", &stand_in, &configs["gone"], &[("CNI_NETNS", "")]).ok();
    assert_eq!(names(), ["alien_eth0.json", "go_eth0.json", "keep_eth0.json", "lost_eth0.json"]);
    let valid = json!([{"containerID": "keep", "ifname": "eth0"}]);
    host.call("tuning", "GC", &stand_in, &with(&configs["keep"], "cni.dev/valid-attachments", valid)).ok();
    assert_eq!(names(), ["alien_eth0.json", "go_eth0.json", "keep_eth0.json"]);
    host.call("tuning", "STATUS", &stand_in, &configs["keep"]).ok();
    let impossible = with(&configs["keep"], "dataDir", json!("/proc/nothing"));
    host.call("tuning", "STATUS", &stand_in, &impossible).error(50, "/proc/nothing");
}

/// The same to Debian's plugin: same result, same kernel state, and each undoes the other's work. Version 1.1.1 does
/// not know txQLen yet.
#[test]
fn results_and_kernel_state_are_the_go_plugins() {
    if !Maker::Debian.is_here() {
        return;
    }
    for extra in [
        json!({}),
        json!({"mac": MAC, "mtu": 1280, "promisc": true, "allmulti": true}),
        json!({"args": {"cni": {"mac": MAC, "mtu": 1300, "allmulti": false}}, "mtu": 1280, "sysctl": {}}),
        json!({"runtimeConfig": {"mac": MAC}, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500"}}),
    ] {
        for (adder, deleter) in [(Maker::Corten, Maker::Debian), (Maker::Debian, Maker::Corten)] {
            let observe = |adder: Maker| {
                let host = Host::new();
                let pod = host.pod("pod-1");
                let network = host.network("1.0.0", json!({"args": {"cni": {"mac": "0a:58:00:00:00:01"}}}));
                let result = host.call("bridge", "ADD", &pod, &network).ok();
                let config = config(&host, "1.0.0", &result, extra.clone());
                let before = eth0(&pod);
                let mut tuned = host.call_of(adder, "tuning", "ADD", &pod, &config, &[]).ok();
                tuned["interfaces"][0]["mac"] = Value::Null;
                tuned["interfaces"][1] = Value::Null;
                tuned["interfaces"][2]["sandbox"] = Value::Null;
                tuned.as_object_mut().expect("an object").retain(|key, v| key != "dns" || *v != json!({}));
                let link = eth0(&pod);
                let backup = fs::read_to_string(host.backups().join("pod-1_eth0.json")).ok();
                let backup = backup.map(|text| {
                    let mut backup: Value = serde_json::from_str(&text).expect("json");
                    backup.as_object_mut().expect("an object").remove("network");
                    backup
                });
                let sysctls = ["ipv4/conf/eth0/arp_filter", "core/somaxconn"].map(|key| sysctl(&pod, key));
                let state = (link.mac, link.mtu, link.promiscuity, link.all_multicast, link.tx_queue_len);
                host.call_of(deleter, "tuning", "DEL", &pod, &config, &[]).ok();
                assert_eq!(eth0(&pod), before, "{deleter:?} restores what {adder:?} changed");
                assert_eq!(fs::read_dir(host.backups()).map_or(0, Iterator::count), 0);
                (tuned, state, backup, sysctls)
            };
            assert_eq!(observe(adder), observe(Maker::Debian), "{extra}");
        }
    }
}
