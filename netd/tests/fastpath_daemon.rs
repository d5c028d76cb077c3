//! The fast path of the running daemon: two nodes with corten-netd on each.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Stage;
use common::echo::{Bulk, EchoServer, PORT, tcp};
use common::nodes::{Daemon, Overlay, settle, two_nodes};
use serde_json::Value;

fn is_on(fastpath: &Value) -> bool {
    fastpath["on"] == true
}

fn has_endpoints(count: usize) -> impl Fn(&Value) -> bool {
    move |fastpath| {
        is_on(fastpath) && fastpath["endpoints"].as_array().is_some_and(|list| list.len() == count)
    }
}

fn packets(fastpath: &Value, hook: &str, reason: &str) -> u64 {
    fastpath["packets"][hook][reason].as_u64().unwrap_or_default()
}

#[test]
fn killed_under_load_no_connection_is_lost_and_a_restart_changes_nothing() {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, Overlay::Daemon);
    let (client, near, far) = (a.pod(&stage), a.pod(&stage), b.pod(&stage));
    let _servers = [EchoServer::start(&near.netns, 1), EchoServer::start(&far.netns, 2)];
    let mut daemons = [Daemon::start(&stage, &a, &[]), Daemon::start(&stage, &b, &[])];
    daemons[0].wait("two pods on node 1", has_endpoints(4));
    daemons[1].wait("one pod on node 2", has_endpoints(2));
    for ip in far.ips().into_iter().chain(near.ips()) {
        settle(&client.netns, ip);
    }
    let targets = far.ips().into_iter().chain(near.ips());
    let flows: Vec<Bulk> = targets.map(|ip| Bulk::start(&client.netns, (ip, PORT).into())).collect();
    let progress = || flows.iter().for_each(Bulk::progresses);
    progress();
    for round in 0..5 {
        for (index, node) in [&a, &b].into_iter().enumerate() {
            daemons[index].process.0.kill().expect("killed");
            daemons[index].process.0.wait().expect("ended");
            progress();
            daemons[index] = Daemon::start(&stage, node, &[]);
            if round % 2 == 0 {
                let fastpath = daemons[index].wait("it is on again", is_on);
                assert_eq!(fastpath["changes"], 0, "{fastpath:#}");
            }
            progress();
        }
    }
    let before = daemons[0].wait("on", is_on);
    progress();
    let after = daemons[0].wait("on", is_on);
    for reason in ["vxlan", "local"] {
        assert!(packets(&after, "from-pod", reason) > packets(&before, "from-pod", reason) + 10, "{after:#}");
    }
    flows.into_iter().for_each(Bulk::end);
}

#[test]
fn pods_that_come_are_fast_within_a_moment_also_when_the_address_comes_last() {
    let stage = Stage::new();
    let [mut a, _b] = two_nodes(&stage, Overlay::Daemon);
    let _first = a.pod(&stage);
    let daemon = Daemon::start(&stage, &a, &[]);
    daemon.wait("the first pod", has_endpoints(2));
    let (mut times, mut passes_us) = (Vec::new(), Vec::new());
    for count in 2..12 {
        let _pod = a.pod(&stage);
        let start = Instant::now();
        let fastpath = daemon.wait("one pod more", has_endpoints(2 * count));
        times.push(start.elapsed());
        passes_us.push(fastpath["last_pass_us"].as_u64().expect("a number"));
    }
    times.sort();
    println!("passes of {passes_us:?} us");
    // Each look is a process of its own: some ms of what is measured.
    let median = times[times.len() / 2];
    println!(
        "a pod is served {median:?} after it has its address (median), {:?} at worst",
        times[times.len() - 1]
    );
    assert!(median < Duration::from_secs(1), "{times:?}");
    let late = stage.netns("late");
    a.netns.sh(&format!(
        "ip link add late type veth peer name eth0 netns {}; ip link set late master cni0 up",
        late.path.display()
    ));
    late.sh("ip link set eth0 up");
    let why = |fastpath: &Value| fastpath["left_out"].to_string().contains("it has no address yet");
    daemon.wait("the pod without an address is told", why);
    late.sh("ip addr add 10.244.1.200/24 dev eth0");
    daemon.wait("its address is seen", has_endpoints(23));
    a.netns.sh("ip link del late");
    daemon.wait("it is gone", has_endpoints(22));
}

#[test]
fn rules_of_others_switch_it_while_a_flow_goes_on() {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, Overlay::Daemon);
    let (client, far) = (a.pod(&stage), b.pod(&stage));
    let _server = EchoServer::start(&far.netns, 2);
    let daemons = [Daemon::start(&stage, &a, &[]), Daemon::start(&stage, &b, &[])];
    for daemon in &daemons {
        daemon.wait("on", has_endpoints(2));
    }
    settle(&client.netns, far.v4);
    let flow = Bulk::start(&client.netns, (far.v4, PORT).into());
    flow.progresses();
    for _ in 0..3 {
        a.netns.sh("nft add table ip firewall
             nft 'add chain ip firewall forward { type filter hook forward priority filter; }'
             nft add rule ip firewall forward ip saddr 10.244.1.0/24 tcp dport 22 drop");
        let off = daemons[0].wait("off", |fastpath| fastpath["on"] == false);
        assert!(off["why"].to_string().contains("table ip firewall"), "{off:#}");
        flow.progresses();
        a.netns.sh("nft delete table ip firewall");
        daemons[0].wait("on", is_on);
        flow.progresses();
    }
    flow.end();
}

