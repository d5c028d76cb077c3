//! Cluster addresses and node ports of Services.
//!
//! What is taken is kept in memory, learned from the Services at the start: what they say is the truth, so there is no
//! second record that could differ from it. A reservation is made before the Service is written and falls back when it
//! is not. Source: kubernetes `pkg/registry/core/service/{storage/alloc.go,ipallocator,portallocator}`.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use corten_store::{List, Store, StoreError};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::super::fill::{Fields, has, int, items, made, text};
use super::super::validate::ip::{Network, parse_loose};
use super::super::validate::{At, Causes};
use super::{
    NONE, needs_cluster_ip, needs_health_port, needs_node_port, node_ports, same_field, spec_of, validate,
};
use crate::object::Object;
use crate::status::Cause;

/// What may be given.
#[derive(Debug, Clone)]
pub struct Ranges {
    /// One or two; the first is the default family's.
    pub clusters: Vec<Network>,
    pub node_ports: RangeInclusive<u16>,
}

/// Why nothing was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The Service asks for what cannot be.
    Invalid(Vec<Cause>),
    /// Nothing is left.
    Full(String),
}

pub struct Allocator {
    ranges: Ranges,
    taken: Mutex<Taken>,
}

/// The allocator of a server: made when it is first needed, from the Services that are there then.
pub struct Shared {
    pub ranges: Ranges,
    made: OnceCell<Allocator>,
}

#[derive(Default)]
struct Taken {
    addresses: HashSet<IpAddr>,
    ports: HashSet<u16>,
}

/// Reserved for a write; falls back unless it is kept.
#[must_use = "what is not kept is given back"]
pub struct Allocation<'a> {
    allocator: &'a Allocator,
    new: Vec<Thing>,
    /// What the version before had.
    old: Vec<Thing>,
    dry: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Address(IpAddr),
    Port(u16),
}

impl Default for Ranges {
    /// `--service-cluster-ip-range` and `--service-node-port-range` as kube-apiserver has them by default.
    fn default() -> Self {
        let cluster = Network { address: Ipv4Addr::new(10, 0, 0, 0).into(), bits: 24 };
        Self { clusters: vec![cluster], node_ports: 30000..=32767 }
    }
}

impl Shared {
    pub fn new(ranges: Ranges) -> Self {
        Self { ranges, made: OnceCell::new() }
    }

    /// `prefix`: where Services are.
    ///
    /// # Errors
    /// The store's.
    pub async fn get(&self, store: &dyn Store, prefix: &[u8]) -> Result<&Allocator, StoreError> {
        let make = || async {
            let page = store.list(List::new(prefix.to_vec())).await?;
            let services: Vec<Object> = page.kvs.iter().filter_map(|kv| Object::at_rest(kv).ok()).collect();
            Ok(Allocator::new(self.ranges.clone(), &services))
        };
        self.made.get_or_try_init(make).await
    }
}

