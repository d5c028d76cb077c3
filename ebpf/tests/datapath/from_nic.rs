//! `from_nic`: what the uplink receives.

use corten_ebpf::datapath::{Hook, Reason, mode, state};

use crate::frame::{ACK, Ip, SYN, vxlan};
use crate::netns::run;
use crate::world::{GATEWAY, NEXT, POD, ROUTER, UPLINK, VTEP, VTEP2, World, node, prefix};

const POD4: &str = "10.244.1.2";
const POD6: &str = "fd00:1::2";

/// TCP, UDP and echo of both families from a remote pod.
fn ordinary(v4: &str, v6: &str) -> Vec<Ip> {
    let mut all = Vec::new();
    for (from, to) in [(v4, POD4), (v6, POD6)] {
        let request = if to == POD4 { 8 } else { 128 };
        all.push(Ip::tcp(from, to, (40000, 80), SYN, 0));
        all.push(Ip::tcp(from, to, (40000, 80), ACK, 999));
        all.push(Ip::udp(from, to, (40000, 53), 77));
        all.push(Ip::icmp(from, to, request, 0));
    }
    all
}

/// In vxlan as the peer sends it.
fn tunnelled(inner: &Ip) -> Ip {
    tunnelled_by(inner, 1, VTEP)
}

fn tunnelled_by(inner: &Ip, vni: u32, to: [u8; 6]) -> Ip {
    let (from, us) =
        if inner.source.is_ipv4() { ("192.168.0.2", "192.168.0.1") } else { ("fd99::2", "fd99::1") };
    vxlan(from, us, vni, &inner.frame(VTEP2, to))
}

#[test]
fn a_packet_in_vxlan_is_delivered_as_from_the_pods_gateway() {
    let Some(mut world) = World::new() else { return };
    for packet in ordinary("10.244.2.7", "fd00:2::7") {
        let frame = world.nic_receives(&tunnelled(&packet)).fast(Reason::Vxlan);
        assert!(frame == packet.with(|p| p.ttl = 63).frame(GATEWAY, POD));
    }
}

#[test]
fn a_routed_packet_is_delivered_as_from_the_pods_gateway() {
    let Some(mut world) = World::new() else { return };
    for packet in ordinary("10.244.3.7", "fd00:3::7") {
        let frame = world.nic_receives(&packet).fast(Reason::Gateway);
        assert!(frame == packet.with(|p| p.ttl = 63).frame(GATEWAY, POD));
    }
}

#[test]
fn what_it_puts_into_vxlan_it_takes_out_again() {
    let Some(mut world) = World::new() else { return };
    // The same packet out and, its addresses as if we were the peer, in again.
    for packet in ordinary("10.244.2.7", "fd00:2::7") {
        let back = packet.clone().with(|p| (p.source, p.destination) = (p.destination, p.source));
        let sent = world.run(Hook::FromPod, world.pod, &back.frame(POD, GATEWAY), 0).fast(Reason::Vxlan);
        assert_eq!(sent.len(), back.bytes().len() + 14 + if back.source.is_ipv4() { 50 } else { 70 });
    }
}

