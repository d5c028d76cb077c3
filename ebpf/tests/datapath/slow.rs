//! Flows that conntrack may have translated: both directions stay with the kernel, or neither.

use corten_ebpf::datapath::{Hook, Reason, SlowEnd, TOLD, state};

use crate::frame::{ACK, FIN, Ip, RST, SYN, vxlan};
use crate::world::{GATEWAY, NEXT, POD, POD2, VTEP, VTEP2, World, parse};

const A: &str = "10.244.1.2";
const B: &str = "10.244.1.3";
const SERVICE: &str = "10.96.0.10";
const REMOTE: &str = "10.244.2.7";

fn end(port: u16, protocol: u8) -> SlowEnd {
    SlowEnd { ip: parse(A), port, protocol }
}

impl World {
    fn is_recorded(&self, port: u16, protocol: u8) -> bool {
        self.datapath.slow().unwrap().contains(&end(port, protocol))
    }

    fn sends(&mut self, packet: &Ip) -> Reason {
        let outcome = self.pod_sends(GATEWAY, packet);
        assert_eq!(outcome.verdict == NEXT, !outcome.reason.is_fast());
        outcome.reason
    }

    fn remote_sends(&mut self, packet: &Ip) -> Reason {
        let inner = packet.frame(VTEP2, VTEP);
        self.nic_receives(&vxlan("192.168.0.2", "192.168.0.1", 1, &inner)).reason
    }

    /// What the second pod sends to the first.
    fn neighbour_sends(&mut self, packet: &Ip) -> Reason {
        self.run(Hook::FromPod, self.pod2, &packet.frame(POD2, POD), 0).reason
    }
}

#[test]
fn the_replies_of_a_service_go_back_through_conntrack() {
    let Some(mut world) = World::new() else { return };
    let syn = Ip::tcp(A, SERVICE, (40000, 80), SYN, 0);
    assert_eq!(world.sends(&syn), Reason::UnknownPeer);
    assert!(world.is_recorded(40000, 6));
    // Whoever the service chose: a pod of this node, of another,
    assert_eq!(world.neighbour_sends(&Ip::tcp(B, A, (8080, 40000), SYN | ACK, 0)), Reason::Slow);
    assert_eq!(world.remote_sends(&Ip::tcp(REMOTE, A, (8080, 40000), SYN | ACK, 0)), Reason::Slow);
    // and the same port of the pod towards others is slow both ways.
    assert_eq!(world.sends(&Ip::tcp(A, REMOTE, (40000, 9090), ACK, 5)), Reason::Slow);
    // Other ports and protocols are not concerned.
    assert_eq!(world.remote_sends(&Ip::tcp(REMOTE, A, (8080, 40001), SYN | ACK, 0)), Reason::Vxlan);
    assert_eq!(world.remote_sends(&Ip::udp(REMOTE, A, (8080, 40000), 5)), Reason::Vxlan);
    assert_eq!(world.sends(&Ip::icmp(A, REMOTE, 8, 0)), Reason::Vxlan);
}

#[test]
fn replies_of_a_server_to_the_node_do_not_slow_the_server_down() {
    let Some(mut world) = World::new() else { return };
    let node = "192.168.0.1";
    for flags in [SYN | ACK, ACK, FIN | ACK, RST] {
        assert_eq!(world.sends(&Ip::tcp(A, node, (8080, 50000), flags, 0)), Reason::UnknownPeer);
        assert!(!world.is_recorded(8080, 6), "flags {flags:#x}");
    }
    assert_eq!(world.remote_sends(&Ip::tcp(REMOTE, A, (50000, 8080), SYN, 0)), Reason::Vxlan);
}

#[test]
fn a_flow_older_than_its_record_is_recorded_by_its_ephemeral_port() {
    let Some(mut world) = World::new() else { return };
    assert_eq!(world.sends(&Ip::tcp(A, SERVICE, (32768, 80), ACK, 9)), Reason::UnknownPeer);
    assert!(world.is_recorded(32768, 6));
    assert_eq!(world.sends(&Ip::tcp(A, SERVICE, (32767, 80), ACK, 9)), Reason::UnknownPeer);
    assert!(!world.is_recorded(32767, 6));
}

