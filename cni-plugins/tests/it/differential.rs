//! The same configuration to the Go plugins of Debian and to ours: same result, same kernel state, same files; and
//! one undoes what the other did. Debian's are of version 1.1.1: specifications up to 1.0.0, and masquerade and port
//! mappings by iptables alone, so these two are left out here.

use std::process::Command;

use serde_json::{Value, json};

use crate::world::{Host, Maker, Pod, merge};

const BOTH: [Maker; 2] = [Maker::Corten, Maker::Debian];

fn configurations(host: &Host, version: &str) -> Vec<Value> {
    let dual = json!({"ipam": {"ranges": [
        [{"subnet": "10.22.0.0/24", "rangeStart": "10.22.0.20"}, {"subnet": "10.23.0.0/24"}], [{"subnet": "fd22::/64"}]]}});
    let extras = [
        json!({}),
        json!({"isGateway": true, "mtu": 1400}),
        json!({"isDefaultGateway": true, "hairpinMode": true, "dns": {"nameservers": ["10.0.0.53"], "search": ["a"]}}),
        json!({"isGateway": true, "ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.22.0.1"}]}}),
        json!({"isDefaultGateway": true, "promiscMode": true, "args": {"cni": {"mac": "0a:58:00:00:00:01"}}}),
    ];
    let mut all: Vec<Value> = extras.into_iter().map(|extra| host.network(version, extra)).collect();
    if version >= "0.3" {
        let mut config = host.network(version, json!({"isDefaultGateway": true}));
        merge(&mut config, dual);
        config["ipam"].as_object_mut().expect("an object").remove("subnet");
        all.push(config);
    }
    all
}

fn json_of(command: &[&str]) -> Option<Value> {
    let output = Command::new(command[0]).args(&command[1..]).output().ok()?;
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("json"))
}

/// Everything two runs may differ in (random names and MACs, indexes, times) made equal.
fn normal(value: &Value, replace: &[(String, &str)]) -> Value {
    let mut text = value.to_string();
    for (from, to) in replace {
        text = text.replace(from, to);
    }
    let mut value: Value = serde_json::from_str(&text).expect("json");
    forget(&mut value);
    value
}

fn forget(value: &mut Value) {
    match value {
        Value::Object(object) => {
            // nodad, tentative: our gateway addresses are usable at once.
            for key in [
                "ifindex",
                "link_index",
                "link_netnsid",
                "valid_life_time",
                "preferred_life_time",
                "nodad",
                "tentative",
            ] {
                object.remove(key);
            }
            // The Go library prints "dns": {} before CNI 1.1.
            object.retain(|key, v| !(key == "dns" && v.as_object().is_some_and(serde_json::Map::is_empty)));
            object.values_mut().for_each(forget);
        }
        Value::Array(list) => list.iter_mut().for_each(forget),
        _ => {}
    }
}

/// Result, container's links, addresses and routes, bridge port, and files after one ADD.
fn observe(maker: Maker, index: usize, version: &str) -> Option<Value> {
    let host = Host::new();
    let pod = host.pod("pod-1");
    let config = &configurations(&host, version)[index];
    let result = host.call_of(maker, "bridge", "ADD", &pod, config, &[]).ok();
    let links = host.socket().links().expect("listed");
    let veth = links.iter().find(|l| l.name.starts_with("veth")).expect("the host's end").clone();
    let bridge = links.iter().find(|l| l.name == "cni0").expect("the bridge");
    let inner = pod.run(|| {
        let mut socket = corten_netlink::Socket::open(corten_netlink::Protocol::Route).expect("a socket");
        socket.link("eth0").expect("looked up").expect("eth0")
    });
    let mac = |mac: Option<corten_netlink::route::Mac>| mac.expect("a MAC").to_string();
    let link_local = |link: &corten_netlink::route::Link| {
        let b = link.mac.expect("a MAC").0;
        let ip = std::net::Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            u16::from_be_bytes([b[0] ^ 2, b[1]]),
            u16::from_be_bytes([b[2], 0xff]),
            u16::from_be_bytes([0xfe, b[3]]),
            u16::from_be_bytes([b[4], b[5]]),
        );
        ip.to_string()
    };
    let replace = [
        (link_local(bridge), "LL-BRIDGE"),
        (link_local(&veth), "LL-VETH"),
        (link_local(&inner), "LL-INNER"),
        (mac(bridge.mac), "MAC-BRIDGE"),
        (mac(veth.mac), "MAC-VETH"),
        (mac(inner.mac), "MAC-INNER"),
        (veth.name.clone(), "VETH"),
        (pod.path().to_str().expect("text").to_owned(), "NETNS"),
        (host.dir.path().to_str().expect("text").to_owned(), "DIR"),
    ];
    let inside = |arguments: &[&str]| pod.run(|| json_of(arguments));
    let addresses = inside(&["ip", "-j", "addr", "show", "eth0"])?;
    let routes = json!([inside(&["ip", "-j", "route"])?, inside(&["ip", "-j", "-6", "route"])?]);
    let port = json_of(&["ip", "-j", "-d", "link", "show", &veth.name])?;
    let port_data = &port[0]["linkinfo"]["info_slave_data"];
    let settings = ["hairpin", "isolated", "learning", "flood"].map(|key| port_data[key].clone());
    let bridge_addresses = json_of(&["ip", "-j", "addr", "show", "cni0"])?;
    // Link-local addresses appear when the kernel gets to it.
    let global = |list: &Value| {
        let infos = list[0]["addr_info"].as_array().expect("a list").iter();
        infos.filter(|a| a["scope"] == "global").cloned().collect::<Vec<_>>()
    };
    let observed = json!({
        "result": result, "addresses": global(&addresses), "mtu": addresses[0]["mtu"], "flags": addresses[0]["flags"],
        "routes": without_link_local(&routes), "port": settings, "bridge": global(&bridge_addresses),
        "bridge mtu": bridge_addresses[0]["mtu"], "files": host.files(),
    });
    Some(normal(&observed, &replace))
}