impl Allocator {
    /// `services`: all there are, so that nothing of theirs is given again.
    pub fn new<'o>(ranges: Ranges, services: impl IntoIterator<Item = &'o Object>) -> Self {
        let mut taken = Taken::default();
        for thing in services.into_iter().flat_map(|service| of(&spec_of(service))) {
            taken.insert(thing);
        }
        Self { ranges, taken: Mutex::new(taken) }
    }

    /// Gives a Service what it needs, before it is validated and written. With `old` it is a new version of that.
    ///
    /// # Errors
    /// It asks for what is taken or impossible, or nothing is left. Nothing stays reserved then.
    pub fn allocate(
        &self,
        new: &mut Object,
        old: Option<&Object>,
        dry: bool,
    ) -> Result<Allocation<'_>, Refusal> {
        if let Some(old) = old {
            keep_given(new, &spec_of(old));
        }
        normalize(new, old);
        let before = old.map(spec_of);
        self.families(new, before.as_ref())?;
        let held = before.iter().flat_map(of).collect();
        let mut allocation = Allocation { allocator: self, new: Vec::new(), old: held, dry };
        self.addresses(new, before.as_ref(), &mut allocation)?;
        self.ports(new, before.as_ref(), &mut allocation)?;
        Ok(allocation)
    }

    /// Gives back what a Service had, when it is gone.
    pub fn release(&self, service: &Object) {
        let mut taken = self.taken();
        of(&spec_of(service)).into_iter().for_each(|thing| taken.remove(thing));
    }

    /// Learns of a Service that somebody else wrote.
    pub fn learn(&self, service: &Object) {
        let mut taken = self.taken();
        for thing in of(&spec_of(service)) {
            taken.insert(thing);
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn range(&self, family: &str) -> Option<Network> {
        self.ranges.clusters.iter().copied().find(|range| family_of(range.address) == family)
    }

    fn default_family(&self) -> &'static str {
        self.ranges.clusters.first().map_or("IPv4", |range| family_of(range.address))
    }

    /// Fills in the families: what was asked for, what the addresses are of, what the cluster has.
    fn families(&self, new: &mut Object, old: Option<&Fields>) -> Result<(), Refusal> {
        let spec = spec_of(new);
        if !needs_cluster_ip(&spec) || old.is_some_and(|old| is_kept_dual(&spec, old)) {
            return Ok(());
        }
        let bare = text(&spec, "clusterIP") == NONE
            && spec.get("selector").is_none_or(super::super::validate::is_empty);
        if !has(&spec, "ipFamilyPolicy") {
            let policy = match old.map(|old| text(old, "ipFamilyPolicy")) {
                Some(policy) if !policy.is_empty() => policy,
                _ if bare => "RequireDualStack",
                _ => "SingleStack",
            };
            made(&mut new.0, "spec").insert("ipFamilyPolicy".to_owned(), policy.into());
        }
        let mut out = Causes::new();
        validate::cluster_ips(new, &mut out);
        if !out.is_empty() {
            return Err(Refusal::Invalid(out));
        }
        let policy = text(&spec_of(new), "ipFamilyPolicy").to_owned();
        let single = policy == "SingleStack";
        if let Some(old) = old {
            shrink(new, old, single, &mut out);
        }
        let spec = spec_of(new);
        let (addresses, mut families) = (texts(&spec, "clusterIPs"), texts(&spec, "ipFamilies"));
        if single {
            let at = At::root(new).down(&["spec", "ipFamilyPolicy"]);
            for (count, what) in [(addresses.len(), "cluster IPs"), (families.len(), "IP families")] {
                if count == 2 {
                    at.invalid(format_args!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"), &mut out);
                }
            }
        }
        for (index, address) in addresses.iter().enumerate().take_while(|(_, address)| *address != NONE) {
            let Some(family) = parse_loose(address).map(family_of).filter(|_| index >= families.len()) else {
                continue;
            };
            if self.range(family).is_some() {
                families.push(family.to_owned());
            } else {
                let at = At::root(new).down(&["spec", "clusterIPs"]);
                at.shown_at(at.path().index(index))
                    .invalid(format_args!("{family} is not configured on this cluster"), &mut out);
            }
        }
        if !bare {
            if policy == "RequireDualStack" && self.ranges.clusters.len() < 2 {
                let at = At::root(new).down(&["spec", "ipFamilyPolicy"]);
                at.invalid("this cluster is not configured for dual-stack services", &mut out);
            }
            for (index, family) in
                families.iter().enumerate().filter(|(_, family)| self.range(family).is_none())
            {
                let at = At::root(new).down(&["spec", "ipFamilies"]);
                let at = at.shown_at(at.path().index(index));
                at.invalid_value(&family.as_str().into(), "not configured on this cluster", &mut out);
            }
        }
        if !out.is_empty() {
            return Err(Refusal::Invalid(out));
        }
        if families.is_empty() {
            families.push(self.default_family().to_owned());
        }
        if !single && families.len() == 1 && (bare || self.ranges.clusters.len() == 2) {
            families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
        }
        made(&mut new.0, "spec").insert("ipFamilies".to_owned(), json!(families));
        Ok(())
    }

    fn addresses(
        &self,
        new: &mut Object,
        old: Option<&Fields>,
        to: &mut Allocation<'_>,
    ) -> Result<(), Refusal> {
        let spec = spec_of(new);
        let mut addresses = texts(&spec, "clusterIPs");
        if !needs_cluster_ip(&spec) || addresses.first().is_some_and(|first| first == NONE) {
            return Ok(());
        }
        let before =
            old.filter(|old| needs_cluster_ip(old)).map(|old| texts(old, "clusterIPs")).unwrap_or_default();
        if before.first().is_some_and(|first| first == NONE) {
            return Ok(());
        }
        let shown = spec.get("clusterIPs").cloned().unwrap_or(Value::Null);
        for (index, family) in texts(&spec, "ipFamilies").iter().enumerate() {
            if index < before.len() {
                continue;
            }
            let Some(range) = self.range(family) else { continue };
            let asked = addresses.get(index).cloned().unwrap_or_default();
            let address = if asked.is_empty() {
                let why = || {
                    format!("failed to allocate a serviceIP for Service \"{}\": range is full", new.name())
                };
                next_address(range, to).ok_or_else(|| Refusal::Full(why()))?
            } else {
                this_address(&asked, range, to).map_err(|why| {
                    let detail = format!("failed to allocate IP {asked}: {why}");
                    Refusal::Invalid(vec![Cause::invalid("spec.clusterIPs", &shown, detail)])
                })?
            };
            let address = if asked.is_empty() { address.to_string() } else { asked };
            match addresses.get_mut(index) {
                Some(at) => *at = address,
                None => addresses.push(address),
            }
        }
        let spec = made(&mut new.0, "spec");
        if let Some(first) = addresses.first() {
            spec.insert("clusterIP".to_owned(), first.as_str().into());
        }
        spec.insert("clusterIPs".to_owned(), json!(addresses));
        Ok(())
    }

    fn this_port(&self, port: i64, to: &mut Allocation<'_>) -> Result<(), String> {
        let range = &self.ranges.node_ports;
        // A dry run looks at no range, upstream as well.
        let Some(port) = as_port(port).filter(|port| to.dry || range.contains(port)) else {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            ));
        };
        if to.take(Thing::Port(port)) { Ok(()) } else { Err("provided port is already allocated".to_owned()) }
    }

    fn ports(&self, new: &mut Object, old: Option<&Fields>, to: &mut Allocation<'_>) -> Result<(), Refusal> {
        let spec = spec_of(new);
        let mut held: Vec<u16> = old.into_iter().flat_map(node_ports).filter_map(as_port).collect();
        if needs_node_port(&spec) || matches!(text(&spec, "type"), "NodePort" | "LoadBalancer") {
            let allocate = needs_node_port(&spec);
            let asked: Vec<(i64, i64)> = list(&spec, "ports")
                .map(|port| (port["port"].as_i64().unwrap_or(0), port["nodePort"].as_i64().unwrap_or(0)))
                .collect();
            let mut by_port: Vec<(i64, i64)> = Vec::new();
            for (index, port) in items(made(&mut new.0, "spec"), "ports").enumerate() {
                let (number, mut node) = (int(port, "port"), int(port, "nodePort"));
                if node == 0 && !allocate {
                    continue;
                }
                if node == 0 {
                    // The same port over another protocol has the same number.
                    let other =
                        by_port.iter().chain(&asked).find(|(other, node)| *other == number && *node != 0);
                    node = if old.is_none() { other.map_or(0, |(_, node)| *node) } else { 0 };
                }
                if node == 0 {
                    node = self
                        .next_port(to)
                        .ok_or_else(|| {
                            Refusal::Full("failed to allocate a nodePort: range is full".to_owned())
                        })?
                        .into();
                } else if !by_port
                    .iter()
                    .any(|(port, other)| *other == node && (old.is_some() || *port == number))
                    && !as_port(node).is_some_and(|node| held.contains(&node))
                {
                    self.this_port(node, to).map_err(|why| {
                        let field = format!("spec.ports[{index}].nodePort");
                        Refusal::Invalid(vec![Cause::invalid(field, &node.into(), why)])
                    })?;
                }
                port.insert("nodePort".to_owned(), node.into());
                by_port.push((number, node));
            }
        }
        held.clear();
        self.health_port(new, old, to)
    }

    fn health_port(
        &self,
        new: &mut Object,
        old: Option<&Fields>,
        to: &mut Allocation<'_>,
    ) -> Result<(), Refusal> {
        let spec = spec_of(new);
        if !needs_health_port(&spec) || old.is_some_and(needs_health_port) {
            return Ok(());
        }
        let asked = int(&spec, "healthCheckNodePort");
        if asked != 0 {
            return self.this_port(asked, to).map_err(|why| {
                Refusal::Full(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}"))
            });
        }
        let why = || Refusal::Full("failed to allocate a HealthCheck NodePort 0: range is full".to_owned());
        let port = self.next_port(to).ok_or_else(why)?;
        made(&mut new.0, "spec").insert("healthCheckNodePort".to_owned(), port.into());
        Ok(())
    }

    fn next_port(&self, to: &mut Allocation<'_>) -> Option<u16> {
        let (first, last) =
            (u64::from(*self.ranges.node_ports.start()), u64::from(*self.ranges.node_ports.end()));
        let (size, random) = (last - first + 1, random());
        let ports = (0..size).filter_map(|step| u16::try_from(first + random.wrapping_add(step) % size).ok());
        let mut ports = ports;
        ports.find(|port| to.take(Thing::Port(*port)))
    }
}

