//! Capabilities: names, and the five sets applied with the fewest calls.

use std::str::FromStr;

use caps::{CapSet, Capability};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::{Errno, Result};

/// A set of capabilities, bit n for capability n.
pub type Mask = u64;

/// The five sets of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    pub bounding: Mask,
    pub effective: Mask,
    pub permitted: Mask,
    pub inheritable: Mask,
    pub ambient: Mask,
}

/// `CAP_CHOWN` → its bit. None when neither the kernel's headers nor we know it.
pub fn by_name(name: &str) -> Option<Mask> {
    Capability::from_str(name).ok().map(|capability| capability.bitmask())
}

/// The names of a set, in the kernel's order.
pub fn names(mask: Mask) -> Vec<String> {
    in_order()
        .filter(|capability| mask & capability.bitmask() != 0)
        .map(|capability| capability.to_string())
        .collect()
}

/// Every capability name we know, in the kernel's order.
pub fn all_names() -> Vec<String> {
    names(Mask::MAX)
}

fn in_order() -> impl Iterator<Item = Capability> {
    let mut all: Vec<Capability> = caps::all().into_iter().collect();
    all.sort_by_key(Capability::index);
    all.into_iter()
}

/// The permitted, effective and inheritable sets of this process; ambient is left 0, bounding is asked bit by bit.
pub fn held() -> Result<Sets> {
    let sets = capabilities(None)?;
    Ok(Sets {
        bounding: bounding()?,
        effective: sets.effective.bits(),
        permitted: sets.permitted.bits(),
        inheritable: sets.inheritable.bits(),
        ambient: 0,
    })
}

/// The bounding set, up to the last capability of this kernel.
fn bounding() -> Result<Mask> {
    let mut mask = 0;
    for index in 0..64 {
        match rustix::thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << index)) {
            Ok(true) => mask |= 1 << index,
            Ok(false) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(mask)
}

/// Drops from the bounding set of this process what is in `held` and not in `wanted`.
pub fn limit_bounding(held: Mask, wanted: Mask) -> Result<()> {
    let unwanted = held & !wanted;
    (0..64).filter(|index| unwanted & (1 << index) != 0).try_for_each(|index| {
        rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << index))
    })
}

/// Sets effective, permitted and inheritable of this process.
pub fn set(sets: &Sets) -> Result<()> {
    set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::from_bits_retain(sets.effective),
            permitted: CapabilitySet::from_bits_retain(sets.permitted),
            inheritable: CapabilitySet::from_bits_retain(sets.inheritable),
        },
    )
}

/// Replaces the ambient set of this process. Each bit must be permitted and inheritable already.
pub fn set_ambient(mask: Mask) -> Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    (0..64).filter(|index| mask & (1 << index) != 0).try_for_each(|index| {
        let bit = CapabilitySet::from_bits_retain(1 << index);
        rustix::thread::configure_capability_in_ambient_set(bit, true)
    })
}

/// Whether capabilities survive a change of uid away from 0.
pub fn keep_over_setuid(on: bool) -> Result<()> {
    rustix::thread::set_keep_capabilities(on)
}

/// Whether one capability is in the bounding set of this process (for `doctor`).
pub fn in_bounding(name: &str) -> bool {
    Capability::from_str(name)
        .is_ok_and(|capability| caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_agree_with_the_kernel() {
        assert_eq!(by_name("CAP_CHOWN"), Some(1));
        assert_eq!(by_name("CAP_CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(by_name("CAP_MADE_UP"), None);
        assert_eq!(names(0b11), ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        assert_eq!(all_names().len(), 41);
    }

    #[test]
    fn held_sets_lie_within_the_bounding_set_of_a_root_process() {
        let held = held().unwrap();
        assert_eq!(held.effective & !held.permitted, 0);
        assert_eq!(in_bounding("CAP_CHOWN"), held.bounding & 1 != 0);
    }
}
