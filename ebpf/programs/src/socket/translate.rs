//! From a destination to a backend and back.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_set_retval,
};
use aya_ebpf::maps::LruHashMap;
use corten_ebpf_layout::service::{
    Affinity, Choice, Client, Counter, Endpoint, Flow, Frontend, Member, Original, Reverse, Service, Slot,
    SocketConfig, TCP,
};

use super::address::Socket;
use super::maps::{
    AFFINITY, BACKENDS, FLOWS, FRONTENDS, HAVE_SET_RETVAL, MEMBERS, NODE_ADDRESSES, REVERSE_TCP, REVERSE_UDP,
    SERVICES, SOCKET_CONFIG, count,
};
use super::{PROCEED, REJECT};

/// How often a set may change under a program before it gives up.
const TRIES: u32 = 4;
/// As a REJECT rule answers a TCP connection to a service without endpoints.
const ECONNREFUSED: i32 = 111;
const ENOMEM: i32 = 12;

/// When a socket names its destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Once for all that follows.
    Connect,
    /// With each datagram.
    Send,
}

/// What a hook was asked for, read once.
#[derive(Clone, Copy)]
struct Request {
    socket: Socket,
    at: At,
    protocol: u32,
    cookie: u64,
    destination: Endpoint,
}

/// Replaces the destination if it is a service. The hook's verdict.
#[inline(always)]
pub fn forward(socket: Socket, at: At) -> i32 {
    let Some(protocol) = socket.protocol() else { return PROCEED };
    let Some(config) = SOCKET_CONFIG.get_ptr(0) else { return PROCEED };
    // SAFETY: a live element of an array; user space stores whole words.
    if unsafe { read_volatile(&raw const (*config).enabled) } == 0 {
        return PROCEED;
    }
    let destination = socket.endpoint();
    let Some(index) = service_of(socket, &destination, protocol, config) else {
        if at == At::Connect && protocol != TCP {
            forget(socket, protocol, &destination);
        }
        return PROCEED;
    };
    let request = Request { socket, at, protocol, cookie: socket.cookie(), destination };
    match choose(&request, index) {
        Ok(backend) => {
            if !remember(&request, &backend) && protocol != TCP {
                // Without the entry the answer would seem to come from a stranger.
                count(Counter::Full);
                return reject(ENOMEM);
            }
            socket.set_endpoint(&backend);
            count(if at == At::Connect { Counter::Connected } else { Counter::Sent });
            PROCEED
        }
        Err(why) => {
            count(why);
            reject(ECONNREFUSED)
        }
    }
}

/// Shows the service instead of the backend, if the socket got to the backend by the service.
#[inline(always)]
pub fn reverse(socket: Socket) -> i32 {
    let Some(protocol) = socket.protocol() else { return PROCEED };
    let key = Reverse { cookie: socket.cookie(), backend: socket.endpoint() };
    // SAFETY: the value is copied at once; an LRU element may be given to another key meanwhile, whose socket is
    // another, so that at worst a name is wrong once.
    if let Some(original) = unsafe { reverse_map(protocol).get(&key) } {
        let destination = original.destination;
        socket.set_endpoint(&destination);
        count(Counter::Reversed);
    }
    PROCEED
}

#[inline(always)]
pub fn reverse_map(protocol: u32) -> &'static LruHashMap<Reverse, Original> {
    if protocol == TCP { &REVERSE_TCP } else { &REVERSE_UDP }
}

/// The index of the service at this destination.
#[inline(always)]
fn service_of(
    socket: Socket,
    destination: &Endpoint,
    protocol: u32,
    config: *const SocketConfig,
) -> Option<u32> {
    let address = destination.address;
    let mut frontend = Frontend { address, port: destination.port, protocol };
    // The unspecified address is the wildcard's key: to connect there means oneself, which is the node only on the node.
    let own = if address.is_unspecified() || address.is_loopback() {
        is_of_node(socket, config)
    } else {
        // SAFETY: user space never removes an element and inserts another in one pass.
        if let Some(index) = unsafe { FRONTENDS.get(&frontend) } {
            return Some(*index);
        }
        // SAFETY: only presence counts.
        unsafe { NODE_ADDRESSES.get(&address) }.is_some()
    };
    if !own {
        return None;
    }
    frontend.address = address.wildcard();
    // SAFETY: as above.
    unsafe { FRONTENDS.get(&frontend) }.copied()
}

#[inline(always)]
fn is_of_node(socket: Socket, config: *const SocketConfig) -> bool {
    // SAFETY: a live element of an array; user space stores whole words. The helper takes null for the initial netns.
    let node = unsafe {
        match read_volatile(&raw const (*config).node_netns) {
            0 => bpf_get_netns_cookie(core::ptr::null_mut()),
            cookie => cookie,
        }
    };
    socket.netns() == node
}