impl Allocation<'_> {
    /// The Service is written: what it has is its own, what it had and has no more is free.
    pub fn keep(mut self, written: &Object) {
        self.new.clear();
        if self.dry {
            return;
        }
        let now = of(&spec_of(written));
        let mut taken = self.allocator.taken();
        self.old.drain(..).filter(|thing| !now.contains(thing)).for_each(|thing| taken.remove(thing));
    }

    /// False: somebody has it.
    fn take(&mut self, thing: Thing) -> bool {
        if self.new.contains(&thing) {
            return false;
        }
        let mut taken = self.allocator.taken();
        let is_free = if self.dry { !taken.contains(thing) } else { taken.insert(thing) };
        if is_free {
            self.new.push(thing);
        }
        is_free
    }
}

impl Drop for Allocation<'_> {
    fn drop(&mut self) {
        if !self.dry && !self.new.is_empty() {
            let mut taken = self.allocator.taken();
            self.new.drain(..).for_each(|thing| taken.remove(thing));
        }
    }
}

impl Taken {
    fn contains(&self, thing: Thing) -> bool {
        match thing {
            Thing::Address(address) => self.addresses.contains(&address),
            Thing::Port(port) => self.ports.contains(&port),
        }
    }

    /// False: it was there.
    fn insert(&mut self, thing: Thing) -> bool {
        match thing {
            Thing::Address(address) => self.addresses.insert(address),
            Thing::Port(port) => self.ports.insert(port),
        }
    }

