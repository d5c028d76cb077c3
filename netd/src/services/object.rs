//! Service and EndpointSlice reduced to what a proxy reads of them: the objects of a large cluster stay small in
//! memory, and everything an object may say wrongly is sorted out here, by name.
//!
//! Reading follows kube-proxy: what it ignores is ignored, what validation in an apiserver would refuse (a file has
//! none) is refused with the reason and leaves the rest of the object in force.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A Service with this label belongs to another proxy.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// An Endpoints or EndpointSlice with this label belongs to a headless Service.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// The Service an EndpointSlice is of.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// DefaultClientIPServiceAffinitySeconds.
const AFFINITY_DEFAULT_S: u32 = 10_800;
/// MaxClientIPServiceAffinitySeconds: a day.
const AFFINITY_MAX_S: u32 = 86_400;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl ObjectName {
    /// Objects in files may leave the namespace out.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Absent: TCP.
    fn read(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// IPPROTO_*.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficPolicy {
    #[default]
    Cluster,
    Local,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: ObjectName,
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// The load balancer's addresses that the node itself answers for (`ipMode` VIP).
    pub load_balancer_ips: Vec<IpAddr>,
    /// Empty: anybody.
    pub source_ranges: Vec<IpNetwork>,
    pub ports: Vec<Port>,
    pub affinity_s: Option<u32>,
    pub internal: TrafficPolicy,
    pub external: TrafficPolicy,
    pub health_check_port: Option<u16>,
    pub publish_not_ready: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Empty when the Service has one port without a name.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub service: ObjectName,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<String>,
    pub zone_hints: Vec<String>,
    pub node_hints: Vec<String>,
}

/// Part of an object that is not in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    pub object: String,
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.why)
    }
}

/// Collects what is refused of one object.
struct Refusals<'a> {
    object: String,
    list: &'a mut Vec<Refusal>,
}

impl Refusals<'_> {
    fn add(&mut self, why: impl Into<String>) {
        self.list.push(Refusal { object: self.object.clone(), why: why.into() });
    }

    /// An address that packets may be sent to; ValidateNonSpecialIP of Kubernetes. Loopback and link-local addresses
    /// would let whoever writes an EndpointSlice reach what listens on the node for itself (CVE-2020-8558's target).
    fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let Ok(address) = text.parse::<IpAddr>() else {
            self.add(format!("{field} {text:?} is no IP address"));
            return None;
        };
        let special = address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || match address {
                IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
                IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
            };
        if special {
            self.add(format!(
                "{field} {address}: loopback, link-local, multicast and unspecified addresses are not allowed"
            ));
            return None;
        }
        Some(address)
    }

    fn addresses<'t>(&mut self, field: &str, texts: impl Iterator<Item = &'t String>) -> Vec<IpAddr> {
        let mut addresses: Vec<_> = texts.filter_map(|text| self.address(field, text)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn port(&mut self, field: &str, number: i32) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        if port.is_none() {
            self.add(format!("{field} {number} is no port"));
        }
        port
    }

    fn protocol(&mut self, field: &str, text: Option<&str>) -> Option<Protocol> {
        let protocol = Protocol::read(text);
        if protocol.is_none() {
            self.add(format!("{field} {:?} is none of TCP, UDP, SCTP", text.unwrap_or_default()));
        }
        protocol
    }

    fn policy(&mut self, field: &str, text: Option<&str>) -> TrafficPolicy {
        match text {
            None | Some("Cluster" | "") => TrafficPolicy::Cluster,
            Some("Local") => TrafficPolicy::Local,
            Some(other) => {
                self.add(format!("{field} {other:?} is neither Cluster nor Local; taken as Cluster"));
                TrafficPolicy::Cluster
            }
        }
    }
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

impl Service {
    /// `None`: nothing to proxy (headless, ExternalName, not allocated yet, or another proxy's).
    pub fn read(service: &core::Service, refusals: &mut Vec<Refusal>) -> Option<Self> {
        let name = ObjectName::of(&service.metadata);
        let spec = service.spec.as_ref()?;
        let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
        if kind == "ExternalName" || label(&service.metadata, PROXY_NAME_LABEL).is_some() {
            return None;
        }
        let cluster_ips = spec.cluster_ips.clone().filter(|ips| !ips.is_empty());
        let cluster_ips = cluster_ips.unwrap_or_else(|| spec.cluster_ip.iter().cloned().collect());
        if matches!(cluster_ips.first().map(String::as_str), None | Some("None" | "")) {
            return None;
        }
        let mut refusals = Refusals { object: format!("Service {name}"), list: refusals };
        if !is_label(&name.name) || !is_label(&name.namespace) {
            refusals.add("name and namespace must be DNS labels; the Service is not served");
            return None;
        }
        let balanced = kind == "LoadBalancer";
        let external = refusals.policy("externalTrafficPolicy", spec.external_traffic_policy.as_deref());
        let health_check = spec.health_check_node_port.filter(|p| *p != 0 && balanced);
        let service = Self {
            cluster_ips: refusals.addresses("clusterIP", cluster_ips.iter()),
            external_ips: refusals.addresses("externalIP", spec.external_ips.iter().flatten()),
            load_balancer_ips: if balanced { load_balancer_ips(service, &mut refusals) } else { Vec::new() },
            source_ranges: if balanced { source_ranges(spec, &mut refusals)? } else { Vec::new() },
            ports: ports(spec, kind, &mut refusals),
            affinity_s: affinity(spec, &mut refusals),
            internal: refusals.policy("internalTrafficPolicy", spec.internal_traffic_policy.as_deref()),
            external,
            health_check_port: health_check
                .filter(|_| external == TrafficPolicy::Local)
                .and_then(|port| refusals.port("healthCheckNodePort", port)),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            name,
        };
        Some(service)
    }
}

/// RFC 1123: up to 63 of a-z, 0-9 and `-`. Names go into chains and sets, which an apiserver's validation keeps short and
/// plain; a file has none.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn load_balancer_ips(service: &core::Service, refusals: &mut Refusals<'_>) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    // KEP-1860: with ipMode Proxy the balancer sends to the node's address; its own must not be short-cut.
    let own = ingress.filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
    refusals.addresses("load balancer ingress", own.filter_map(|entry| entry.ip.as_ref()))
}