#[inline(always)]
fn choose(request: &Request, index: u32) -> Result<Endpoint, Counter> {
    let Some(service) = SERVICES.get_ptr(index) else { return Err(Counter::Refused) };
    for _ in 0..TRIES {
        // SAFETY: a live element of an array; user space stores whole words.
        let choice = Choice::from(unsafe { read_volatile(&raw const (*service).choice) });
        if choice.count == 0 {
            return Err(Counter::Refused);
        }
        if let Some(backend) = choose_from(request, index, service, choice) {
            return Ok(backend);
        }
    }
    Err(Counter::Torn)
}

/// `None`: the set is gone, read the service again.
#[inline(always)]
fn choose_from(request: &Request, index: u32, service: *const Service, choice: Choice) -> Option<Endpoint> {
    if request.at == At::Connect {
        return by_affinity(request, index, service, choice);
    }
    let flow = Flow { cookie: request.cookie, destination: request.destination };
    // SAFETY: copied at once, and checked to be a backend of this very set.
    if let Some(backend) = unsafe { FLOWS.get(&flow) }.copied().filter(|backend| is_member(backend, choice)) {
        return Some(backend);
    }
    let backend = by_affinity(request, index, service, choice)?;
    // Full: the next datagram chooses again, by the cookie and so alike.
    let _ = FLOWS.insert(&flow, &backend, u64::from(BPF_ANY));
    Some(backend)
}

#[inline(always)]
fn by_affinity(request: &Request, index: u32, service: *const Service, choice: Choice) -> Option<Endpoint> {
    // SAFETY: a live element of an array; user space stores whole words.
    let lasting_ns = unsafe { read_volatile(&raw const (*service).affinity_ns) };
    if lasting_ns == 0 {
        return draw(request, choice);
    }
    let client = Client { netns: request.socket.netns(), service: index, zero: 0 };
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let known = AFFINITY.get_ptr_mut(&client);
    if let Some(known) = known {
        // SAFETY: an LRU element may be given to another client meanwhile: what is read is checked to be a backend of
        // this very set, and the store of a time is harmless in any.
        let Affinity { last_ns, backend } = unsafe { *known };
        if now_ns.saturating_sub(last_ns) < lasting_ns && is_member(&backend, choice) {
            // SAFETY: as above.
            unsafe { (*known).last_ns = now_ns };
            count(Counter::Affine);
            return Some(backend);
        }
    }
    let backend = draw(request, choice)?;
    let entry = Affinity { last_ns: now_ns, backend };
    // Of several first connections at the same moment one decides; the others read its choice.
    let flags = if known.is_none() { BPF_NOEXIST } else { BPF_ANY };
    match AFFINITY.insert(&client, &entry, u64::from(flags)) {
        Err(EEXIST) => None,
        _ => Some(backend),
    }
}

const EEXIST: i32 = -17;

#[inline(always)]
fn is_member(backend: &Endpoint, choice: Choice) -> bool {
    // SAFETY: only presence counts.
    unsafe { MEMBERS.get(&Member::new(backend, choice.set)) }.is_some()
}

/// TCP: any. UDP: by the socket, so that it stays with one backend while the set stays.
#[inline(always)]
fn draw(request: &Request, choice: Choice) -> Option<Endpoint> {
    let number = if request.protocol == TCP {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    } else {
        request.cookie as u32
    };
    let slot = Slot { set: choice.set, slot: number.checked_rem(choice.count)? };
    // SAFETY: copied at once; `set` tells whether the memory has been given to another element.
    let member = unsafe { BACKENDS.get(&slot) }.copied()?;
    (member.set == choice.set).then_some(member.endpoint())
}

/// Notes what the socket asked for. False: there was no room.
#[inline(always)]
fn remember(request: &Request, backend: &Endpoint) -> bool {
    let key = Reverse { cookie: request.cookie, backend: *backend };
    let map = reverse_map(request.protocol);
    let mut connected = u32::from(request.at == At::Connect);
    // SAFETY: copied at once.
    if let Some(known) = unsafe { map.get(&key) }.copied() {
        if known.destination == request.destination && known.connected >= connected {
            return true;
        }
        connected |= known.connected;
    }
    let netns = request.socket.netns();
    let original = Original { netns, destination: request.destination, connected, zero: 0 };
    map.insert(&key, &original, u64::from(BPF_ANY)).is_ok()
}

/// A socket that connects straight to what was its backend by a service talks to that service no more.
#[inline(always)]
fn forget(socket: Socket, protocol: u32, destination: &Endpoint) {
    let key = Reverse { cookie: socket.cookie(), backend: *destination };
    let _ = reverse_map(protocol).remove(&key);
}

#[inline(always)]
fn reject(errno: i32) -> i32 {
    if HAVE_SET_RETVAL.load() != 0 {
        // SAFETY: a helper that keeps a number until the hook is over.
        unsafe { bpf_set_retval(-errno) };
    }
    REJECT
}
