//! A node with two pods, a vxlan peer and a host-gw peer, of both families; and test runs in it.

use std::net::IpAddr;

use aya::{TestRun, TestRunOptions};
use corten_ebpf::datapath::{
    Config, Datapath, Endpoint, Hook, Node, Prefix, Reason, address, mode, range, state,
};

use crate::frame::{Ip, Mac, checked};
use crate::netns::{ifindex, private, run};

pub const NEXT: i32 = -1;
pub const REDIRECT: i32 = 7;

pub const POD: Mac = [0x02, 0, 0, 0, 1, 2];
pub const POD2: Mac = [0x02, 0, 0, 0, 1, 3];
pub const GATEWAY: Mac = [0x02, 0, 0, 0, 1, 1];
pub const UPLINK: Mac = [0x02, 0, 0, 0, 9, 1];
pub const ROUTER: Mac = [0x02, 0, 0, 0, 9, 2];
pub const VTEP: Mac = [0x02, 0, 0, 0, 8, 1];
pub const VTEP2: Mac = [0x02, 0, 0, 0, 8, 2];

pub const VNI: u32 = 1;

/// What a program made of a frame.
#[derive(Debug)]
pub struct Outcome {
    pub verdict: i32,
    pub reason: Reason,
    pub frame: Vec<u8>,
}

pub struct World {
    pub datapath: Datapath,
    pub pod: u32,
    pub pod2: u32,
    pub uplink: u32,
}

impl World {
    pub fn new() -> Option<Self> {
        let directory = private()?;
        for (name, peer, mac) in [("vp1", "p1", "02:00:00:00:05:01"), ("vp2", "p2", "02:00:00:00:05:02")] {
            run(&format!("ip link add {name} address {mac} type veth peer name {peer}"));
        }
        run("ip link add up0 address 02:00:00:00:09:01 type veth peer name wire");
        let datapath = Datapath::load_or_open(&directory).expect("load");
        let (pod, pod2, uplink) = (ifindex("vp1"), ifindex("vp2"), ifindex("up0"));
        let mut world = Self { datapath, pod, pod2, uplink };
        world.furnish();
        Some(world)
    }

    fn furnish(&mut self) {
        let datapath = &mut self.datapath;
        for (ip, ifindex, mac) in [
            ("10.244.1.2", self.pod, POD),
            ("fd00:1::2", self.pod, POD),
            ("10.244.1.3", self.pod2, POD2),
            ("fd00:1::3", self.pod2, POD2),
        ] {
            datapath.insert_endpoint(parse(ip), &Endpoint { ifindex, mac, gateway_mac: GATEWAY }).unwrap();
        }
        for (pods, ip, next_hop, mode, mtu) in [
            ("10.244.2.0/24", "192.168.0.2", "192.168.0.2", mode::VXLAN, 1450),
            ("fd00:2::/64", "fd99::2", "fd99::2", mode::VXLAN, 1430),
            ("10.244.3.0/24", "192.168.0.3", "192.168.0.254", mode::GATEWAY, 1500),
            ("fd00:3::/64", "fd99::3", "fd99::3", mode::GATEWAY, 1500),
        ] {
            datapath.insert_node(prefix(pods), &self::node(ip, next_hop, self.uplink, mode, mtu)).unwrap();
        }
        let config = Config {
            state: state::ON,
            told: 0,
            vni: VNI,
            port: 8472_u16.to_be_bytes(),
            ip4: address(parse("192.168.0.1")),
            ip6: address(parse("fd99::1")),
            pods4: range(prefix("10.244.1.0/24")),
            pods6: range(prefix("fd00:1::/64")),
            cluster4: range(prefix("10.244.0.0/16")),
            cluster6: range(prefix("fd00::/16")),
            vtep4_mac: VTEP,
            vtep6_mac: VTEP,
            ..Config::default()
        };
        datapath.set_config(&config).unwrap();
    }

    /// Changes the configuration.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = self.datapath.config().unwrap();
        change(&mut config);
        self.datapath.set_config(&config).unwrap();
    }

    /// What the first pod sends; to its gateway if `to` is [`GATEWAY`].
    pub fn pod_sends(&mut self, to: Mac, packet: &Ip) -> Outcome {
        self.run(Hook::FromPod, self.pod, &packet.frame(POD, to), 0)
    }

    /// What the uplink receives.
    pub fn nic_receives(&mut self, packet: &Ip) -> Outcome {
        self.run(Hook::FromNic, self.uplink, &packet.frame(ROUTER, UPLINK), 0)
    }

    /// `segment`: payload of each segment, if the frame is a large one.
    pub fn run(&mut self, hook: Hook, ifindex: u32, frame: &[u8], segment: u32) -> Outcome {
        let before = self.counters();
        let context = context(ifindex, segment);
        let mut out = vec![0; frame.len() + 256];
        let program = self.datapath.program(hook).unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::new()
            })
            .unwrap_or_else(|error| panic!("test run of {} bytes: {error:?}", frame.len()));
        out.truncate(result.data_size_out as usize);
        let after = self.counters();
        let counted = |list: &[(Hook, Reason, u64)], reason| {
            list.iter().find(|(h, r, _)| (*h, *r) == (hook, reason)).map_or(0, |(_, _, n)| *n)
        };
        let grown: Vec<Reason> = Reason::ALL
            .into_iter()
            .filter(|reason| counted(&after, *reason) == counted(&before, *reason) + 1)
            .collect();
        assert_eq!(grown.len(), 1, "one packet is counted once: {before:?} {after:?}");
        Outcome { verdict: result.return_value as i32, reason: grown[0], frame: out }
    }

    fn counters(&self) -> Vec<(Hook, Reason, u64)> {
        self.datapath.counters().unwrap()
    }
}

impl Outcome {
    /// Redirected, with right lengths and checksums; returns the frame.
    #[track_caller]
    pub fn fast(self, reason: Reason) -> Vec<u8> {
        assert_eq!((self.verdict, self.reason), (REDIRECT, reason));
        checked(&self.frame);
        self.frame
    }

    /// Left to the kernel, as it came.
    #[track_caller]
    pub fn slow(self, reason: Reason, frame: &[u8], case: &str) {
        assert_eq!((self.verdict, self.reason), (NEXT, reason), "{case}");
        assert!(self.frame == frame, "{case}: the kernel gets the frame as it came");
    }
}

pub fn parse(ip: &str) -> IpAddr {
    ip.parse().unwrap()
}

pub fn prefix(cidr: &str) -> Prefix {
    let (ip, len) = cidr.split_once('/').unwrap();
    Prefix { ip: parse(ip), len: len.parse().unwrap() }
}

pub fn node(ip: &str, next_hop: &str, ifindex: u32, mode: u8, mtu: u16) -> Node {
    Node {
        ip: address(parse(ip)),
        next_hop: address(parse(next_hop)),
        ifindex,
        mtu,
        mode,
        reserved: 0,
        vtep_mac: VTEP2,
        reserved_end: [0; 2],
    }
}

/// `struct __sk_buff` as test runs take it.
fn context(ifindex: u32, segment: u32) -> [u8; 192] {
    let mut context = [0; 192];
    let segments = u32::from(segment != 0) * 2;
    for (at, value) in [(40, ifindex), (164, segments), (176, segment)] {
        context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    context
}