    fn remove(&mut self, thing: Thing) {
        match thing {
            Thing::Address(address) => self.addresses.remove(&address),
            Thing::Port(port) => self.ports.remove(&port),
        };
    }
}

/// What a Service has.
fn of(spec: &Fields) -> Vec<Thing> {
    let addresses = texts(spec, "clusterIPs");
    let addresses = addresses.iter().map(String::as_str).chain([text(spec, "clusterIP")]);
    let addresses = addresses.filter(|_| needs_cluster_ip(spec)).filter_map(parse_loose).map(Thing::Address);
    let ports = node_ports(spec).into_iter().chain([int(spec, "healthCheckNodePort")]);
    let mut things: Vec<Thing> = addresses.collect();
    things.extend(ports.filter(|port| *port != 0).filter_map(as_port).map(Thing::Port));
    things
}

/// A new version that leaves out what was given keeps it.
fn keep_given(new: &mut Object, old: &Fields) {
    let spec = made(&mut new.0, "spec");
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        for field in ["clusterIP", "clusterIPs"] {
            if spec.get(field).is_none_or(super::super::validate::is_empty)
                && let Some(value) = old.get(field)
            {
                spec.insert(field.to_owned(), value.clone());
            }
        }
    }
    if needs_node_port(old) && needs_node_port(spec) {
        let now = node_ports(spec);
        let used: Vec<i64> =
            node_ports(old).into_iter().filter(|port| *port != 0 && now.contains(port)).collect();
        for port in items(spec, "ports").filter(|port| int(port, "nodePort") == 0) {
            let name = text(port, "name").to_owned();
            let before = list(old, "ports").find(|old| old["name"].as_str().unwrap_or_default() == name);
            let number = before.and_then(|old| old["nodePort"].as_i64()).unwrap_or(0);
            if number != 0 && !used.contains(&number) {
                port.insert("nodePort".to_owned(), number.into());
            }
        }
    }
    if needs_health_port(old) && needs_health_port(spec) && int(spec, "healthCheckNodePort") == 0 {
        spec.insert("healthCheckNodePort".to_owned(), int(old, "healthCheckNodePort").into());
    }
}

