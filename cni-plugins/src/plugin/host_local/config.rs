//! host-local's part of the configuration: ranges, data directory, requested addresses.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::range::{RangeSet, RawRange};
use crate::Result;
use crate::error::Error;
use crate::skel::{Attachment, Network};
use crate::types::{Route, Version};

const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

#[derive(Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub resolv_conf: Option<PathBuf>,
    pub ranges: Vec<RangeSet>,
    pub routes: Vec<Route>,
    pub requested: Vec<IpAddr>,
}

/// All that releasing needs: DEL must work for a configuration whose ranges have become wrong.
#[derive(Debug)]
pub struct DataDir(pub PathBuf);

#[derive(Deserialize)]
struct Raw {
    ipam: Option<RawIpam>,
    #[serde(default, rename = "runtimeConfig")]
    runtime_config: RuntimeConfig,
    #[serde(default)]
    args: RawArgs,
}

#[derive(Deserialize)]
struct RawIpam {
    /// The oldest form: one range without a list.
    #[serde(flatten)]
    range: RawRange,
    #[serde(default)]
    ranges: Vec<Vec<RawRange>>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(rename = "dataDir", default)]
    data_dir: String,
    #[serde(rename = "resolvConf", default)]
    resolv_conf: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    #[serde(rename = "ipRanges")]
    ip_ranges: Vec<Vec<RawRange>>,
    ips: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawCniArgs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCniArgs {
    ips: Vec<String>,
}

impl Config {
    /// With the addresses this attachment asks for.
    pub fn load(network: &Network, attachment: &Attachment) -> Result<Self> {
        let mut config = Self::of_network(network)?;
        if let Some(text) = attachment.args.ip.as_deref().filter(|text| !text.is_empty()) {
            config.requested.insert(0, parse_requested("CNI_ARGS IP", text)?);
        }
        config.requested.sort();
        config.requested.dedup();
        Ok(config)
    }

    pub fn of_network(network: &Network) -> Result<Self> {
        let raw: Raw = network.parse()?;
        let Some(ipam) = raw.ipam else { return Err(Error::config("IPAM config missing 'ipam' key")) };
        let single = (!ipam.range.subnet.is_empty()).then(|| vec![ipam.range]);
        let raw_sets = raw.runtime_config.ip_ranges.into_iter().chain(single).chain(ipam.ranges);
        let ranges = raw_sets
            .enumerate()
            .map(|(index, set)| {
                RangeSet::new(&set).map_err(|e| Error::config(format!("invalid range set {index}: {e}")))
            })
            .collect::<Result<Vec<_>>>()?;
        check(&ranges, network.version)?;
        let args = raw.args.cni.ips.iter().map(|text| parse_requested("args.cni.ips", text));
        let runtime = raw.runtime_config.ips.iter().map(|text| parse_requested("runtimeConfig.ips", text));
        Ok(Self {
            data_dir: data_dir(&ipam.data_dir),
            resolv_conf: (!ipam.resolv_conf.is_empty()).then(|| ipam.resolv_conf.into()),
            ranges,
            routes: ipam.routes,
            requested: args.chain(runtime).collect::<Result<_>>()?,
        })
    }
}

impl DataDir {
    pub fn of(network: &Network) -> Self {
        let directory = network.config.get("ipam").and_then(|ipam| ipam.get("dataDir"));
        Self(data_dir(directory.and_then(|d| d.as_str()).unwrap_or_default()))
    }
}

fn data_dir(text: &str) -> PathBuf {
    if text.is_empty() { DEFAULT_DATA_DIR.into() } else { text.into() }
}

fn check(ranges: &[RangeSet], version: Version) -> Result<()> {
    if ranges.is_empty() {
        return Err(Error::config("no IP ranges specified"));
    }
    let ipv4 = ranges.iter().filter(|set| set.is_ipv4()).count();
    if version < Version::V0_3_0 && (ipv4 > 1 || ranges.len() - ipv4 > 1) {
        let text = format!("CNI version {} does not support more than 1 address per family", version.text());
        return Err(Error::config(text));
    }
    for (index, set) in ranges.iter().enumerate() {
        if let Some(other) = ranges[index + 1..].iter().position(|other| set.overlaps(other)) {
            return Err(Error::config(format!("range set {index} overlaps with {}", index + 1 + other)));
        }
    }
    Ok(())
}

/// With or without a prefix length.
fn parse_requested(source: &str, text: &str) -> Result<IpAddr> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    let parsed: std::result::Result<IpAddr, _> = address.parse();
    parsed
        .map(|ip| ip.to_canonical())
        .map_err(|_| Error::config(format!("{source}: {text:?} is not an address")))
}
