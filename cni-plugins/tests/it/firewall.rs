use std::process::Command;

use corten_netlink::nft::{BaseChain, Batch, Chain, Family, Hook, Table};
use corten_netlink::{Protocol, Socket};
use serde_json::{Value, json};

use crate::world::{Host, Maker, Pod, ask, merge, with};

fn firewall(version: &str, result: &Value, extra: Value) -> Value {
    let mut config = json!({"cniVersion": version, "name": "net", "type": "firewall", "prevResult": result});
    merge(&mut config, extra);
    config
}

/// A pod of both families on a bridge, and what bridge said of it.
fn attached(host: &Host, id: &str, version: &str, extra: Value) -> (Pod, Value) {
    let pod = host.pod(id);
    let mut network = host.network(version, json!({"isDefaultGateway": true, "ipMasq": true}));
    network["ipam"].as_object_mut().expect("an object").remove("subnet");
    network["ipam"]["ranges"] = json!([[{"subnet": "10.22.0.0/24"}], [{"subnet": "fd22::/64"}]]);
    merge(&mut network, extra);
    let result = host.call("bridge", "ADD", &pod, &network).ok();
    (pod, result)
}

/// Docker does this to a host. False prints why the test skips.
fn forward_drops() -> bool {
    for program in ["iptables", "ip6tables"] {
        match Command::new(program).args(["-P", "FORWARD", "DROP"]).status() {
            Ok(status) if status.success() => {}
            _ => {
                println!("SKIP: {program} (nf_tables) does not work here (apt-get install iptables)");
                return false;
            }
        }
    }
    true
}

fn listed(program: &str) -> Vec<String> {
    let output = Command::new(program).arg("-S").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

fn of_pods() -> Vec<String> {
    let all = [listed("iptables"), listed("ip6tables")].concat();
    all.into_iter().filter(|line| line.contains("10.22.0.") || line.contains("fd22::")).collect()
}

#[test]
fn a_pod_passes_a_host_that_drops_what_it_forwards_in_every_version() {
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let host = Host::new();
        if !forward_drops() {
            return;
        }
        let neighbour = host.neighbour();
        neighbour.serve(80);
        let (pod, result) = attached(&host, "pod-1", version, json!({}));
        assert!(pod.run(|| ask("192.0.2.2:80")).is_err(), "dropped");
        let config = firewall(version, &result, json!({"backend": ""}));
        assert_eq!(host.call("firewall", "ADD", &pod, &config).ok(), result, "passed on");
        assert_eq!(pod.run(|| ask("192.0.2.2:80")).expect("answered"), "192.0.2.1");
        assert_eq!(of_pods().len(), 4, "{:?}", of_pods());
        if version >= "0.4" {
            host.call("firewall", "CHECK", &pod, &config).ok();
        }
        host.call("firewall", "ADD", &pod, &config).ok();
        assert_eq!(of_pods().len(), 4, "a second ADD replaces");
        for environment in [&[][..], &[("CNI_NETNS", "")]] {
            let mut alone = config.clone();
            alone.as_object_mut().expect("an object").remove("prevResult");
            host.call_of(Maker::Corten, "firewall", "DEL", &pod, &alone, environment).ok();
            assert_eq!(of_pods(), [] as [&str; 0], "without namespace and prevResult too");
        }
        if version >= "0.4" {
            host.call("firewall", "CHECK", &pod, &config).error(999, "rule for 10.22.0.2 in CNI-FORWARD");
        }
        assert!(pod.run(|| ask("192.0.2.2:80")).is_err(), "dropped again");
    }
}

/// The same rules as the Go plugin, as iptables(8) lists them, and each finds and deletes the other's.
#[test]
fn iptables_shows_what_the_go_plugin_writes() {
    if !Maker::Debian.is_here() {
        return;
    }
    for extra in [json!({}), json!({"iptablesAdminChainName": "MY-ADMIN"})] {
        for (adder, deleter) in [(Maker::Corten, Maker::Debian), (Maker::Debian, Maker::Corten)] {
            let observe = |adder: Maker| {
                let host = Host::new();
                if !forward_drops() {
                    return None;
                }
                let (pod, result) = attached(&host, "pod-1", "1.0.0", json!({}));
                let config = firewall("1.0.0", &result, extra.clone());
                let passed_on = host.call_of(adder, "firewall", "ADD", &pod, &config, &[]).ok();
                assert_eq!(passed_on["ips"], result["ips"]);
                let rules = [listed("iptables"), listed("ip6tables")];
                if deleter == Maker::Debian {
                    host.call_of(deleter, "firewall", "CHECK", &pod, &config, &[]).ok();
                }
                host.call_of(deleter, "firewall", "DEL", &pod, &config, &[]).ok();
                assert_eq!(of_pods(), [] as [&str; 0], "{deleter:?} deletes what {adder:?} added");
                Some(rules)
            };
            let (Some(ours), Some(theirs)) = (observe(adder), observe(Maker::Debian)) else { return };
            for (ours, theirs) in ours.into_iter().zip(theirs) {
                let sorted = |mut lines: Vec<String>| {
                    lines.sort();
                    lines
                };
                assert_eq!(sorted(ours), sorted(theirs));
            }
        }
    }
}

