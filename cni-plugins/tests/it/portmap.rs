use std::net::UdpSocket;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Host, Pod, ask, with};

/// A pod on a bridge with a server at port 80, and portmap's configuration for it.
fn pod_with(host: &Host, id: &str, mappings: &Value) -> (Pod, Value, Value) {
    let pod = host.pod(id);
    let ranges = json!({"ipam": {"subnet": "10.22.0.0/24", "ranges": [[{"subnet": "fd22::/64"}]]}});
    // hairpinMode: where br_netfilter is on, a pod's packet to its own host port is turned round inside the bridge.
    let mut network = host.network("1.1.0", json!({"isDefaultGateway": true, "hairpinMode": true}));
    crate::world::merge(&mut network, ranges);
    let result = host.call("bridge", "ADD", &pod, &network).ok();
    pod.serve(80);
    let config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "portmap", "prevResult": result,
        "runtimeConfig": {"portMappings": mappings},
    });
    (pod, network, config)
}

fn port(host_port: u16, container_port: u16) -> Value {
    json!({"hostPort": host_port, "containerPort": container_port, "protocol": "tcp"})
}

#[test]
fn a_host_port_answers_from_everywhere() {
    let host = Host::new();
    let neighbour = host.neighbour();
    let (pod, network, config) = pod_with(&host, "pod-1", &json!([port(8080, 80)]));
    let result = host.call("portmap", "ADD", &pod, &config).ok();
    assert_eq!(result, config["prevResult"], "passed on");
    host.call("portmap", "CHECK", &pod, &config).ok();
    assert_eq!(ask("127.0.0.1:8080").expect("by 127.0.0.1"), "10.22.0.1");
    ask("192.0.2.1:8080").expect("by the host's address");
    ask("10.22.0.1:8080").expect("by the bridge's address");
    ask("[fd22::1]:8080").expect("by IPv6");
    assert_eq!(
        neighbour.run(|| ask("192.0.2.1:8080")).expect("from outside"),
        "192.0.2.2",
        "with its own address"
    );
    let other = host.pod("pod-2");
    host.call("bridge", "ADD", &other, &network).ok();
    assert_eq!(other.run(|| ask("192.0.2.1:8080")).expect("from another pod"), "10.22.0.3");
    assert_eq!(pod.run(|| ask("192.0.2.1:8080")).expect("from the pod itself"), "10.22.0.1", "masqueraded");
    for _ in 0..2 {
        host.call("portmap", "DEL", &pod, &config).ok();
    }
    assert!(ask("127.0.0.1:8080").is_err(), "nothing listens any more");
    host.call("portmap", "CHECK", &pod, &config).error(999, "missing hostport rules");
    let rules: Vec<String> = host.traces().into_iter().filter(|t| t.contains("Some")).collect();
    assert_eq!(rules, [] as [&str; 0]);
}

#[test]
fn a_host_address_limits_the_mapping() {
    let host = Host::new();
    let neighbour = host.neighbour();
    let mut mapping = port(8080, 80);
    mapping["hostIP"] = "127.0.0.1".into();
    let (pod, _, config) = pod_with(&host, "pod-1", &json!([mapping]));
    host.call("portmap", "ADD", &pod, &config).ok();
    host.call("portmap", "CHECK", &pod, &config).ok();
    ask("127.0.0.1:8080").expect("that address");
    assert!(neighbour.run(|| ask("192.0.2.1:8080")).is_err(), "not this one");
    mapping["hostIP"] = "0.0.0.0".into();
    mapping["hostPort"] = 8081.into();
    let any = with(&config, "runtimeConfig", json!({"portMappings": [mapping]}));
    host.call("portmap", "ADD", &pod, &any).ok();
    neighbour.run(|| ask("192.0.2.1:8081")).expect("unspecified means any");
}

#[test]
fn conditions_keep_others_out_and_masq_all_hides_them() {
    let host = Host::new();
    let neighbour = host.neighbour();
    let (pod, _, config) = pod_with(&host, "pod-1", &json!([port(8080, 80)]));
    let limited = with(&config, "conditionsV4", json!(["ip", "saddr", "!=", "192.0.2.0/24"]));
    host.call("portmap", "ADD", &pod, &limited).ok();
    assert!(neighbour.run(|| ask("192.0.2.1:8080")).is_err());
    host.call("portmap", "DEL", &pod, &limited).ok();
    let hidden = with(&config, "masqAll", json!(true));
    host.call("portmap", "ADD", &pod, &hidden).ok();
    host.call("portmap", "CHECK", &pod, &hidden).ok();
    assert_eq!(neighbour.run(|| ask("192.0.2.1:8080")).expect("answered"), "10.22.0.1");
}