/// `clusterIP` and `clusterIPs` say the same, whichever was written.
fn normalize(new: &mut Object, old: Option<&Object>) {
    let before = old.map(spec_of);
    let spec = made(&mut new.0, "spec");
    let one = text(spec, "clusterIP").to_owned();
    let Some(before) = before else {
        if !one.is_empty() && texts(spec, "clusterIPs").is_empty() {
            spec.insert("clusterIPs".to_owned(), json!([one]));
        }
        return;
    };
    let unchanged = same_field(spec, &before, "clusterIPs");
    let one_before = text(&before, "clusterIP").to_owned();
    if one_before == one {
        if texts(spec, "clusterIPs").is_empty()
            && let Some(list) = before.get("clusterIPs")
        {
            spec.insert("clusterIPs".to_owned(), list.clone());
        }
    } else if unchanged {
        if one.is_empty() {
            spec.remove("clusterIPs");
        } else {
            spec.insert("clusterIPs".to_owned(), json!([one]));
        }
    }
}

/// Dual stack where it can be had, and nothing changes.
fn is_kept_dual(spec: &Fields, old: &Fields) -> bool {
    text(spec, "ipFamilyPolicy") == "PreferDualStack"
        && matches!(text(old, "ipFamilyPolicy"), "PreferDualStack" | "")
        && text(spec, "type") == text(old, "type")
        && needs_cluster_ip(spec)
        && same_field(spec, old, "clusterIPs")
        && same_field(spec, old, "ipFamilies")
}

fn list<'f>(fields: &'f Fields, name: &str) -> impl Iterator<Item = &'f Value> {
    fields.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn texts(fields: &Fields, name: &str) -> Vec<String> {
    list(fields, name).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn as_port(port: i64) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// The first that may be given, and how many there are. At most 2^64 of a network are used.
fn addresses_of(range: Network) -> (IpAddr, u128) {
    let most = if range.address.is_ipv4() { 32 } else { 128 };
    let size = 1_u128 << u32::from(most - range.bits).min(64);
    let without = if range.address.is_ipv4() { 2 } else { 1 };
    (add(range.first(), 1), size.saturating_sub(without).max(1))
}

fn is_edge(address: IpAddr, range: Network) -> bool {
    let (first, size) = addresses_of(range);
    address == range.first() || address.is_ipv4() && address == add(first, size)
}

fn add(address: IpAddr, offset: u128) -> IpAddr {
    match address {
        IpAddr::V4(four) => {
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            Ipv4Addr::from(u32::from(four).wrapping_add(offset)).into()
        }
        IpAddr::V6(six) => Ipv6Addr::from(u128::from(six).wrapping_add(offset)).into(),
    }
}

/// A Service that becomes single stack loses the second address by itself; otherwise none may go.
fn shrink(new: &mut Object, old: &Fields, single: bool, out: &mut Causes) {
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let spec = made(&mut new.0, "spec");
        if single {
            if same_field(spec, old, field)
                && let Some(list) = spec.get_mut(field).and_then(Value::as_array_mut)
            {
                list.truncate(1);
            }
            continue;
        }
        let count = texts(spec, field).len();
        if count > 0 && count < texts(old, field).len() {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            At::root(new).down(&["spec", "ipFamilyPolicy"]).invalid(detail, out);
        }
    }
}

fn this_address(text: &str, range: Network, to: &mut Allocation<'_>) -> Result<IpAddr, String> {
    let address = parse_loose(text).ok_or_else(|| format!("failed to parse service IP \"{text}\""))?;
    if !range.contains(address) || is_edge(address, range) {
        return Err(format!(
            "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
        ));
    }
    if !to.take(Thing::Address(address)) {
        return Err("provided IP is already allocated".to_owned());
    }
    Ok(address)
}

