//! Makes the changes of a plan, and reads what is.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use corten_ebpf::datapath::{Config, Datapath, DatapathError, Hook, SlowEnd, state};
use corten_netlink::{Cidr, NetlinkError, Socket, conntrack};

use super::plan::Change;
use super::tables::Tables;

/// What maps hold and which links have programs.
pub fn actual(datapath: &Datapath) -> Result<Tables, DatapathError> {
    let attached = datapath.attached()?;
    let links = |hook: Hook| attached.iter().filter(|a| a.hook == hook).map(|a| a.ifindex).collect();
    Ok(Tables {
        config: datapath.config()?,
        endpoints: datapath.endpoints()?,
        nodes: datapath.nodes()?,
        live: datapath.live()?,
        pods: links(Hook::FromPod),
        nics: links(Hook::FromNic),
    })
}

/// Makes the changes. What fails is told and does not keep the rest from being done; what depends on it is left out.
/// Links that went since they were seen are no failure: the notification of that brings the next pass.
pub fn apply(
    datapath: &mut Datapath,
    mut netfilter: Option<&mut Socket>,
    desired: &Config,
    changes: &[Change],
) -> Vec<String> {
    let mut errors = Vec::new();
    let mut without_program = BTreeSet::new();
    let mut seeded = true;
    for change in changes {
        let done = match change {
            Change::RemoveEndpoint(ip) => datapath.remove_endpoint(*ip),
            Change::RemoveNode(cidr) => datapath.remove_node(*cidr),
            Change::Detach(hook, link) => datapath.detach(*hook, *link),
            Change::Attach(hook, link) => datapath.attach(*hook, *link).inspect_err(|_| {
                without_program.insert(*link);
            }),
            Change::Seed => {
                match observe(datapath, desired).map(|()| seed(datapath, netfilter.as_deref_mut())) {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => {
                        seeded = false;
                        errors.push(format!("which flows conntrack translates is not known: {error}"));
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Change::PutNode(_, node) if without_program.contains(&node.ifindex) => Ok(()),
            Change::PutNode(cidr, node) => datapath.insert_node(*cidr, node),
            Change::PutEndpoint(_, endpoint) if !seeded || without_program.contains(&endpoint.ifindex) => {
                Ok(())
            }
            Change::PutEndpoint(ip, endpoint) => datapath.insert_endpoint(*ip, endpoint),
            Change::Configure(config) if seeded => datapath.set_config(config),
            Change::Configure(_) => Ok(()),
        };
        match done {
            Ok(()) | Err(DatapathError::NoInterface { .. } | DatapathError::Live { .. }) => {}
            Err(error) => errors.push(error.to_string()),
        }
    }
    errors
}

/// What conntrack remembers of TCP between pods, from before the fast path took it, is wrong by now: it would find the
/// packets that come back to it invalid, which kube-proxy has rules to drop. Without an entry a flow is taken up where
/// it is (net.netfilter.nf_conntrack_tcp_loose).
pub fn forget(netfilter: &mut Socket, networks: &[Cidr]) -> Result<(), NetlinkError> {
    let is_pod = |end: SocketAddr| networks.iter().any(|network| network.contains(end.ip()));
    for ipv4 in [true, false] {
        let mut flows = conntrack::tcp_flows(netfilter, ipv4)?;
        flows.retain(|flow| {
            is_pod(flow.original.source) && is_pod(flow.original.destination) && !flow.is_translated()
        });
        conntrack::delete(netfilter, &flows)?;
    }
    Ok(())
}

/// Before they are switched on, the programs record what starts while conntrack is read.
fn observe(datapath: &mut Datapath, desired: &Config) -> Result<(), DatapathError> {
    if datapath.config()?.state == state::ON {
        return Ok(());
    }
    datapath.set_config(&Config { state: state::OBSERVE, ..*desired })
}

#[derive(Debug, thiserror::Error)]
enum SeedError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

/// Flows that were there before the programs saw them start.
fn seed(datapath: &mut Datapath, netfilter: Option<&mut Socket>) -> Result<(), SeedError> {
    let Some(netfilter) = netfilter else { return Ok(()) };
    for ipv4 in [true, false] {
        for origin in conntrack::translated(netfilter, ipv4)? {
            let end = SlowEnd { ip: origin.address, port: origin.port, protocol: origin.protocol };
            datapath.insert_slow(end)?;
        }
    }
    Ok(())
}