#[test]
fn what_the_fast_path_does_not_know_goes_the_kernels_way_untouched() {
    let Some(mut world) = World::new() else { return };
    let mut cases: Vec<(&str, Reason, Ip)> = Vec::new();
    for (pod, remote, routed, v4) in
        [(POD4, "10.244.2.7", "10.244.3.7", true), (POD6, "fd00:2::7", "fd00:3::7", false)]
    {
        let udp = |from: &str| Ip::udp(from, pod, (53, 40000), 77);
        let (us, peer, other) = if v4 {
            ("192.168.0.1", "192.168.0.2", "192.168.0.3")
        } else {
            ("fd99::1", "fd99::2", "fd99::3")
        };
        let mut add = |case, reason, packet| cases.push((case, reason, packet));
        // For the node itself.
        add("TCP to the node", Reason::NotOurs, Ip::tcp("192.0.2.1", "192.168.0.1", (1, 22), SYN, 0));
        add("UDP to the node", Reason::NotOurs, Ip::udp(peer, us, (1, 53), 9));
        add(
            "to somewhere else",
            Reason::NotOurs,
            Ip::udp(if v4 { "192.0.2.1" } else { "2001:db8::1" }, other, (1, 53), 9),
        );
        // In a tunnel.
        add("another VNI", Reason::Vni, tunnelled_by(&udp(remote), 2, VTEP));
        let mut extended = tunnelled(&udp(remote));
        extended.payload[8] = 0x88;
        add("a flag of an extension", Reason::Vni, extended);
        let mut reserved = tunnelled(&udp(remote));
        reserved.payload[15] = 1;
        add("a reserved bit", Reason::Vni, reserved);
        add("not to our tunnel device", Reason::NotToGateway, tunnelled_by(&udp(remote), 1, VTEP2));
        add("a source outside every pod CIDR", Reason::UnknownPeer, tunnelled(&udp(other)));
        add("a source of another node's pods", Reason::SpoofedNode, tunnelled(&udp(routed)));
        let stranger = if v4 { "192.168.0.66" } else { "fd99::66" };
        let spoofed = vxlan(stranger, us, 1, &udp(remote).frame(VTEP2, VTEP));
        add("from a host that is not the node", Reason::SpoofedNode, spoofed);
        let nowhere = if v4 { "10.244.1.99" } else { "fd00:1::99" };
        add("to no pod of ours", Reason::UnknownPeer, tunnelled(&Ip::udp(remote, nowhere, (1, 2), 3)));
        add("to no pod CIDR of ours", Reason::UnknownPeer, tunnelled(&Ip::udp(remote, routed, (1, 2), 3)));
        add("TTL 1 inside", Reason::Ttl, tunnelled(&udp(remote).with(|p| p.ttl = 1)));
        add("SCTP inside", Reason::Protocol, tunnelled(&Ip::new(remote, pod, 132, vec![0; 32])));
        let error = if v4 { 3 } else { 1 };
        add("ICMP error inside", Reason::Protocol, tunnelled(&Ip::icmp(remote, pod, error, 0)));
        add(
            "congestion outside",
            Reason::Congestion,
            tunnelled(&udp(remote).with(|p| p.ecn = 2)).with(|p| p.ecn = 3),
        );
        let inner = udp(remote).frame(VTEP2, VTEP);
        add("cut inside", Reason::Malformed, vxlan(peer, us, 1, &inner[..inner.len() - 1]));
        let mut arp = vec![0; 64];
        arp[..14].copy_from_slice(&[&VTEP[..], &VTEP2, &[8, 6]].concat());
        add("ARP inside", Reason::NotIp, vxlan(peer, us, 1, &arp));
        // By route.
        add("routed from a vxlan node", Reason::SpoofedNode, udp(remote));
        add("routed from nowhere", Reason::UnknownPeer, udp(other));
        add("routed to no pod", Reason::UnknownPeer, Ip::udp(routed, nowhere, (1, 2), 3));
        add("routed with TTL 1", Reason::Ttl, udp(routed).with(|p| p.ttl = 1));
        add("routed SCTP", Reason::Protocol, Ip::new(routed, pod, 132, vec![0; 32]));
    }
    let options = |p: &mut Ip| p.extra = vec![1, 1, 1, 1];
    let fragment = |p: &mut Ip| p.fragment = 0x2000;
    let (routed, remote) = (Ip::udp("10.244.3.7", POD4, (1, 2), 30), Ip::udp("10.244.2.7", POD4, (1, 2), 30));
    cases.push(("options", Reason::Options, routed.clone().with(options)));
    cases.push(("fragment", Reason::Fragment, routed.with(fragment)));
    cases.push(("options inside", Reason::Options, tunnelled(&remote.clone().with(options))));
    cases.push(("fragment inside", Reason::Fragment, tunnelled(&remote.clone().with(fragment))));
    cases.push(("options outside", Reason::Options, tunnelled(&remote).with(options)));
    cases.push(("fragment outside", Reason::Fragment, tunnelled(&remote).with(fragment)));
    for (case, reason, packet) in cases {
        let frame = packet.frame(ROUTER, UPLINK);
        world.run(Hook::FromNic, world.uplink, &frame, 0).slow(reason, &frame, case);
    }
}

#[test]
fn a_congestion_mark_that_the_packet_has_already_changes_nothing() {
    let Some(mut world) = World::new() else { return };
    let packet = Ip::udp("10.244.2.7", POD4, (1, 2), 9).with(|p| p.ecn = 3);
    world.nic_receives(&tunnelled(&packet).with(|p| p.ecn = 3)).fast(Reason::Vxlan);
}

#[test]
fn frames_to_other_machines_and_groups_are_not_looked_at() {
    let Some(mut world) = World::new() else { return };
    let packet = tunnelled(&Ip::udp("10.244.2.7", POD4, (1, 2), 9));
    for to in [[2, 9, 9, 9, 9, 9], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let frame = packet.frame(ROUTER, to);
        world.run(Hook::FromNic, world.uplink, &frame, 0).slow(Reason::NotOurs, &frame, "not to us");
    }
}