#[test]
fn without_iptables_on_the_host_nothing_is_left_per_pod() {
    let host = Host::new();
    let (pod, result) = attached(&host, "pod-1", "1.1.0", json!({}));
    let config = firewall("1.1.0", &result, json!({}));
    host.call("firewall", "STATUS", &pod, &config).ok();
    host.call("firewall", "ADD", &pod, &config).ok();
    host.call("firewall", "CHECK", &pod, &config).ok();
    host.call("firewall", "DEL", &pod, &config).ok();
    let mut nft = Socket::open(Protocol::Netfilter).expect("a socket");
    let table = Table { family: Family::Inet, name: "cni_firewall" };
    assert_eq!(nft.nft_rules(table, "forward").expect("listed").len(), 2);
    assert!(nft.nft_chains(table).expect("listed").contains(&"CNI-ADMIN".to_owned()));
    let mut batch = Batch::new();
    batch.delete_table(table);
    batch.commit(&mut nft).expect("deleted");
    host.call("firewall", "CHECK", &pod, &config).error(999, "cni_firewall: expected jump");
}

/// Two networks on two bridges, two pods on each.
fn two_networks(host: &Host, policy: &str) -> [(Pod, Value); 4] {
    let other = json!({"name": "other", "bridge": "cni1", "ipam": {"ranges": [[{"subnet": "10.33.0.0/24"}], [{"subnet": "fd33::/64"}]]}});
    [("a", false), ("b", false), ("c", true), ("d", true)].map(|(id, second)| {
        let extra = if second { other.clone() } else { json!({}) };
        let (pod, result) = attached(host, id, "1.1.0", extra);
        let name = if second { "other" } else { "net" };
        let config = firewall("1.1.0", &result, json!({"ingressPolicy": policy, "name": name}));
        host.call("firewall", "ADD", &pod, &config).ok();
        host.call("firewall", "CHECK", &pod, &config).ok();
        pod.serve(80);
        (pod, config)
    })
}

#[test]
fn same_bridge_keeps_networks_apart_and_nothing_else() {
    let host = Host::new();
    let [(a, config), (_b, _), (c, other), (_d, _)] = two_networks(&host, "same-bridge");
    a.run(|| {
        assert!(ask("10.22.0.3:80").is_ok(), "the same bridge");
        assert!(ask("[fd22::3]:80").is_ok());
        assert!(ask("10.33.0.2:80").is_err(), "another network");
        assert!(ask("[fd33::2]:80").is_err());
    });
    assert!(c.run(|| ask("10.22.0.2:80")).is_err());
    assert!(ask("10.22.0.2:80").is_ok(), "the host");
    let neighbour = host.neighbour();
    neighbour.serve(80);
    assert!(a.run(|| ask("192.0.2.2:80")).is_ok(), "outside");
    let mapped = with(
        &config,
        "runtimeConfig",
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}),
    );
    host.call("portmap", "ADD", &a, &mapped).ok();
    assert!(neighbour.run(|| ask("192.0.2.1:8080")).is_ok(), "from outside by a mapped port");
    // The rules are the network's: they stay while there may be other pods, until GC without any.
    host.call("firewall", "DEL", &c, &other).ok();
    assert!(a.run(|| ask("10.33.0.3:80")).is_err());
    host.call("firewall", "GC", &c, &with(&other, "cni.dev/valid-attachments", json!([]))).ok();
    assert!(a.run(|| ask("10.33.0.3:80")).is_ok(), "the other network has no policy any more");
    let keep = json!([{"containerID": "a", "ifname": "eth0"}]);
    host.call("firewall", "GC", &a, &with(&config, "cni.dev/valid-attachments", keep)).ok();
    host.call("firewall", "CHECK", &a, &config).ok();
}

