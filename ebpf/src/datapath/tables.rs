//! The maps as tables: insert, remove, list.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, HashMap, Map, MapData, MapError, MapInfo, MapType, PerCpuArray};
use corten_ebpf_layout::datapath::{
    Address, Cidr, Config, Count, EVENTS_BYTES, Endpoint, Guests, HOOKS, Hook, MAX_ENDPOINTS, MAX_NODES,
    MAX_SLOW, Node, REASONS, Range, Reason, Source, Until, counter, map,
};

use super::convert::{Prefix, address, ip};
use super::pins::Pins;
use super::{Datapath, DatapathError};
use crate::plain::Plain;

pub struct Tables {
    eps: HashMap<MapData, Address, Plain<Endpoint>>,
    live: DevMapHash<MapData>,
    nodes: LpmTrie<MapData, Address, Plain<Node>>,
    config: Array<MapData, Plain<Config>>,
    slow: HashMap<MapData, Plain<Source>, Plain<Until>>,
    guests: Array<MapData, Guests>,
    counters: PerCpuArray<MapData, Plain<Count>>,
}

impl Tables {
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            eps: take(ebpf, map::EPS)?,
            live: take(ebpf, map::LIVE)?,
            nodes: take(ebpf, map::NODES)?,
            config: take(ebpf, map::CONFIG)?,
            slow: take(ebpf, map::SLOW)?,
            guests: take(ebpf, map::GUESTS)?,
            counters: take(ebpf, map::COUNTERS)?,
        })
    }
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, DatapathError> {
    let taken = ebpf.take_map(name).ok_or(DatapathError::NoMap { map: name })?;
    M::try_from(taken).map_err(error(name))
}

/// What a map of ours looks like to the kernel.
pub struct Shape {
    pub name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    entries: u32,
}

pub const SHAPES: [Shape; 8] = [
    shape(map::EPS, MapType::Hash, size_of::<Address>(), size_of::<Endpoint>(), MAX_ENDPOINTS),
    shape(map::LIVE, MapType::DevMapHash, 4, 8, MAX_ENDPOINTS),
    shape(map::NODES, MapType::LpmTrie, size_of::<Cidr>(), size_of::<Node>(), MAX_NODES),
    shape(map::CONFIG, MapType::Array, 4, size_of::<Config>(), 1),
    shape(map::SLOW, MapType::LruHash, size_of::<Source>(), size_of::<Until>(), MAX_SLOW),
    shape(map::GUESTS, MapType::Array, 4, size_of::<Guests>(), 1),
    shape(map::COUNTERS, MapType::PerCpuArray, 4, size_of::<Count>(), HOOKS * REASONS),
    shape(map::EVENTS, MapType::RingBuf, 0, 0, EVENTS_BYTES),
];

const fn shape(name: &'static str, kind: MapType, key: usize, value: usize, entries: u32) -> Shape {
    Shape { name, kind, key, value, entries }
}