#[test]
fn another_port_is_another_service() {
    let Some(mut world) = World::new() else { return };
    world.configure(|config| config.port = 4789_u16.to_be_bytes());
    let packet = tunnelled(&Ip::udp("10.244.2.7", POD4, (1, 2), 9));
    world.nic_receives(&packet).slow(Reason::NotOurs, &packet.frame(ROUTER, UPLINK), "8472");
}

#[test]
fn a_node_that_changed_its_mode_is_believed_at_once() {
    let Some(mut world) = World::new() else { return };
    let packet = Ip::udp("10.244.2.7", POD4, (1, 2), 9);
    world.nic_receives(&tunnelled(&packet)).fast(Reason::Vxlan);
    let gateway = node("192.168.0.2", "192.168.0.2", world.uplink, mode::GATEWAY, 1500);
    world.datapath.insert_node(prefix("10.244.2.0/24"), &gateway).unwrap();
    assert_eq!(world.nic_receives(&tunnelled(&packet)).reason, Reason::SpoofedNode);
    world.nic_receives(&packet).fast(Reason::Gateway);
    world.datapath.remove_node(prefix("10.244.2.0/24")).unwrap();
    assert_eq!(world.nic_receives(&packet).reason, Reason::UnknownPeer);
}

#[test]
fn a_pod_whose_device_is_gone_is_the_kernels() {
    let Some(mut world) = World::new() else { return };
    run("ip link del vp1");
    let packet = tunnelled(&Ip::udp("10.244.2.7", POD4, (1, 2), 9));
    world.nic_receives(&packet).slow(Reason::Gone, &packet.frame(ROUTER, UPLINK), "gone");
}

#[test]
fn switched_off_nothing_is_fast() {
    let Some(mut world) = World::new() else { return };
    let packet = tunnelled(&Ip::udp("10.244.2.7", POD4, (1, 2), 9));
    for off in [state::OFF, state::OBSERVE] {
        world.datapath.set_state(off).unwrap();
        world.nic_receives(&packet).slow(Reason::Off, &packet.frame(ROUTER, UPLINK), "off");
    }
}

#[test]
fn every_shorter_frame_is_left_to_the_kernel() {
    let Some(mut world) = World::new() else { return };
    for packet in [
        tunnelled(&Ip::tcp("10.244.2.7", POD4, (1, 2), SYN, 3)),
        tunnelled(&Ip::udp("fd00:2::7", POD6, (1, 2), 3)),
        Ip::tcp("10.244.3.7", POD4, (1, 2), SYN, 3),
        Ip::udp("fd00:3::7", POD6, (1, 2), 3),
    ] {
        let frame = packet.frame(ROUTER, UPLINK);
        // A test run takes no frame that is shorter than its IP header.
        let shortest = if packet.source.is_ipv4() { 34 } else { 54 };
        for len in shortest..frame.len() {
            let cut = &frame[..len];
            let outcome = world.run(Hook::FromNic, world.uplink, cut, 0);
            assert_eq!(outcome.verdict, NEXT, "{len} bytes: {:?}", outcome.reason);
            assert!(outcome.frame == cut, "{len} bytes");
        }
    }
}

#[test]
fn random_bytes_are_never_redirected_wrongly() {
    let Some(mut world) = World::new() else { return };
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let base = [
        tunnelled(&Ip::tcp("10.244.2.7", POD4, (1, 2), SYN, 30)).frame(ROUTER, UPLINK),
        tunnelled(&Ip::udp("fd00:2::7", POD6, (1, 2), 30)).frame(ROUTER, UPLINK),
        Ip::udp("10.244.3.7", POD4, (1, 2), 30).frame(ROUTER, UPLINK),
    ];
    for round in 0..3000 {
        let mut frame = base[round % base.len()].clone();
        for _ in 0..=round % 3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = random as usize % 120.min(frame.len());
            frame[at] ^= 1 << (random >> 32 & 7);
        }
        let outcome = world.run(Hook::FromNic, world.uplink, &frame, 0);
        match outcome.verdict {
            NEXT => assert!(outcome.frame == frame, "round {round}"),
            7 => assert!(outcome.reason.is_fast()),
            other => panic!("round {round}: verdict {other}, {:?}", outcome.reason),
        }
    }
}