/// `None`: a range could not be read. Leaving it out could open the Service to everybody, so the Service is refused.
fn source_ranges(spec: &core::ServiceSpec, refusals: &mut Refusals<'_>) -> Option<Vec<IpNetwork>> {
    let mut ranges = Vec::new();
    for text in spec.load_balancer_source_ranges.iter().flatten() {
        let Ok(range) = text.trim().parse::<IpNetwork>() else {
            refusals.add(format!("loadBalancerSourceRanges {text:?} is no CIDR; the Service is not served"));
            return None;
        };
        ranges.push(range);
    }
    ranges.sort_unstable();
    ranges.dedup();
    Some(ranges)
}

fn ports(spec: &core::ServiceSpec, kind: &str, refusals: &mut Refusals<'_>) -> Vec<Port> {
    let exposed = matches!(kind, "NodePort" | "LoadBalancer");
    let read = |port: &core::ServicePort| {
        let name = port.name.clone().unwrap_or_default();
        if !name.is_empty() && !is_label(&name) {
            refusals.add(format!("port name {name:?} is no DNS label; the port is not served"));
            return None;
        }
        let node_port = port.node_port.filter(|node_port| exposed && *node_port != 0);
        Some(Port {
            name,
            protocol: refusals.protocol("protocol", port.protocol.as_deref())?,
            port: refusals.port("port", port.port)?,
            node_port: node_port.and_then(|node_port| refusals.port("nodePort", node_port)),
        })
    };
    spec.ports.iter().flatten().filter_map(read).collect()
}

fn affinity(spec: &core::ServiceSpec, refusals: &mut Refusals<'_>) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("None" | "") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            refusals.add(format!("sessionAffinity {other:?} is neither None nor ClientIP; taken as None"));
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let Some(wanted) = config.and_then(|client_ip| client_ip.timeout_seconds) else {
        return Some(AFFINITY_DEFAULT_S);
    };
    let seconds = u32::try_from(wanted).ok().filter(|seconds| (1..=AFFINITY_MAX_S).contains(seconds));
    if seconds.is_none() {
        refusals.add(format!(
            "clientIP timeoutSeconds {wanted} is not 1 to {AFFINITY_MAX_S}; taken as {AFFINITY_DEFAULT_S}"
        ));
    }
    seconds.or(Some(AFFINITY_DEFAULT_S))
}

impl Slice {
    /// `None`: of no Service, of a headless one, or of names instead of addresses.
    pub fn read(slice: &discovery::EndpointSlice, refusals: &mut Vec<Refusal>) -> Option<Self> {
        let name = ObjectName::of(&slice.metadata);
        let service = label(&slice.metadata, SERVICE_NAME_LABEL)?.to_owned();
        if label(&slice.metadata, HEADLESS_LABEL).is_some() {
            return None;
        }
        let mut refusals = Refusals { object: format!("EndpointSlice {name}"), list: refusals };
        let ipv4 = match slice.address_type.as_str() {
            "IPv4" => true,
            "IPv6" => false,
            _ => return None,
        };
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some(SlicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: refusals.protocol("port's protocol", port.protocol.as_deref())?,
                port: refusals.port("port", port.port?)?,
            })
        });
        let ports = ports.collect();
        let endpoints = slice.endpoints.iter().flatten();
        let endpoints = endpoints.filter_map(|endpoint| Endpoint::read(endpoint, ipv4, &mut refusals));
        let endpoints = endpoints.collect();
        Some(Self { service: ObjectName { namespace: name.namespace, name: service }, ports, endpoints })
    }
}

impl Endpoint {
    /// "Consumers should use the first address": discovery/v1, Endpoint.addresses.
    fn read(endpoint: &discovery::Endpoint, ipv4: bool, refusals: &mut Refusals<'_>) -> Option<Self> {
        let address = refusals.address("endpoint", endpoint.addresses.first()?)?;
        if address.is_ipv4() != ipv4 {
            refusals.add(format!("endpoint {address} is not of the slice's addressType"));
            return None;
        }
        let conditions = endpoint.conditions.as_ref();
        let condition = |get: fn(&discovery::EndpointConditions) -> Option<bool>| conditions.and_then(get);
        // Unknown is to be read as ready; serving as ready; terminating as not (discovery/v1, EndpointConditions).
        let ready = condition(|c| c.ready).unwrap_or(true);
        let hints = endpoint.hints.as_ref();
        let zones = hints.and_then(|hints| hints.for_zones.as_ref()).into_iter().flatten();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).into_iter().flatten();
        Some(Self {
            address,
            ready,
            serving: condition(|c| c.serving).unwrap_or(ready),
            terminating: condition(|c| c.terminating).unwrap_or_default(),
            node: endpoint.node_name.clone(),
            zone_hints: zones.map(|zone| zone.name.clone()).collect(),
            node_hints: nodes.map(|node| node.name.clone()).collect(),
        })
    }
}
