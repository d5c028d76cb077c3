//! The MAC of a tunnel device: part of what the other nodes are told, so it is chosen first and kept.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use corten_netlink::route::Mac;

use super::actual::Host;
use super::desired::Family;
use super::error::OverlayError;

const RANDOM: &str = "/dev/urandom";

/// What the source remembers (the others know that), what the device has, or a new one. `None` without a device.
pub fn choose(
    host: &Host,
    remembered: Option<Mac>,
    devices: &[(Family, String)],
    family: Family,
) -> Result<Option<Mac>, OverlayError> {
    let Some((_, name)) = devices.iter().find(|(of, _)| *of == family) else { return Ok(None) };
    let there = || host.link(name).filter(|link| link.vxlan.is_some())?.mac;
    match remembered.filter(|mac| is_usable(*mac)).or_else(there) {
        Some(mac) => Ok(Some(mac)),
        None => random().map(Some),
    }
}

/// Of one device: neither a group nor nothing.
fn is_usable(mac: Mac) -> bool {
    mac.0[0] & 1 == 0 && mac.0 != [0; 6]
}

fn random() -> Result<Mac, OverlayError> {
    let mut bytes = [0; 6];
    File::open(RANDOM)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| OverlayError::Random { path: Path::new(RANDOM).into(), source })?;
    // Locally administered, of one device.
    bytes[0] = bytes[0] & !1 | 2;
    Ok(Mac(bytes))
}