/// Any that is free: of the upper part first, as upstream does to keep the lower one for those who ask by name.
fn next_address(range: Network, to: &mut Allocation<'_>) -> Option<IpAddr> {
    let (first, size) = addresses_of(range);
    let lower = (size / 16).clamp(16, 256).min(size.saturating_sub(1));
    let (upper, random) = (size - lower, u128::from(random()));
    let in_upper = (0..upper).map(|step| lower + (random.wrapping_add(step)) % upper.max(1));
    let offsets =
        in_upper.take(1 << 20).chain((0..lower).map(|step| (random.wrapping_add(step)) % lower.max(1)));
    offsets.map(|offset| add(first, offset)).find(|address| to.take(Thing::Address(*address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        let clusters = ["10.96.0.0/28", "fd00::/112"].map(|text| Network::parse(text).expect("a network"));
        Ranges { clusters: clusters.to_vec(), node_ports: 30000..=30003 }
    }

    fn service(spec: Value) -> Object {
        let mut object = Object::of(json!({"metadata": {"name": "a"}, "spec": spec})).expect("an object");
        (super::super::KIND.default)(&mut object);
        object
    }

    #[test]
    fn two_services_never_have_the_same_address() {
        let allocator = Allocator::new(ranges(), []);
        let mut seen = HashSet::new();
        for _ in 0..14 {
            let mut one = service(json!({"ports": [{"port": 80}]}));
            let given = allocator.allocate(&mut one, None, false).expect("an address");
            given.keep(&one);
            let address = one.text(&["spec", "clusterIP"]).to_owned();
            assert!(ranges().clusters[0].contains(address.parse().expect("an address")));
            assert!(seen.insert(address));
        }
        let mut more = service(json!({"ports": [{"port": 80}]}));
        let refused = allocator.allocate(&mut more, None, false).err();
        assert!(matches!(refused, Some(Refusal::Full(_))), "{refused:?}");
    }

    #[test]
    fn what_was_not_written_is_free_again() {
        let allocator = Allocator::new(ranges(), []);
        let mut one = service(
            json!({"clusterIP": "10.96.0.5", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30000}]}),
        );
        drop(allocator.allocate(&mut one, None, false).expect("free"));
        let mut dry = one.clone();
        let given = allocator.allocate(&mut dry, None, true).expect("free");
        given.keep(&dry);
        let given = allocator.allocate(&mut one, None, false).expect("still free");
        given.keep(&one);
        let mut two = service(json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}));
        assert!(allocator.allocate(&mut two, None, false).is_err());
        allocator.release(&one);
        let given = allocator.allocate(&mut two, None, false).expect("free again");
        given.keep(&two);
    }

    #[test]
    fn a_restart_knows_what_is_taken() {
        let taken = service(
            json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}),
        );
        let allocator = Allocator::new(ranges(), [&taken]);
        let mut other = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
        let Err(Refusal::Invalid(causes)) = allocator.allocate(&mut other, None, false) else {
            panic!("the port is taken")
        };
        assert_eq!(
            causes[0].to_string(),
            "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"
        );
    }

    #[test]
    fn dual_stack_and_headless_services_have_what_upstream_gives_them() {
        let allocator = Allocator::new(ranges(), []);
        let given = |spec: Value| {
            let mut one = service(spec);
            let given = allocator.allocate(&mut one, None, false).expect("free");
            given.keep(&one);
            one
        };
        let dual = given(json!({"ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}]}));
        assert_eq!(dual.get(&["spec", "ipFamilies"]), Some(&json!(["IPv4", "IPv6"])));
        assert_eq!(texts(&spec_of(&dual), "clusterIPs").len(), 2);
        let headless = given(json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]}));
        assert_eq!(headless.get(&["spec", "clusterIPs"]), Some(&json!(["None"])));
        assert_eq!(headless.get(&["spec", "ipFamilyPolicy"]), Some(&json!("SingleStack")));
        let bare = given(json!({"clusterIP": "None", "ports": [{"port": 80}]}));
        assert_eq!(bare.get(&["spec", "ipFamilyPolicy"]), Some(&json!("RequireDualStack")));
        let named = given(json!({"type": "ExternalName", "externalName": "a.b"}));
        assert_eq!(named.get(&["spec", "clusterIP"]), None);
    }

    #[test]
    fn a_new_version_keeps_what_was_given_and_gives_back_what_it_loses() {
        let allocator = Allocator::new(ranges(), []);
        let mut old = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
        let given = allocator.allocate(&mut old, None, false).expect("free");
        given.keep(&old);
        let node = old.get(&["spec", "ports"]).expect("ports")[0]["nodePort"].clone();
        let mut new = service(json!({"type": "NodePort", "ports": [{"port": 81}]}));
        let given = allocator.allocate(&mut new, Some(&old), false).expect("kept");
        given.keep(&new);
        assert_eq!(new.text(&["spec", "clusterIP"]), old.text(&["spec", "clusterIP"]));
        assert_eq!(new.get(&["spec", "ports"]).expect("ports")[0]["nodePort"], node);
        let mut named = service(json!({"type": "ExternalName", "externalName": "a.b"}));
        let given = allocator.allocate(&mut named, Some(&new), false).expect("nothing");
        given.keep(&named);
        let mut again = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": node}]}));
        let given = allocator.allocate(&mut again, None, false).expect("given back");
        given.keep(&again);
    }
}