#[test]
fn without_snat_nothing_is_masqueraded() {
    let host = Host::new();
    let neighbour = host.neighbour();
    let (pod, _, config) = pod_with(&host, "pod-1", &json!([port(8080, 80)]));
    let config = with(&config, "snat", json!(false));
    host.call("portmap", "ADD", &pod, &config).ok();
    host.call("portmap", "CHECK", &pod, &config).ok();
    assert_eq!(neighbour.run(|| ask("192.0.2.1:8080")).expect("answered"), "192.0.2.2");
    assert!(!host.traces().iter().any(|t| t.starts_with("masquerading")));
    host.call("portmap", "DEL", &pod, &config).ok();
}

#[test]
fn a_udp_flow_older_than_the_mapping_reaches_the_pod() {
    let host = Host::new();
    let neighbour = host.neighbour();
    let mapping = json!({"hostPort": 5353, "containerPort": 53, "protocol": "udp"});
    let (old, network, old_config) = pod_with(&host, "old", &json!([mapping]));
    host.call("portmap", "ADD", &old, &old_config).ok();
    let client = neighbour.run(|| UdpSocket::bind("192.0.2.2:4000").expect("a client"));
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
    let server_in = |pod: &Pod| {
        let server = pod.run(|| UdpSocket::bind("0.0.0.0:53").expect("a server"));
        server.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        server
    };
    let mut buffer = [0; 8];
    let first = server_in(&old);
    client.send_to(b"1", "192.0.2.1:5353").expect("sent");
    assert_eq!(first.recv(&mut buffer).expect("arrived"), 1);
    host.call("portmap", "DEL", &old, &old_config).ok();
    host.call("bridge", "DEL", &old, &network).ok();
    let (new, _, new_config) = pod_with(&host, "new", &json!([mapping]));
    let second = server_in(&new);
    host.call("portmap", "ADD", &new, &new_config).ok();
    client.send_to(b"22", "192.0.2.1:5353").expect("sent");
    assert_eq!(second.recv(&mut buffer).expect("arrived, not lost to the old pod"), 2);
}

#[test]
fn bad_mappings_and_configurations_are_refused() {
    let host = Host::new();
    let (pod, _, config) = pod_with(&host, "pod-1", &json!([port(8080, 80)]));
    let mapped = |mapping: Value| with(&config, "runtimeConfig", json!({"portMappings": [mapping]}));
    let mut alone = config.clone();
    alone.as_object_mut().expect("an object").remove("prevResult");
    for (config, code, wanted) in [
        (alone, 7, "must be called as a chained plugin"),
        (mapped(port(0, 80)), 7, "invalid host port number: 0"),
        (mapped(json!({"hostPort": 1, "containerPort": 70000})), 7, "70000"),
        (mapped(json!({"hostPort": 1})), 6, "containerPort"),
        (with(&config, "backend", json!("iptables")), 2, "\"backend\""),
        (with(&config, "conditionsV4", json!(["-d", "1.2.3.4"])), 7, "iptables arguments"),
        (with(&config, "prevResult", json!({"ips": [{"address": "x"}]})), 6, "\"x\""),
    ] {
        host.call("portmap", "ADD", &pod, &config).error(code, wanted);
        assert!(!host.traces().iter().any(|t| t.contains("Some")), "{wanted}");
    }
    let none = with(&config, "runtimeConfig", json!({}));
    assert_eq!(host.call("portmap", "ADD", &pod, &none).ok(), config["prevResult"]);
    host.call("portmap", "DEL", &pod, &none).ok();
    host.call("portmap", "STATUS", &pod, &config).ok();
}

#[test]
fn gc_of_one_network_leaves_the_other_networks_ports() {
    let host = Host::new();
    let (a, _, config_a) = pod_with(&host, "a", &json!([port(8080, 80)]));
    let (b, _, config_b) = pod_with(&host, "b", &json!([port(8081, 80)]));
    let config_b = with(&config_b, "name", json!("other"));
    host.call("portmap", "ADD", &a, &config_a).ok();
    host.call("portmap", "ADD", &b, &config_b).ok();
    let gc = with(&config_a, "cni.dev/valid-attachments", json!([]));
    host.call("portmap", "GC", &a, &gc).ok();
    assert!(ask("127.0.0.1:8080").is_err());
    ask("127.0.0.1:8081").expect("of the other network");
    let valid = json!([{"containerID": "b", "ifname": "eth0"}]);
    host.call("portmap", "GC", &b, &with(&config_b, "cni.dev/valid-attachments", valid)).ok();
    ask("127.0.0.1:8081").expect("still valid");
}