#[test]
fn every_udp_packet_is_recorded_and_echo_is_not() {
    let Some(mut world) = World::new() else { return };
    assert_eq!(world.sends(&Ip::udp(A, SERVICE, (53, 53), 9)), Reason::UnknownPeer);
    assert!(world.is_recorded(53, 17));
    assert_eq!(world.remote_sends(&Ip::udp(REMOTE, A, (53, 53), 9)), Reason::Slow);
    let before = world.datapath.slow().unwrap();
    assert_eq!(world.sends(&Ip::icmp(A, SERVICE, 8, 0)), Reason::UnknownPeer);
    assert_eq!(world.datapath.slow().unwrap(), before);
}

#[test]
fn a_spoofed_source_is_not_recorded() {
    let Some(mut world) = World::new() else { return };
    assert_eq!(world.sends(&Ip::tcp(B, SERVICE, (40000, 80), SYN, 0)), Reason::SpoofedPod);
    assert!(world.datapath.slow().unwrap().is_empty());
}

#[test]
fn a_closed_flow_is_slow_as_long_as_conntrack_remembers_it() {
    let Some(mut world) = World::new() else { return };
    for flags in [SYN, ACK, FIN | ACK, ACK] {
        world.sends(&Ip::tcp(A, SERVICE, (40000, 80), flags, 0));
        assert_eq!(world.remote_sends(&Ip::tcp(REMOTE, A, (8080, 40000), ACK, 0)), Reason::Slow);
    }
}

#[test]
fn observing_records_and_redirects_nothing() {
    let Some(mut world) = World::new() else { return };
    world.datapath.set_state(state::OFF).unwrap();
    assert_eq!(world.sends(&Ip::tcp(A, SERVICE, (40000, 80), SYN, 0)), Reason::Off);
    assert!(!world.is_recorded(40000, 6));
    world.datapath.set_state(state::OBSERVE).unwrap();
    assert_eq!(world.sends(&Ip::tcp(A, SERVICE, (40000, 80), SYN, 0)), Reason::UnknownPeer);
    assert!(world.is_recorded(40000, 6));
    assert_eq!(world.sends(&Ip::tcp(A, REMOTE, (40001, 80), SYN, 0)), Reason::Off);
    world.datapath.set_state(state::ON).unwrap();
    assert_eq!(world.remote_sends(&Ip::tcp(REMOTE, A, (8080, 40000), SYN | ACK, 0)), Reason::Slow);
}

#[test]
fn flows_that_conntrack_knows_can_be_put_in() {
    let Some(mut world) = World::new() else { return };
    let v6 = SlowEnd { ip: parse("fd00:1::2"), port: 40000, protocol: 6 };
    world.datapath.insert_slow(v6).unwrap();
    world.datapath.insert_slow(end(40000, 6)).unwrap();
    assert_eq!(world.remote_sends(&Ip::tcp(REMOTE, A, (8080, 40000), ACK, 0)), Reason::Slow);
    assert!(world.datapath.slow().unwrap().contains(&v6));
    let inner = Ip::tcp("fd00:2::7", "fd00:1::2", (8080, 40000), ACK, 0).frame(VTEP2, VTEP);
    assert_eq!(world.nic_receives(&vxlan("fd99::2", "fd99::1", 1, &inner)).reason, Reason::Slow);
}

/// A node port here, called by a pod of another node that is not masqueraded: what comes in and what may go out.
#[test]
fn flows_of_other_nodes_pods_to_this_node_are_the_kernels_both_ways() {
    // A pod here, pods of a vxlan and of a host-gw node, this node's address and one that it has in its pod network.
    for (pod, vxlan_pod, gateway_pod, us, bridge) in [
        (A, REMOTE, "10.244.3.7", "192.168.0.1", "10.244.1.1"),
        ("fd00:1::2", "fd00:2::7", "fd00:3::7", "fd99::1", "fd00:1::1"),
    ] {
        for (remote, port, to, by_vxlan) in [
            (vxlan_pod, 40000, us, false),
            (vxlan_pod, 40001, bridge, true),
            (gateway_pod, 40002, us, false),
            (gateway_pod, 40003, bridge, false),
        ] {
            for udp in [false, true] {
                let Some(mut world) = World::new() else { return };
                let packet = |from, to, ports, flags| {
                    if udp { Ip::udp(from, to, ports, 9) } else { Ip::tcp(from, to, ports, flags, 0) }
                };
                let peer = if pod == A { "192.168.0.2" } else { "fd99::2" };
                let receive = |world: &mut World, packet: &Ip, by_vxlan| {
                    if by_vxlan {
                        world.nic_receives(&vxlan(peer, us, 1, &packet.frame(VTEP2, VTEP))).reason
                    } else {
                        world.nic_receives(packet).reason
                    }
                };
                let case = format!("{remote} to {to}, UDP {udp}");
                let reply = packet(pod, remote, (80, port), SYN | ACK);
                assert!(world.sends(&reply).is_fast(), "{case}: before");
                let reason = receive(&mut world, &packet(remote, to, (port, 30080), SYN), by_vxlan);
                assert!(!reason.is_fast(), "{case}: {reason:?}");
                assert_eq!(world.sends(&reply), Reason::Slow, "{case}");
                // The same end straight to the pod: its replies are slow, so it is as well.
                let straight = packet(remote, pod, (port, 80), SYN);
                assert_eq!(receive(&mut world, &straight, remote == vxlan_pod), Reason::Slow, "{case}");
                // Other flows of that pod are not concerned.
                assert!(world.sends(&packet(pod, remote, (80, port + 9), ACK)).is_fast(), "{case}");
                let other = packet(remote, pod, (port + 9, 80), SYN);
                assert!(receive(&mut world, &other, remote == vxlan_pod).is_fast(), "{case}");
            }
        }
    }
}

