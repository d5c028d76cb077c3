use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Host, Maker, Outcome, Pod, first_address, with};

fn config(host: &Host, ipam: Value) -> Value {
    let mut ipam = ipam;
    ipam["type"] = "host-local".into();
    ipam["dataDir"] = host.data().to_str().expect("text").into();
    json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam})
}

fn call(host: &Host, verb: &str, id: &str, config: &Value, environment: &[(&str, &str)]) -> Outcome {
    let pod = host.pod(id);
    host.call_of(Maker::Corten, "host-local", verb, &pod, config, environment)
}

#[test]
fn addresses_routes_and_dns_are_given_and_kept_in_upstreams_files() {
    let host = Host::new();
    let resolv = host.dir.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 10.0.0.53\nsearch a b\n").expect("written");
    let config = config(
        &host,
        json!({
            "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10"}], [{"subnet": "fd01::/64", "gateway": "fd01::9"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.7", "mtu": 1400}],
            "resolvConf": resolv
        }),
    );
    let result = call(&host, "ADD", "pod-1", &config, &[]).ok();
    let wanted = json!({
        "cniVersion": "1.1.0",
        "ips": [
            {"address": "10.1.0.10/24", "gateway": "10.1.0.1"},
            {"address": "fd01::1/64", "gateway": "fd01::9"}
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.7", "mtu": 1400}],
        "dns": {"nameservers": ["10.0.0.53"], "search": ["a", "b"]}
    });
    assert_eq!(result, wanted);
    let files: Vec<(String, String)> = host.files().into_iter().collect();
    let wanted = [
        ("10.1.0.10", "pod-1\r\neth0"),
        ("fd01::1", "pod-1\r\neth0"),
        ("last_reserved_ip.0", "10.1.0.10"),
        ("last_reserved_ip.1", "fd01::1"),
        ("lock", ""),
    ];
    assert_eq!(files, wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
    call(&host, "CHECK", "pod-1", &config, &[]).ok();
    call(&host, "CHECK", "pod-2", &config, &[]).error(999, "pod-2");
    call(&host, "STATUS", "pod-1", &config, &[]).ok();
    call(&host, "DEL", "pod-1", &config, &[]).ok();
    call(&host, "DEL", "pod-1", &config, &[]).ok();
    assert_eq!(
        host.files().into_keys().collect::<Vec<_>>(),
        ["last_reserved_ip.0", "last_reserved_ip.1", "lock"]
    );
}

#[test]
fn a_duplicate_add_is_refused_and_keeps_the_first_address() {
    let host = Host::new();
    let config = config(&host, json!({"subnet": "10.1.0.0/24"}));
    call(&host, "ADD", "pod-1", &config, &[]).ok();
    call(&host, "ADD", "pod-1", &config, &[]).error(999, "10.1.0.2 has been allocated to pod-1, duplicate");
    call(&host, "CHECK", "pod-1", &config, &[]).ok();
}

#[test]
fn an_exhausted_range_says_so_and_round_robin_comes_back() {
    let host = Host::new();
    let config = config(&host, json!({"subnet": "10.1.0.0/29"}));
    let ids: Vec<String> = (0..5).map(|i| format!("pod-{i}")).collect();
    let addresses: Vec<String> =
        ids.iter().map(|id| first_address(&call(&host, "ADD", id, &config, &[]).ok())).collect();
    assert_eq!(addresses, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
    call(&host, "ADD", "late", &config, &[])
        .error(11, "no IP addresses available in range set: 10.1.0.1-10.1.0.6");
    call(&host, "DEL", "pod-1", &config, &[]).ok();
    assert_eq!(first_address(&call(&host, "ADD", "late", &config, &[]).ok()), "10.1.0.3");
}

#[test]
fn requested_addresses_come_from_arguments_config_and_runtime() {
    let host = Host::new();
    let base = config(&host, json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]}));
    let by_environment = call(&host, "ADD", "a", &base, &[("CNI_ARGS", "IP=10.1.0.50")]).ok();
    assert_eq!(first_address(&by_environment), "10.1.0.50");
    let args = with(&base, "args", json!({"cni": {"ips": ["10.1.0.60/24", "fd01::60"]}}));
    let by_args = call(&host, "ADD", "b", &args, &[]).ok();
    assert_eq!(by_args["ips"][1]["address"], "fd01::60/64");
    let runtime = with(&base, "runtimeConfig", json!({"ips": ["10.1.0.70"]}));
    assert_eq!(first_address(&call(&host, "ADD", "c", &runtime, &[]).ok()), "10.1.0.70");
    call(&host, "ADD", "d", &runtime, &[]).error(11, "10.1.0.70 is not available");
    call(&host, "ADD", "d", &base, &[("CNI_ARGS", "IP=10.1.0.1")]).error(7, "subnet's gateway");
    call(&host, "ADD", "d", &base, &[("CNI_ARGS", "IP=10.9.0.1")])
        .error(7, "failed to allocate all requested IPs");
    call(&host, "ADD", "d", &base, &[("CNI_ARGS", "IP=x")]).error(7, "\"x\" is not an address");
    call(&host, "CHECK", "d", &base, &[]).error(999, "failed to find");
    let ranges = with(&base, "runtimeConfig", json!({"ipRanges": [[{"subnet": "10.7.0.0/24"}]]}));
    assert_eq!(first_address(&call(&host, "ADD", "e", &ranges, &[]).ok()), "10.7.0.2");
}