/// Frames inside a bridge pass no forward chain: upstream's rule alone would stop nothing here.
#[test]
fn isolated_keeps_pods_of_one_bridge_apart_too() {
    let host = Host::new();
    let [(a, config), (b, _), (_c, _), (_d, _)] = two_networks(&host, "isolated");
    a.run(|| {
        assert!(ask("10.22.0.3:80").is_err(), "the same bridge");
        assert!(ask("[fd22::3]:80").is_err());
        assert!(ask("10.33.0.2:80").is_err(), "another network");
    });
    assert!(b.run(|| ask("10.22.0.2:80")).is_err());
    assert!(ask("10.22.0.2:80").is_ok(), "the host");
    let neighbour = host.neighbour();
    neighbour.serve(80);
    assert!(a.run(|| ask("192.0.2.2:80")).is_ok(), "outside");
    let open = with(&config, "ingressPolicy", json!("open"));
    host.call("firewall", "ADD", &a, &open).ok();
    host.call("firewall", "CHECK", &a, &config).error(999, "rule of bridge cni0");
}

#[test]
fn gc_removes_rules_of_attachments_that_are_not_valid() {
    let host = Host::new();
    if !forward_drops() {
        return;
    }
    let mut configs = Vec::new();
    for (id, name) in [("keep", "net"), ("lost", "net"), ("alien", "other")] {
        let (pod, result) = attached(&host, id, "1.1.0", json!({}));
        let config = firewall("1.1.0", &result, json!({"name": name}));
        host.call("firewall", "ADD", &pod, &config).ok();
        configs.push((pod, config));
    }
    assert_eq!(of_pods().len(), 12);
    let valid = json!([{"containerID": "keep", "ifname": "eth0"}]);
    host.call("firewall", "GC", &configs[0].0, &with(&configs[0].1, "cni.dev/valid-attachments", valid)).ok();
    assert_eq!(of_pods().len(), 8);
    for index in [0, 2] {
        host.call("firewall", "CHECK", &configs[index].0, &configs[index].1).ok();
    }
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let host = Host::new();
    let (pod, result) = attached(&host, "pod-1", "1.1.0", json!({}));
    let mut alone = firewall("1.1.0", &result, json!({}));
    alone.as_object_mut().expect("an object").remove("prevResult");
    let no_bridge = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "lo"}], "ips": []});
    let same_bridge = json!({"ingressPolicy": "same-bridge"});
    for (config, code, wanted) in [
        (alone, 7, "missing prevResult"),
        (firewall("1.1.0", &result, json!({"backend": "iptables"})), 2, "leave the key out"),
        (firewall("1.1.0", &result, json!({"backend": "firewalld"})), 2, "--add-source"),
        (firewall("1.1.0", &result, json!({"ingressPolicy": "x"})), 7, "unknown ingress policy"),
        (firewall("1.1.0", &no_bridge, same_bridge), 7, "needs a bridge"),
    ] {
        host.call("firewall", "ADD", &pod, &config).error(code, wanted);
    }
    let mut nft = Socket::open(Protocol::Netfilter).expect("a socket");
    let ours = Table { family: Family::Inet, name: "cni_firewall" };
    assert_eq!(nft.nft_chains(ours).expect("listed"), [] as [&str; 0]);
    // A host where firewalld runs has its table.
    let table = Table { family: Family::Inet, name: "firewalld" };
    let base = BaseChain { hook: Hook::Forward, kind: "filter", priority: 10 };
    let mut batch = Batch::new();
    batch
        .add_table(table, None)
        .add_chain(table, &Chain { name: "filter_FORWARD", base: Some(base), comment: None });
    batch.commit(&mut nft).expect("made");
    let config = firewall("1.1.0", &result, json!({"firewalldZone": "home"}));
    host.call("firewall", "ADD", &pod, &config).error(2, "--zone=home");
    host.call("firewall", "STATUS", &pod, &config).error(50, "firewalld runs");
    assert_eq!(nft.nft_chains(ours).expect("listed"), [] as [&str; 0]);
    host.call("firewall", "DEL", &pod, &config).ok();
    host.call("firewall", "ADD", &pod, &with(&config, "backend", json!("nftables"))).ok();
}

#[test]
fn a_policy_of_legacy_iptables_is_refused_rather_than_passed_over() {
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        let host = Host::new();
        let set = Command::new(program).args(["-P", "FORWARD", "DROP"]).output();
        if !set.is_ok_and(|output| output.status.success()) {
            println!("SKIP: {program} does not work here (apt-get install iptables; CONFIG_IP_NF_IPTABLES)");
            continue;
        }
        let (pod, result) = attached(&host, "pod-1", "1.1.0", json!({}));
        let config = firewall("1.1.0", &result, json!({}));
        host.call("firewall", "ADD", &pod, &config).error(2, "iptables-nft");
        host.call("firewall", "STATUS", &pod, &config).error(50, "legacy variant");
        host.call("firewall", "DEL", &pod, &config).ok();
        host.call("firewall", "ADD", &pod, &with(&config, "backend", json!("nftables"))).ok();
        Command::new(program).args(["-P", "FORWARD", "ACCEPT"]).status().expect("it runs");
        host.call("firewall", "ADD", &pod, &config).ok();
    }
}
