//! The fast path between pods of two nodes, with real packets.

mod common;

use std::net::IpAddr;

use common::Stage;
use common::echo::{Bulk, EchoServer, PORT, tcp, udp};
use common::nodes::{Node, Overlay, Pod, settle, two_nodes};
use corten_ebpf::datapath::Reason;

/// Everything that two pods may say to each other.
fn talk(from: &Pod, to: &Pod) {
    for ip in to.ips() {
        settle(&from.netns, ip);
        tcp(&from.netns, ip).unwrap_or_else(|e| panic!("TCP to {ip}: {e}"));
        udp(&from.netns, (ip, PORT).into()).unwrap_or_else(|e| panic!("UDP to {ip}: {e}"));
    }
}

fn pods_of_two_nodes_talk(overlay: Overlay, reason: Reason) {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, overlay);
    let (client, near, far) = (a.pod(&stage), a.pod(&stage), b.pod(&stage));
    let _servers = [EchoServer::start(&near.netns, 1), EchoServer::start(&far.netns, 2)];
    talk(&client, &near);
    talk(&client, &far);
    a.pass();
    b.pass();
    assert!(a.fastpath.status().on, "{}", a.fastpath.status());
    assert_eq!(a.fastpath.status().left_out, []);
    talk(&client, &far);
    for node in [&a, &b] {
        let counters = node.counters();
        assert!(node.count("from-pod", reason) > 20, "{counters:?}");
        assert!(node.count("from-nic", reason) > 20, "{counters:?}");
    }
    talk(&client, &near);
    assert!(a.count("from-pod", Reason::Local) > 40, "{:?}", a.counters());
    a.netns.sh("ip -s link show cni0 >/dev/null");
    let fast = |node: &Node| node.count("from-pod", reason);
    let before = fast(&a);
    tcp(&client.netns, far.v4).expect("TCP");
    assert!(fast(&a) > before, "new flows are fast as well");
}

#[test]
fn pods_of_two_nodes_talk_by_vxlan() {
    pods_of_two_nodes_talk(Overlay::Vxlan, Reason::Vxlan);
}

#[test]
fn pods_of_two_nodes_talk_by_host_gw() {
    pods_of_two_nodes_talk(Overlay::HostGw, Reason::Gateway);
}

#[test]
fn a_bulk_flow_survives_on_off_and_restart() {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, Overlay::Vxlan);
    let (client, far) = (a.pod(&stage), b.pod(&stage));
    let _server = EchoServer::start(&far.netns, 2);
    far.ips().into_iter().for_each(|ip| settle(&client.netns, ip));
    let flows: Vec<Bulk> = far.ips().map(|ip: IpAddr| Bulk::start(&client.netns, (ip, PORT).into())).into();
    let progress = || flows.iter().for_each(Bulk::progresses);
    progress();
    for _ in 0..3 {
        a.pass();
        progress();
        b.pass();
        progress();
        assert!(a.count("from-pod", Reason::Vxlan) > 0 && b.count("from-nic", Reason::Vxlan) > 0);
        // The daemon is gone; programs go on.
        restart(&stage, &mut a);
        progress();
        a.pass();
        assert_eq!(a.fastpath.status().changes, 0, "a restart finds everything right");
        progress();
        for node in [&mut a, &mut b] {
            restart(&stage, node);
            let directory = common::nodes::options(&stage, node.number).directory;
            node.netns.within(|| corten_netd::fastpath::Fastpath::remove(&directory).expect("removed"));
            assert!(!directory.exists(), "nothing is left");
            progress();
        }
    }
    drop(progress);
    flows.into_iter().for_each(Bulk::end);
}

/// Another process's start: no memory, and the sockets anew.
fn restart(stage: &Stage, node: &mut Node) {
    let options = common::nodes::options(stage, node.number);
    node.fastpath = node.netns.within(|| corten_netd::fastpath::Fastpath::new(options).expect("sockets"));
}