#[test]
fn bad_configurations_are_refused_with_code_and_name() {
    let host = Host::new();
    for (ipam, code, wanted) in [
        (json!({}), 7, "no IP ranges specified"),
        (json!({"subnet": "10.1.0.0/31"}), 7, "too small"),
        (json!({"subnet": "10.1.0.5/24"}), 7, "host bits"),
        (json!({"subnet": "x"}), 7, "\"x\""),
        (json!({"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.1"}), 7, "rangeEnd 10.2.0.1"),
        (json!({"ranges": [[]]}), 7, "empty range set"),
        (json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/16"}]]}), 7, "overlaps with 1"),
        (json!({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd01::/64"}]]}), 7, "mixed"),
        (json!({"ranges": 1}), 6, "\"ipam\""),
        (json!({"subnet": "10.1.0.0/24", "routes": [{"dst": "x"}]}), 6, "\"x\""),
        (json!({"subnet": "10.1.0.0/24", "resolvConf": "/nonexistent"}), 5, "/nonexistent: ENOENT"),
    ] {
        let config = config(&host, ipam);
        call(&host, "ADD", "pod-1", &config, &[]).error(code, wanted);
        call(&host, "DEL", "pod-1", &config, &[]).ok();
    }
    let none = json!({"cniVersion": "1.0.0", "name": "net"});
    call(&host, "ADD", "pod-1", &none, &[]).error(7, "'ipam'");
    let mut two =
        config(&host, json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}));
    two["cniVersion"] = "0.2.0".into();
    call(&host, "ADD", "pod-1", &two, &[]).error(7, "more than 1 address per family");
}

#[test]
fn gc_removes_what_is_not_valid_and_nothing_else() {
    let host = Host::new();
    let config = config(&host, json!({"subnet": "10.1.0.0/24"}));
    for id in ["keep", "drop", "old"] {
        call(&host, "ADD", id, &config, &[]).ok();
    }
    std::fs::write(host.data().join("net/10.1.0.4"), "old").expect("the old form");
    let valid = json!([{"containerID": "keep", "ifname": "eth0"}, {"containerID": "old", "ifname": "eth0"}]);
    let gc = with(&config, "cni.dev/valid-attachments", valid);
    call(&host, "GC", "x", &gc, &[]).ok();
    let files: Vec<String> = host.files().into_keys().collect();
    assert_eq!(files, ["10.1.0.2", "10.1.0.4", "last_reserved_ip.0", "lock"]);
}

#[test]
fn sixty_four_parallel_adds_give_sixty_four_addresses() {
    let host = Host::new();
    let config = config(&host, json!({"subnet": "10.1.0.0/24"}));
    let pods: Vec<Pod> = (0..64).map(|i| host.pod(&format!("pod-{i}"))).collect();
    let children: Vec<_> =
        pods.iter().map(|pod| host.spawn(Maker::Corten, "host-local", "ADD", pod, &config, &[])).collect();
    let mut addresses: Vec<String> =
        children.into_iter().map(|c| first_address(&Outcome::of(c).ok())).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 64);
}

#[test]
fn an_address_whose_link_was_left_to_the_kernel_is_given_again_last_and_only_when_the_link_is_gone() {
    let host = Host::new();
    let config =
        config(&host, json!({"subnet": "10.1.0.0/29", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.4"}));
    let doomed = [("CORTEN_NETNS_DOOMED", "1")];
    for id in ["a", "b", "c"] {
        call(&host, "ADD", id, &config, &[]).ok();
    }
    let result = json!({"interfaces": [{"name": "cni0"}, {"name": "lo"}, {"name": "eth0", "sandbox": "/x"}]});
    let with_link = with(&config, "prevResult", result);
    call(&host, "DEL", "a", &with_link, &doomed).ok();
    call(&host, "DEL", "c", &config, &[]).ok();
    // Round robin stands at .4: .2 would be next, but .4, released with its link gone, is preferred.
    assert_eq!(first_address(&call(&host, "ADD", "d", &config, &[]).ok()), "10.1.0.4");
    let start = Instant::now();
    call(&host, "ADD", "e", &config, &[]).error(11, "lo, which had it, is still there");
    assert!(start.elapsed() >= Duration::from_secs(2), "it waited");
    call(
        &host,
        "DEL",
        "d",
        &with(&config, "prevResult", json!({"interfaces": [{"name": "gone0"}]})),
        &doomed,
    )
    .ok();
    let released = std::fs::read_to_string(host.data().join("net/released")).expect("a file");
    let swapped = released.replace(" lo\n", " gone1\n");
    std::fs::write(host.data().join("net/released"), swapped).expect("the link is gone now");
    assert_eq!(
        first_address(&call(&host, "ADD", "e", &config, &[]).ok()),
        "10.1.0.2",
        "the oldest release first"
    );
}
