//! The container's side: the end of the veth in its network namespace.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use corten_netlink::route::{IPV4_DEVCONF_ARP_NOTIFY, Link, LinkChange, Route, encode};
use corten_netlink::{Message, Protocol, Socket};
use corten_sys::netns::NetNs;
use nix::errno::Errno;

use super::config::Config;
use crate::Result;
use crate::error::Error;
use crate::sysctl;
use crate::types::CniResult;

/// Duplicate address detection takes a second or two.
const DAD_DEADLINE: Duration = Duration::from_secs(5);

/// A namespace in which the interface is being made, and a socket of it.
pub struct Container<'a> {
    netns: &'a NetNs,
    ifname: &'a str,
    socket: Socket,
    link_is_ours: bool,
}

impl<'a> Container<'a> {
    /// Refuses when the namespace has an interface of that name: before anything is made that this would undo.
    pub fn enter(netns: &'a NetNs, ifname: &'a str) -> Result<Self> {
        let socket = netns.run(|| Socket::open(Protocol::Route))??;
        let mut container = Self { netns, ifname, socket, link_is_ours: false };
        container.refuse_existing()?;
        Ok(container)
    }

    pub fn netns(&self) -> &'a NetNs {
        self.netns
    }

    pub fn ifname(&self) -> &'a str {
        self.ifname
    }

    pub fn refuse_existing(&mut self) -> Result<()> {
        if self.socket.link(self.ifname)?.is_some() {
            let path = self.netns.path().display();
            return Err(Error::internal(format!("interface {:?} already exists in {path}", self.ifname))
                .details(
                    "the container was added before (DEL first), or another plugin of the chain made it",
                ));
        }
        Ok(())
    }

    pub fn now_has_our_link(&mut self) {
        self.link_is_ours = true;
    }

    /// Undoes the veth; both ends go.
    pub fn remove_link(&mut self) -> Result<()> {
        if self.link_is_ours { remove(&mut self.socket, self.ifname) } else { Ok(()) }
    }

    /// Settings, addresses, up, routes.
    pub fn configure(&mut self, config: &Config, result: &CniResult) -> Result<Link> {
        let link = self.socket.link(self.ifname)?;
        let link = link.ok_or_else(|| Error::internal(format!("interface {:?} vanished", self.ifname)))?;
        if config.disable_container_interface {
            return Ok(link);
        }
        let ipv6 = result.ips.iter().any(|ip| !ip.address.is_ipv4());
        self.netns.run(|| write_sysctls(self.ifname, config.enable_dad, ipv6))??;
        let notify = LinkChange { ipv4_conf: vec![(IPV4_DEVCONF_ARP_NOTIFY, 1)], ..LinkChange::default() };
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let mut requests = Vec::new();
        if config.ipam.is_some() {
            requests.push(encode::set_link(link.index, &notify));
        }
        requests.extend(result.ips.iter().map(|ip| encode::add_address(link.index, ip.address)));
        requests.push(encode::set_link(link.index, &up));
        let routes = route_requests(result, link.index);
        if result.ips.iter().any(|ip| ip.gateway.is_some_and(|g| g.is_ipv6())) {
            // Linux takes no route over a gateway whose address is still being checked for duplicates.
            self.socket.transact(requests)?;
            self.wait_for_addresses(link.index)?;
            self.socket.transact(routes)?;
        } else {
            requests.extend(routes);
            self.socket.transact(requests)?;
        }
        Ok(link)
    }

    fn wait_for_addresses(&mut self, index: u32) -> Result<()> {
        let deadline = Instant::now() + DAD_DEADLINE;
        let mut pause = Duration::from_micros(200);
        loop {
            let addresses = self.socket.addresses(index)?;
            let addresses: Vec<_> = addresses.iter().filter(|a| !a.cidr.is_ipv4() && a.scope == 0).collect();
            if let Some(duplicate) = addresses.iter().find(|a| a.duplicate()) {
                let text =
                    format!("IPv6 address {} is in use by another host of the network", duplicate.cidr);
                return Err(Error::internal(text));
            }
            if !addresses.iter().any(|a| a.tentative()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::internal("IPv6 addresses did not settle within 5 s"));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// A route without a gateway goes by the first address's of its family, as upstream.
fn route_requests(result: &CniResult, link: u32) -> Vec<Message> {
    let gateway_of = |ipv4: bool| -> Option<IpAddr> {
        result.ips.iter().filter_map(|ip| ip.gateway).find(|gateway| gateway.is_ipv4() == ipv4)
    };
    let request = |route: &crate::types::Route| {
        encode::add_route(&Route {
            gateway: route.gw.or_else(|| gateway_of(route.dst.is_ipv4())),
            link: Some(link),
            table: route.table,
            scope: route.scope.unwrap_or_default(),
            priority: route.priority.unwrap_or_default(),
            mtu: route.mtu,
            advmss: route.advmss,
            ..Route::to(route.dst)
        })
    };
    result.routes.iter().map(request).collect()
}

/// Inside the namespace.
fn write_sysctls(ifname: &str, enable_dad: bool, ipv6: bool) -> Result<()> {
    let conf = format!("net/ipv6/conf/{ifname}");
    if enable_dad {
        sysctl::try_set(&format!("{conf}/enhanced_dad"), "1");
    }
    sysctl::try_set(&format!("{conf}/accept_dad"), if enable_dad { "1" } else { "0" });
    if ipv6 {
        sysctl::set("net/ipv6/conf/lo/disable_ipv6", "0")?;
        sysctl::set(&format!("{conf}/disable_ipv6"), "0")?;
        sysctl::set(&format!("{conf}/keep_addr_on_down"), "1")?;
    }
    Ok(())
}

/// DEL: no such interface is no error.
pub fn delete_link(netns: &NetNs, ifname: &str) -> Result<()> {
    let mut socket = netns.run(|| Socket::open(Protocol::Route))??;
    remove(&mut socket, ifname)
}

fn remove(socket: &mut Socket, ifname: &str) -> Result<()> {
    let Some(link) = socket.link(ifname)? else { return Ok(()) };
    match socket.transact(vec![encode::delete_link(link.index)]) {
        Err(error) if !error.is(Errno::ENODEV) => Err(error.into()),
        _ => Ok(()),
    }
}