/// Is a map pinned that is not of our shape? aya believes the object, not the kernel.
pub fn are_foreign(pins: &Pins) -> Result<bool, DatapathError> {
    for shape in &SHAPES {
        let path = pins.map(shape.name);
        if !path.exists() {
            continue;
        }
        let found = MapInfo::from_pin(path).map_err(error(shape.name))?;
        let sizes = (found.key_size() as usize, found.value_size() as usize, found.max_entries());
        if found.map_type().map_err(error(shape.name))? != shape.kind
            || sizes != (shape.key, shape.value, shape.entries)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A pod's end of a TCP or UDP flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlowEnd {
    pub ip: IpAddr,
    pub port: u16,
    /// 6 or 17.
    pub protocol: u8,
}

impl Datapath {
    /// All endpoints, also those whose interface is gone.
    pub fn endpoints(&self) -> Result<BTreeMap<IpAddr, Endpoint>, DatapathError> {
        let entries = self.tables.eps.iter().map(|entry| entry.map(|(key, value)| (ip(key), value.0)));
        entries.collect::<Result<_, _>>().map_err(error(map::EPS))
    }

    /// # Errors
    /// [`DatapathError::Live`]: there is no such interface in this network namespace.
    pub fn insert_endpoint(&mut self, ip: IpAddr, endpoint: &Endpoint) -> Result<(), DatapathError> {
        self.enliven(endpoint.ifindex)?;
        self.tables.eps.insert(address(ip), Plain(*endpoint), 0).map_err(error(map::EPS))
    }

    /// What is gone is no error.
    pub fn remove_endpoint(&mut self, ip: IpAddr) -> Result<(), DatapathError> {
        gone_is_fine(self.tables.eps.remove(&address(ip))).map_err(error(map::EPS))
    }

    pub fn nodes(&self) -> Result<BTreeMap<Prefix, Node>, DatapathError> {
        let entries = self.tables.nodes.iter().map(|entry| {
            entry.map(|(key, value)| (Prefix::from_mapped(key.data(), key.prefix_len()), value.0))
        });
        entries.collect::<Result<_, _>>().map_err(error(map::NODES))
    }

    /// # Errors
    /// [`DatapathError::Live`]: there is no such uplink in this network namespace.
    pub fn insert_node(&mut self, pods: Prefix, node: &Node) -> Result<(), DatapathError> {
        self.enliven(node.ifindex)?;
        let key = Key::new(pods.mapped_len(), address(pods.ip));
        self.tables.nodes.insert(&key, Plain(*node), 0).map_err(error(map::NODES))
    }

    /// What is gone is no error.
    pub fn remove_node(&mut self, pods: Prefix) -> Result<(), DatapathError> {
        let key = Key::new(pods.mapped_len(), address(pods.ip));
        gone_is_fine(self.tables.nodes.remove(&key)).map_err(error(map::NODES))
    }

    /// The interfaces that endpoints and nodes may name; the kernel removes those that go.
    pub fn live(&self) -> Result<BTreeSet<u32>, DatapathError> {
        self.tables.live.keys().collect::<Result<_, _>>().map_err(error(map::LIVE))
    }

    pub fn config(&self) -> Result<Config, DatapathError> {
        self.tables.config.get(&0, 0).map(|config| config.0).map_err(error(map::CONFIG))
    }

    pub fn set_config(&mut self, config: &Config) -> Result<(), DatapathError> {
        self.tables.config.set(0, Plain(*config), 0).map_err(error(map::CONFIG))
    }

    /// The on/off switch, one of [`state`](super::state).
    pub fn set_state(&mut self, state: u32) -> Result<(), DatapathError> {
        let config = self.config()?;
        if config.state == state { Ok(()) } else { self.set_config(&Config { state, ..config }) }
    }

    /// Keeps a flow of a pod, of this node or another, with the kernel: until it is evicted, or the program sees it end.
    pub fn insert_slow(&mut self, end: SlowEnd) -> Result<(), DatapathError> {
        let until = Until { expires_ns: 0 };
        self.tables.slow.insert(Plain(source(end)), Plain(until), 0).map_err(error(map::SLOW))?;
        let config = self.config()?;
        let is_in = |range: &Range| range.contains(address(end.ip));
        if [config.cluster4, config.cluster6].iter().any(is_in)
            && ![config.pods4, config.pods6].iter().any(is_in)
        {
            self.tables.guests.set(0, 1, 0).map_err(error(map::GUESTS))?;
        }
        Ok(())
    }

    /// The flows that are kept with the kernel; those that ended a while ago are still there.
    pub fn slow(&self) -> Result<BTreeSet<SlowEnd>, DatapathError> {
        let ends = self.tables.slow.keys().map(|key| {
            key.map(|Plain(key)| SlowEnd {
                ip: ip(key.address),
                port: u16::from_be_bytes(key.port),
                protocol: key.protocol,
            })
        });
        ends.collect::<Result<_, _>>().map_err(error(map::SLOW))
    }

    /// Packets since the maps were made, by program and by what became of them; without those that never happened.
    pub fn counters(&self) -> Result<Vec<(Hook, Reason, u64)>, DatapathError> {
        let mut counters = Vec::new();
        for hook in [Hook::FromPod, Hook::FromNic] {
            for reason in Reason::ALL {
                let per_cpu =
                    self.tables.counters.get(&counter(hook, reason), 0).map_err(error(map::COUNTERS))?;
                let packets = per_cpu.iter().map(|Plain(count)| count.packets).sum();
                if packets > 0 {
                    counters.push((hook, reason, packets));
                }
            }
        }
        Ok(counters)
    }

    fn enliven(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        let live = &mut self.tables.live;
        live.insert(ifindex, ifindex, None, 0).map_err(|source| DatapathError::Live { ifindex, source })
    }
}

fn source(end: SlowEnd) -> Source {
    Source { address: address(end.ip), port: end.port.to_be_bytes(), protocol: end.protocol, reserved: 0 }
}

fn error(map: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map { map, source }
}

fn gone_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