#[test]
fn switched_off_a_flow_survives_kube_proxys_drop_of_what_conntrack_finds_invalid() {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, Overlay::Daemon);
    let (client, far) = (a.pod(&stage), b.pod(&stage));
    let _server = EchoServer::start(&far.netns, 2);
    // As kube-proxy writes it.
    a.netns.sh("nft add table ip filter
         nft add chain ip filter KUBE-FORWARD
         nft add rule ip filter KUBE-FORWARD ct state invalid counter drop
         nft 'add chain ip filter FORWARD { type filter hook forward priority filter; }'
         nft add rule ip filter FORWARD jump KUBE-FORWARD");
    let daemons = [Daemon::start(&stage, &a, &["--fastpath", "off"]), Daemon::start(&stage, &b, &[])];
    daemons[0].wait("off", |fastpath| fastpath["on"] == false);
    settle(&client.netns, far.v4);
    // conntrack sees it begin, then nothing of it for a while.
    let flow = Bulk::start(&client.netns, (far.v4, PORT).into());
    flow.progresses();
    let [off, _far] = daemons;
    drop(off);
    let on = Daemon::start(&stage, &a, &[]);
    on.wait("on, beside kube-proxy", has_endpoints(2));
    (0..5).for_each(|_| flow.progresses());
    drop(on);
    let off = Daemon::start(&stage, &a, &["--fastpath", "off"]);
    off.wait("off", |fastpath| fastpath["on"] == false);
    flow.progresses();
    flow.end();
}

#[test]
fn drops_tells_who_lied_and_metrics_count() {
    let stage = Stage::new();
    let [mut a, _b] = two_nodes(&stage, Overlay::Daemon);
    let (liar, victim) = (a.pod(&stage), a.pod(&stage));
    let daemon = Daemon::start(&stage, &a, &["--healthz-ip", "127.0.0.1", "--healthz-port", "9191"]);
    daemon.wait("two pods", has_endpoints(4));
    let follow = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corten-netd"));
        command.arg("drops").arg("--state-dir").arg(&daemon.directory).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("corten-netd drops");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        (common::Background(child), lines.map(|line| line.expect("a line")))
    };
    let (_text, mut text) = follow(&[]);
    let (_json, mut json) = follow(&["-o", "json"]);
    assert!(text.next().expect("the header").starts_with("TIME"));
    liar.netns.sh("ip addr add 10.244.1.77/32 dev lo");
    settle(&liar.netns, victim.v4);
    let lies = liar.netns.spawn(&format!("busybox ping -I 10.244.1.77 -i 0.2 {}", victim.v4));
    let line = text.next().expect("an event");
    assert!(line.contains("spoofed-pod") && line.contains("10.244.1.77"), "{line}");
    let event: Value = serde_json::from_str(&json.next().expect("an event")).expect("JSON");
    assert_eq!(
        (event["reason"].as_str(), event["link"].as_str()),
        (Some("spoofed-pod"), Some(liar.veth.as_str()))
    );
    drop(lies);
    let metrics = a.netns.sh("busybox wget -q -O - http://127.0.0.1:9191/metrics");
    let line = "corten_netd_fastpath_packets_total{hook=\"from-pod\",way=\"kernel\",reason=\"spoofed-pod\"}";
    assert!(metrics.contains(line) && metrics.contains("corten_netd_fastpath_on 1"), "{metrics}");
}

#[test]
fn off_takes_everything_away_and_on_is_refused_where_it_cannot_be() {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, Overlay::Daemon);
    let (client, far) = (a.pod(&stage), b.pod(&stage));
    let _server = EchoServer::start(&far.netns, 2);
    let pins = |node: u8| stage.path("bpf").join(format!("node{node}")).join("tc");
    let mut daemons = [Daemon::start(&stage, &a, &[]), Daemon::start(&stage, &b, &[])];
    for daemon in &daemons {
        daemon.wait("on", has_endpoints(2));
    }
    assert!(pins(1).exists());
    drop(std::mem::replace(&mut daemons[0].process, a.netns.spawn("sleep 1")));
    let off = Daemon::start(&stage, &a, &["--fastpath", "off"]);
    off.wait("off", |fastpath| fastpath["on"] == false && fastpath["why"][0] == "fastpath = off");
    assert!(!pins(1).exists(), "programs and maps are gone");
    settle(&client.netns, far.v4);
    tcp(&client.netns, far.v4).expect("TCP goes the kernel's way");
    drop(off);
    a.bpf_dir = stage.path("not-bpffs");
    let mut refused = Daemon::start(&stage, &a, &["--fastpath", "on"]);
    common::wait_for("the daemon gives up", Duration::from_secs(10), || {
        refused.process.0.try_wait().expect("asked").filter(|status| !status.success())
    });
}
