//! Legacy iptables: does chain FORWARD drop what no rule accepts? Its tables are not in nf_tables; they are only read.

use std::fs;

use corten_sys::xtables::{self, Table};

const FORWARD: usize = 2;
/// struct ipt_ip and ip6t_ip6 with nfcache, before `target_offset` (linux/netfilter_ipv4/ip_tables.h).
const TARGET_OFFSET: [usize; 2] = [88, 140];
/// struct xt_entry_target before the verdict of a standard target.
const TARGET_HEAD: usize = 32;
/// A standard target holds its verdict negated, minus one: NF_DROP is 0.
const DROP: i32 = -1;

/// Where tables cannot be read there is none, or none that we may know of.
pub fn forward_drops(ipv4: bool) -> bool {
    let names = if ipv4 { "ip_tables_names" } else { "ip6_tables_names" };
    // Only if it is there: asking would create it.
    let names = fs::read_to_string(format!("/proc/net/{names}")).unwrap_or_default();
    names.lines().any(|name| name == "filter")
        && xtables::read(ipv4, "filter").is_ok_and(|table| drops(&table, ipv4))
}

fn drops(table: &Table, ipv4: bool) -> bool {
    let verdict = || {
        let (_, policy) = table.hooks[FORWARD]?;
        let entry = table.entries.get(policy as usize..)?;
        let at = TARGET_OFFSET[usize::from(!ipv4)];
        let target = usize::from(u16::from_ne_bytes(entry.get(at..at + 2)?.try_into().ok()?));
        let verdict = entry.get(target + TARGET_HEAD..)?.get(..4)?;
        Some(i32::from_ne_bytes(verdict.try_into().ok()?))
    };
    verdict() == Some(DROP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policys_verdict_is_read_and_short_tables_are_none() {
        for (ipv4, head) in [(true, 112), (false, 168)] {
            let at = TARGET_OFFSET[usize::from(!ipv4)];
            let mut entries = vec![0; 16 + head + TARGET_HEAD + 8];
            entries[16 + at..][..2].copy_from_slice(&(head as u16).to_ne_bytes());
            let mut hooks = [None; 5];
            hooks[FORWARD] = Some((0, 16));
            for (verdict, wanted) in [(DROP, true), (-2, false)] {
                entries[16 + head + TARGET_HEAD..][..4].copy_from_slice(&i32::to_ne_bytes(verdict));
                assert_eq!(drops(&Table { hooks, entries: entries.clone() }, ipv4), wanted);
            }
            for length in 0..entries.len() - 8 {
                assert!(!drops(&Table { hooks, entries: entries[..length].to_vec() }, ipv4), "{length}");
            }
        }
        assert!(!drops(&Table { hooks: [None; 5], entries: Vec::new() }, true));
    }
}