fn without_link_local(routes: &Value) -> Value {
    let keep = |list: &Value| {
        let routes = list.as_array().expect("a list").iter();
        routes
            .filter(|r| !r["dst"].as_str().unwrap_or_default().starts_with("fe80"))
            .cloned()
            .collect::<Vec<_>>()
    };
    json!([keep(&routes[0]), keep(&routes[1])])
}

#[test]
fn results_kernel_state_and_files_are_the_same() {
    if !Maker::Debian.is_here() {
        return;
    }
    for version in ["0.2.0", "0.3.1", "0.4.0", "1.0.0"] {
        let count = configurations(&Host::new(), version).len();
        for index in 0..count {
            let (Some(ours), Some(theirs)) =
                (observe(Maker::Corten, index, version), observe(Maker::Debian, index, version))
            else {
                return println!("SKIP: ip(8) is not installed (apt-get install iproute2)");
            };
            assert_eq!(ours, theirs, "{version}, configuration {index}");
        }
    }
}

#[test]
fn one_deletes_what_the_other_added() {
    if !Maker::Debian.is_here() {
        return;
    }
    for (adder, deleter) in [(Maker::Corten, Maker::Debian), (Maker::Debian, Maker::Corten)] {
        let host = Host::new();
        let config = host.network("1.0.0", json!({"isDefaultGateway": true}));
        let pods: Vec<Pod> = (0..3).map(|i| host.pod(&format!("pod-{i}"))).collect();
        for pod in &pods {
            let mut checked = config.clone();
            checked["prevResult"] = host.call_of(adder, "bridge", "ADD", pod, &config, &[]).ok();
            host.call_of(deleter, "bridge", "CHECK", pod, &checked, &[]).ok();
        }
        for pod in &pods {
            host.call_of(deleter, "bridge", "DEL", pod, &config, &[]).ok();
        }
        assert_eq!(host.traces(), [] as [&str; 0], "{adder:?} then {deleter:?}");
    }
}

#[test]
fn both_share_one_data_directory_in_turns() {
    if !Maker::Debian.is_here() {
        return;
    }
    let host = Host::new();
    let config = host.network("1.0.0", json!({}));
    for (index, maker) in [0, 1, 0, 1, 1, 0].into_iter().map(|i| BOTH[i]).enumerate() {
        let pod = host.pod(&format!("pod-{index}"));
        let result = host.call_of(maker, "host-local", "ADD", &pod, &config, &[]).ok();
        assert_eq!(crate::world::first_address(&result), format!("10.22.0.{}", index + 2), "{maker:?}");
    }
    for (index, maker) in [1, 1, 1, 0, 0, 0].into_iter().map(|i| BOTH[i]).enumerate() {
        host.call_of(maker, "host-local", "DEL", &host.pod(&format!("pod-{index}")), &config, &[]).ok();
    }
    assert_eq!(host.traces(), [] as [&str; 0]);
}

#[test]
fn loopback_results_are_the_same() {
    if !Maker::Debian.is_here() {
        return;
    }
    // Of 1.0.0: asked for an older version, the Go plugin prints the fields of 1.0.0.
    {
        let host = Host::new();
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "loopback"});
        let [ours, theirs] = BOTH.map(|maker| {
            let pod = host.pod("pod-1");
            let result = host.call_of(maker, "loopback", "ADD", &pod, &config, &[]).ok();
            normal(&result, &[(pod.path().to_str().expect("text").to_owned(), "NETNS")])
        });
        assert_eq!(ours, theirs);
    }
}
