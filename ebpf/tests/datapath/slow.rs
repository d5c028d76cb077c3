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