#[test]
fn what_nodes_send_and_what_servers_answer_to_this_node_is_not_recorded() {
    let Some(mut world) = World::new() else { return };
    let us = "192.168.0.1";
    for packet in [
        Ip::tcp("192.168.0.2", us, (40000, 30080), SYN, 0),
        Ip::udp("192.0.2.9", us, (40000, 30080), 9),
        Ip::tcp(REMOTE, us, (8080, 40000), SYN | ACK, 0),
        Ip::tcp(REMOTE, us, (8080, 40000), ACK, 9),
        Ip::icmp(REMOTE, us, 8, 0),
        // Our own pods' addresses do not come from outside.
        Ip::tcp(A, us, (40000, 30080), SYN, 0),
    ] {
        assert_eq!(world.nic_receives(&packet).reason, Reason::NotOurs);
    }
    // From a node that has not these pods.
    let inner = Ip::tcp("10.244.3.7", "10.244.1.1", (40000, 30080), SYN, 0).frame(VTEP2, VTEP);
    assert_eq!(world.nic_receives(&vxlan("192.168.0.2", us, 1, &inner)).reason, Reason::SpoofedNode);
    assert!(world.datapath.slow().unwrap().is_empty());
}

#[test]
fn flows_of_other_nodes_pods_are_recorded_while_observing_and_can_be_put_in() {
    let Some(mut world) = World::new() else { return };
    world.datapath.set_state(state::OBSERVE).unwrap();
    let call = Ip::tcp(REMOTE, "192.168.0.1", (40000, 30080), SYN, 0);
    assert_eq!(world.nic_receives(&call).reason, Reason::NotOurs);
    world.datapath.set_state(state::ON).unwrap();
    assert_eq!(world.sends(&Ip::tcp(A, REMOTE, (80, 40000), SYN | ACK, 0)), Reason::Slow);

    let Some(mut world) = World::new() else { return };
    world.datapath.insert_slow(SlowEnd { ip: parse(REMOTE), port: 40000, protocol: 6 }).unwrap();
    assert_eq!(world.sends(&Ip::tcp(A, REMOTE, (80, 40000), ACK, 0)), Reason::Slow);
}

#[test]
fn an_event_tells_what_was_seen_and_not_too_often() {
    let Some(mut world) = World::new() else { return };
    let mut events = world.datapath.take_events().expect("the first reader");
    assert!(world.datapath.take_events().is_none());
    let spoofed = Ip::udp(B, REMOTE, (1234, 53), 9);
    world.sends(&spoofed);
    assert_eq!(events.next(), None, "nobody asked for it");
    world.configure(|config| config.told = TOLD);
    for _ in 0..50 {
        world.sends(&spoofed);
        world.sends(&Ip::tcp(A, SERVICE, (40000, 80), SYN, 0));
    }
    let event = events.next().expect("an event");
    assert_eq!((event.hook, event.reason, event.ifindex), (Hook::FromPod, Reason::SpoofedPod, world.pod));
    assert_eq!(event.len as usize, spoofed.frame(POD, GATEWAY).len());
    assert_eq!(event.flow, Some((parse(B), 1234, parse(REMOTE), 53, 17)));
    let more = std::iter::from_fn(|| events.next()).collect::<Vec<_>>();
    assert!(
        more.iter().all(|event| event.reason == Reason::SpoofedPod),
        "an unknown peer is not told: {more:?}"
    );
    assert!(more.len() < 25, "{} of 50 within moments", more.len() + 1);
}
