//! The maps as typed tables: open or make them, read them, change them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::maps::{HashMap, IterableMap, Map, MapData, MapError, MapInfo, PerCpuArray};
use corten_ebpf_layout::service::{
    Address, Affinity, Choice, Client, Counter, Endpoint, Flow, Frontend, MAX_AFFINITIES, MAX_BACKENDS,
    MAX_FLOWS, MAX_FRONTENDS, MAX_NODE_ADDRESSES, MAX_REVERSE, MAX_SERVICES, Member, Original, Reverse,
    Service, Slot, SocketConfig, UDP,
};

use super::error::SocketError;
use super::plan::{Actual, Change};
use crate::batch;
use crate::link::unlink;
use crate::mapped::MappedWords;
use crate::plain::Plain;

/// Name, key and value size, entries: a pinned map of another shape is of another version and is made anew.
type Shape = (&'static str, usize, usize, u32);

pub const SHAPES: [Shape; 11] = [
    ("FRONTENDS", size_of::<Frontend>(), 4, MAX_FRONTENDS),
    ("SERVICES", 4, size_of::<Service>(), MAX_SERVICES),
    ("BACKENDS", size_of::<Slot>(), size_of::<Member>(), MAX_BACKENDS),
    ("MEMBERS", size_of::<Member>(), 4, MAX_BACKENDS),
    ("NODE_ADDRESSES", size_of::<Address>(), 4, MAX_NODE_ADDRESSES),
    ("AFFINITY", size_of::<Client>(), size_of::<Affinity>(), MAX_AFFINITIES),
    ("FLOWS", size_of::<Flow>(), size_of::<Endpoint>(), MAX_FLOWS),
    ("REVERSE_TCP", size_of::<Reverse>(), size_of::<Original>(), MAX_REVERSE),
    ("REVERSE_UDP", size_of::<Reverse>(), size_of::<Original>(), MAX_REVERSE),
    ("SOCKET_CONFIG", 4, size_of::<SocketConfig>(), 1),
    ("SOCKET_COUNTERS", 4, 8, Counter::ALL.len() as u32),
];

const WORDS_OF_SERVICE: usize = size_of::<Service>() / 8;
const PAGE_WORDS: usize = 4096 / 8;

type Table<K, V> = HashMap<MapData, Plain<K>, V>;

/// The maps of the socket programs.
pub struct Tables {
    frontends: Table<Frontend, u32>,
    services: MappedWords,
    backends: Table<Slot, Plain<Member>>,
    members: Table<Member, u32>,
    node_addresses: Table<Address, u32>,
    affinity: Table<Client, Plain<Affinity>>,
    reverse_udp: Table<Reverse, Plain<Original>>,
    config: MappedWords,
    counters: PerCpuArray<MapData, u64>,
}

/// Removes pins of maps that have not the shape these programs want. The programs of an older version go on with theirs
/// until their links are updated.
pub fn remove_foreign(directory: &Path) -> Result<(), SocketError> {
    for (name, key, value, entries) in SHAPES {
        let pin = directory.join(name);
        let Ok(info) = MapInfo::from_pin(&pin) else { continue };
        let same = info.key_size() as usize == key
            && info.value_size() as usize == value
            && info.max_entries() == entries;
        if !same {
            unlink(&pin).map_err(|errno| SocketError::Path { what: "unpin", path: pin, errno })?;
        }
    }
    Ok(())
}

impl Tables {
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, SocketError> {
        let mut map = |name| ebpf.take_map(name).ok_or(SocketError::Missing { what: "map", name });
        Ok(Self {
            frontends: typed("FRONTENDS", map("FRONTENDS")?)?,
            services: mapped("SERVICES", &map("SERVICES")?, MAX_SERVICES as usize * WORDS_OF_SERVICE)?,
            backends: typed("BACKENDS", map("BACKENDS")?)?,
            members: typed("MEMBERS", map("MEMBERS")?)?,
            node_addresses: typed("NODE_ADDRESSES", map("NODE_ADDRESSES")?)?,
            affinity: typed("AFFINITY", map("AFFINITY")?)?,
            reverse_udp: typed("REVERSE_UDP", map("REVERSE_UDP")?)?,
            config: mapped("SOCKET_CONFIG", &map("SOCKET_CONFIG")?, PAGE_WORDS)?,
            counters: typed("SOCKET_COUNTERS", map("SOCKET_COUNTERS")?)?,
        })
    }

    pub fn set_enabled(&self, enabled: bool) {
        self.config.words()[0].store(u64::from(enabled), Ordering::Release);
    }

    pub fn is_enabled(&self) -> bool {
        self.config.words()[0].load(Ordering::Acquire) != 0
    }

    pub fn set_node_netns(&self, cookie: u64) {
        self.config.words()[1].store(cookie, Ordering::Release);
    }

    /// What the maps hold of services.
    pub fn read(&self) -> Result<Actual, SocketError> {
        let frontends: BTreeMap<Frontend, u32> = pairs("FRONTENDS", &self.frontends)?
            .into_iter()
            .map(|(Plain(frontend), index)| (frontend, index))
            .collect();
        let used: BTreeSet<u32> = frontends.values().copied().collect();
        let mut sets: BTreeMap<u32, BTreeMap<u32, Endpoint>> = BTreeMap::new();
        for (Plain(slot), Plain(member)) in pairs("BACKENDS", &self.backends)? {
            sets.entry(slot.set).or_default().insert(slot.slot, member.endpoint());
        }
        let node_addresses = pairs("NODE_ADDRESSES", &self.node_addresses)?;
        Ok(Actual {
            services: used.into_iter().map(|index| (index, self.service(index))).collect(),
            frontends,
            sets,
            node_addresses: node_addresses.into_iter().map(|(Plain(address), _)| address).collect(),
        })
    }

    fn service(&self, index: u32) -> Service {
        let at = index as usize * WORDS_OF_SERVICE;
        let [choice, affinity_ns] =
            [at, at + 1].map(|at| self.services.words().get(at).map_or(0, |w| w.load(Ordering::Acquire)));
        Service { choice, affinity_ns }
    }

    pub fn apply(&mut self, change: &Change) -> Result<(), SocketError> {
        match change {
            Change::WriteSet { set, backends } => {
                for (slot, endpoint) in (0..).zip(backends) {
                    let key = Slot { set: *set, slot };
                    let member = Member::new(endpoint, *set);
                    put("BACKENDS", &mut self.backends, key, Plain(member))?;
                    put("MEMBERS", &mut self.members, member, slot)?;
                }
                Ok(())
            }
            Change::Store { index, service } => {
                let at = *index as usize * WORDS_OF_SERVICE;
                self.services.words()[at + 1].store(service.affinity_ns, Ordering::Release);
                self.services.words()[at].store(service.choice, Ordering::Release);
                Ok(())
            }
            Change::Point { frontend, index } => put("FRONTENDS", &mut self.frontends, *frontend, *index),
            Change::AddNodeAddress(address) => put("NODE_ADDRESSES", &mut self.node_addresses, *address, 1),
            Change::RemoveNodeAddress(address) => {
                remove("NODE_ADDRESSES", &mut self.node_addresses, *address)
            }
            Change::Unpoint(frontend) => remove("FRONTENDS", &mut self.frontends, *frontend),
            Change::RemoveSet { set, backends } => {
                // Backends last: as long as one is there the next pass finds what is left of the set.
                for endpoint in backends.values() {
                    remove("MEMBERS", &mut self.members, Member::new(endpoint, *set))?;
                }
                for slot in backends.keys() {
                    remove("BACKENDS", &mut self.backends, Slot { set: *set, slot: *slot })?;
                }
                Ok(())
            }
        }
    }

    /// Connected UDP sockets whose backend is none of its service's any more, or whose service is gone.
    pub fn stale(&self) -> Result<Vec<(Reverse, Original)>, SocketError> {
        let mut stale = Vec::new();
        for (Plain(reverse), Plain(original)) in pairs("REVERSE_UDP", &self.reverse_udp)? {
            if original.connected != 0 && !self.still_answers(&original.destination, &reverse.backend)? {
                stale.push((reverse, original));
            }
        }
        Ok(stale)
    }

    fn still_answers(&self, destination: &Endpoint, backend: &Endpoint) -> Result<bool, SocketError> {
        let address = destination.address;
        let exact = Frontend { address, port: destination.port, protocol: UDP };
        let wildcard = Frontend { address: address.wildcard(), ..exact };
        for frontend in [exact, wildcard] {
            let Some(index) = get("FRONTENDS", &self.frontends, frontend)? else { continue };
            let set = Choice::from(self.service(index).choice).set;
            return Ok(get("MEMBERS", &self.members, Member::new(backend, set))?.is_some());
        }
        Ok(false)
    }

    pub fn forget(&mut self, reverse: Reverse) -> Result<(), SocketError> {
        remove("REVERSE_UDP", &mut self.reverse_udp, reverse)
    }

    /// Session affinity as it is now, for status and tests.
    pub fn affinities(&self) -> Result<BTreeMap<Client, Affinity>, SocketError> {
        let all = pairs("AFFINITY", &self.affinity)?;
        Ok(all.into_iter().map(|(Plain(client), Plain(affinity))| (client, affinity)).collect())
    }

    pub fn set_affinity(&mut self, client: Client, affinity: Affinity) -> Result<(), SocketError> {
        put("AFFINITY", &mut self.affinity, client, Plain(affinity))
    }

    pub fn counters(&self) -> Result<BTreeMap<Counter, u64>, SocketError> {
        let sum = |counter: Counter| {
            let values =
                self.counters.get(&(counter as u32), 0).map_err(failed("read", "SOCKET_COUNTERS"))?;
            Ok((counter, values.iter().sum()))
        };
        Counter::ALL.into_iter().map(sum).collect()
    }
}

fn failed(what: &'static str, name: &'static str) -> impl FnOnce(MapError) -> SocketError {
    move |source| SocketError::Map { what, name, source: Box::new(source) }
}

fn typed<T: TryFrom<Map, Error = MapError>>(name: &'static str, map: Map) -> Result<T, SocketError> {
    T::try_from(map).map_err(failed("open", name))
}

/// The mapping keeps the map.
fn mapped(name: &'static str, map: &Map, words: usize) -> Result<MappedWords, SocketError> {
    let Map::Array(data) = map else { return Err(SocketError::Missing { what: "array", name }) };
    MappedWords::new(data.fd().as_fd(), words).map_err(|errno| SocketError::Mmap { name, errno })
}

/// All entries.
fn pairs<K: Copy, V: aya::Pod>(
    name: &'static str,
    table: &Table<K, V>,
) -> Result<Vec<(Plain<K>, V)>, SocketError>
where
    Plain<K>: aya::Pod,
{
    // Its type was checked against the map's sizes when it was opened.
    batch::read_all(table.map().fd().as_fd()).map_err(|errno| SocketError::Dump { name, errno })
}

fn get<K: Copy, V: aya::Pod>(
    name: &'static str,
    table: &Table<K, V>,
    key: K,
) -> Result<Option<V>, SocketError>
where
    Plain<K>: aya::Pod,
{
    match table.get(&Plain(key), 0) {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(e) => Err(failed("read", name)(e)),
    }
}

fn put<K: Copy, V: aya::Pod>(
    name: &'static str,
    table: &mut Table<K, V>,
    key: K,
    value: V,
) -> Result<(), SocketError>
where
    Plain<K>: aya::Pod,
{
    table.insert(Plain(key), value, 0).map_err(failed("write", name))
}

/// What is gone is no error.
fn remove<K: Copy, V: aya::Pod>(
    name: &'static str,
    table: &mut Table<K, V>,
    key: K,
) -> Result<(), SocketError>
where
    Plain<K>: aya::Pod,
{
    match table.remove(&Plain(key)) {
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(e) => Err(failed("remove from", name)(e)),
    }
}
