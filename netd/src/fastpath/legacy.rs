//! Tables of legacy iptables as [`super::foreign`] walks them: pure, from the kernel's own layout.
//!
//! An entry is struct ipt_entry (112 bytes) or ip6t_entry (168 bytes): addresses, masks, devices, protocol; then matches;
//! then a target. A chain that users made begins after an entry with the target ERROR, which names it.

use std::collections::BTreeMap;

use corten_netlink::nft::{Comparison, Expression, Field, HookedChain, Meta, Reading, Register, Verdict};
use corten_sys::xtables::{self, Table};

use super::foreign::{ChainId, Ruleset};

const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// struct xt_entry_match and xt_entry_target before their data: size, name, revision.
const EXTENSION_HEAD: usize = 32;
const INVERT_INPUT: u8 = 0x01;
const INVERT_OUTPUT: u8 = 0x02;
const INVERT_SOURCE: u8 = 0x08;
const INVERT_DESTINATION: u8 = 0x10;
const INVERT_PROTOCOL: u8 = 0x40;
/// IPT_F_GOTO.
const GOTO: u8 = 0x02;

/// Where the parts of an entry lie.
struct Layout {
    family: u8,
    address_len: usize,
    invert: usize,
    flags: usize,
    protocol: usize,
    target_offset: usize,
    head: usize,
    source: u32,
    destination: u32,
}

const IPV4: Layout = Layout {
    family: 2,
    address_len: 4,
    protocol: 80,
    flags: 82,
    invert: 83,
    target_offset: 88,
    head: 112,
    source: 12,
    destination: 16,
};

const IPV6: Layout = Layout {
    family: 10,
    address_len: 16,
    protocol: 128,
    flags: 131,
    invert: 132,
    target_offset: 140,
    head: 168,
    source: 8,
    destination: 24,
};

/// Adds the chains of a table to a ruleset. False when the bytes do not hold together: then nothing was added.
pub fn add(ruleset: &mut Ruleset, ipv4: bool, name: &str, table: &Table) -> bool {
    let layout = if ipv4 { &IPV4 } else { &IPV6 };
    let Some(chains) = chains(layout, name, table) else { return false };
    for (hook, place) in table.hooks.iter().enumerate() {
        if place.is_some() {
            ruleset.hooked.push(HookedChain {
                family: layout.family,
                table: format!("legacy {name}"),
                name: HOOKS[hook].to_owned(),
                hook: hook as u32,
                kind: if name == "nat" { "nat" } else { "filter" }.to_owned(),
                // The policy is the last rule.
                drops: false,
                devices: Vec::new(),
            });
        }
    }
    ruleset.rules.extend(chains);
    true
}

/// Adds all tables of this thread's network namespace. `Err`: why they cannot be judged.
pub fn read(ruleset: &mut Ruleset) -> Result<(), String> {
    for (ipv4, names) in [(true, "ip_tables_names"), (false, "ip6_tables_names")] {
        // Absent without the module. (/proc/net would be the first thread's.)
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
        for name in names.lines() {
            let table = xtables::read(ipv4, name).map_err(|e| format!("read legacy table {name}: {e}"))?;
            if !add(ruleset, ipv4, name, &table) {
                return Err(format!("legacy table {name} does not hold together"));
            }
        }
    }
    Ok(())
}

struct Entry<'a> {
    bytes: &'a [u8],
    target: &'a [u8],
}

fn chains(layout: &Layout, name: &str, table: &Table) -> Option<BTreeMap<ChainId, Vec<Vec<Reading>>>> {
    let mut starts: BTreeMap<usize, String> = BTreeMap::new();
    for (hook, place) in table.hooks.iter().enumerate() {
        if let Some((first, _)) = place {
            starts.insert(*first as usize, HOOKS[hook].to_owned());
        }
    }
    let mut entries = Vec::new();
    let mut offset = 0;
    while offset < table.entries.len() {
        let entry = entry(layout, &table.entries[offset..])?;
        let next = offset + entry.bytes.len();
        if target_name(&entry)? == "ERROR" {
            starts.insert(next, text(entry.target.get(EXTENSION_HEAD..)?));
        }
        entries.push((offset, entry));
        offset = next;
    }
    let mut chains: BTreeMap<ChainId, Vec<Vec<Reading>>> = BTreeMap::new();
    let mut current = None;
    for (offset, entry) in &entries {
        if let Some(chain) = starts.get(offset) {
            let id = (layout.family, format!("legacy {name}"), chain.clone());
            current = Some(chains.entry(id).or_default());
        }
        if target_name(entry)? == "ERROR" {
            continue;
        }
        let next = offset + entry.bytes.len();
        current.as_mut()?.push(rule(layout, entry, next, &starts)?);
    }
    Some(chains)
}

fn entry<'a>(layout: &Layout, bytes: &'a [u8]) -> Option<Entry<'a>> {
    let target = usize::from(u16_at(bytes, layout.target_offset)?);
    let next = usize::from(u16_at(bytes, layout.target_offset + 2)?);
    let ordered = layout.head <= target && target + EXTENSION_HEAD <= next;
    let bytes = bytes.get(..next).filter(|_| ordered)?;
    Some(Entry { bytes, target: &bytes[target..] })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn target_name(entry: &Entry<'_>) -> Option<String> {
    Some(text(entry.target.get(2..31)?))
}

fn rule(
    layout: &Layout,
    entry: &Entry<'_>,
    next: usize,
    starts: &BTreeMap<usize, String>,
) -> Option<Vec<Reading>> {
    let bytes = entry.bytes;
    let invert = bytes[layout.invert];
    let len = layout.address_len;
    let mut rule = Vec::new();
    // Source, destination, then their masks.
    for (index, offset, flag) in
        [(0, layout.source, INVERT_SOURCE), (1, layout.destination, INVERT_DESTINATION)]
    {
        let (value, mask) = (&bytes[index * len..][..len], &bytes[(index + 2) * len..][..len]);
        if mask.iter().any(|b| *b != 0) {
            let field = Field::Network { offset, len: len as u32 };
            rule.push(Expression::Payload { field, into: Register::One });
            rule.push(Expression::Mask { register: Register::One, mask: mask.to_vec() });
            rule.push(compare(value.to_vec(), invert & flag != 0));
        }
    }
    let devices = 4 * len;
    for (index, key, flag) in [(0, Meta::InputName, INVERT_INPUT), (1, Meta::OutputName, INVERT_OUTPUT)] {
        let value = &bytes[devices + index * 16..][..16];
        let significant = bytes[devices + 32 + index * 16..][..16].iter().take_while(|b| **b != 0).count();
        if significant > 0 {
            rule.push(Expression::Meta { key, into: Register::One });
            rule.push(compare(value[..significant].to_vec(), invert & flag != 0));
        }
    }
    let protocol = u16_at(bytes, layout.protocol)?;
    if protocol != 0 {
        rule.push(Expression::Meta { key: Meta::TransportProtocol, into: Register::One });
        rule.push(compare(vec![protocol as u8], invert & INVERT_PROTOCOL != 0));
    }
    let mut rule: Vec<Reading> = rule.into_iter().map(Reading::Known).collect();
    let target = bytes.len() - entry.target.len();
    rule.extend(matches(&bytes[layout.head..target])?);
    rule.extend(target_reading(layout, entry, next, starts)?);
    Some(rule)
}

fn compare(value: Vec<u8>, inverted: bool) -> Expression {
    let comparison = if inverted { Comparison::NotEqual } else { Comparison::Equal };
    Expression::Compare { register: Register::One, comparison, value }
}

fn matches(mut bytes: &[u8]) -> Option<Vec<Reading>> {
    let mut readings = Vec::new();
    while !bytes.is_empty() {
        let size = usize::from(u16_at(bytes, 0)?);
        let data = bytes.get(EXTENSION_HEAD..size)?;
        readings.push(extension("match", text(&bytes[2..31]), data));
        bytes = &bytes[size..];
    }
    Some(readings)
}

fn extension(name: &str, extension: String, data: &[u8]) -> Reading {
    Reading::Other { name: name.to_owned(), writes: false, extension: Some((extension, data.to_vec())) }
}

/// `None`: an unknown verdict. Nothing: the rule goes on to the next.
fn target_reading(
    layout: &Layout,
    entry: &Entry<'_>,
    next: usize,
    starts: &BTreeMap<usize, String>,
) -> Option<Vec<Reading>> {
    let name = target_name(entry)?;
    let data = &entry.target[EXTENSION_HEAD..];
    if !name.is_empty() {
        return Some(vec![extension("target", name, data)]);
    }
    // The standard target: -verdict - 1, or the offset of a chain.
    let verdict = match i32::from_ne_bytes(data.get(..4)?.try_into().ok()?) {
        -1 => Verdict::Drop,
        -2 => Verdict::Accept,
        -5 => Verdict::Return,
        number => {
            let offset = usize::try_from(number).ok()?;
            if offset == next {
                return Some(Vec::new());
            }
            let chain = starts.get(&offset)?.clone();
            if entry.bytes[layout.flags] & GOTO != 0 { Verdict::Goto(chain) } else { Verdict::Jump(chain) }
        }
    };
    Some(vec![Reading::Known(Expression::Verdict(verdict))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fastpath::foreign::{Surroundings, findings};

    fn around() -> Surroundings {
        Surroundings {
            local: vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            cluster: vec!["10.244.0.0/16".parse().unwrap(), "fd00::/16".parse().unwrap()],
            devices: ["cni0".to_owned()].into(),
        }
    }

    /// The rules as the kernel has them after these commands, in a network namespace of this thread's own.
    fn after(ipv4: bool, commands: &[&str]) -> Option<Vec<String>> {
        let program = if ipv4 { "iptables-legacy" } else { "ip6tables-legacy" };
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace, as root");
        let mut tables = vec!["filter"];
        for command in commands {
            let Ok(output) = std::process::Command::new(program).args(command.split(' ')).output() else {
                println!("SKIP: no {program} (apt-get install iptables)");
                return None;
            };
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            if error.contains("does not exist") || error.contains("can't initialize") {
                println!("SKIP: this kernel has no legacy iptables: {error}");
                return None;
            }
            assert!(output.status.success(), "{command}: {error}");
            if command.starts_with("-t nat") {
                tables.push("nat");
            }
        }
        let mut ruleset = Ruleset { complete: true, ..Ruleset::default() };
        for table in tables {
            let read = corten_sys::xtables::read(ipv4, table).expect("read");
            assert!(add(&mut ruleset, ipv4, table, &read), "{read:?}");
        }
        Some(findings(&ruleset, &around()).iter().map(ToString::to_string).collect())
    }

    #[test]
    fn legacy_rules_are_judged_as_those_of_nf_tables() {
        const NONE: &[&str] = &[];
        let here = "traffic between pods of this node";
        let away = "traffic to pods of other nodes";
        for (commands, wanted) in [
            (&["-L"][..], NONE),
            (&["-P FORWARD DROP"], &[&*format!("chain FORWARD of table ip legacy filter drops {here}")]),
            (&["-P FORWARD DROP", "-A FORWARD -s 10.244.0.0/16 -j ACCEPT"], NONE),
            (&["-A FORWARD -i docker0 -j DROP", "-A FORWARD -i docker+ -p tcp --dport 80 -j DROP"], NONE),
            (&["-A FORWARD -s 192.168.0.0/16 -m comment --comment x -j DROP", "-P INPUT DROP"], NONE),
            (&["-N X", "-A X -j RETURN", "-A X -j DROP", "-A FORWARD -j X", "-A FORWARD"], NONE),
            (
                &["-N X", "-A X ! -s 10.0.0.0/8 -j RETURN", "-A X -j REJECT", "-A FORWARD -g X"],
                &[&*format!("chain FORWARD of table ip legacy filter has the target REJECT for {here}")],
            ),
            (
                &["-t nat -A POSTROUTING -s 10.244.1.0/24 ! -d 10.244.1.0/24 -j MASQUERADE"],
                &[&*format!("chain POSTROUTING of table ip legacy nat has the target MASQUERADE for {away}")],
            ),
        ] {
            let Some(found) = after(true, commands) else { return };
            assert_eq!(found, wanted, "{commands:?}");
        }
        let drop6 = format!("chain FORWARD of table ip6 legacy filter drops {here}");
        for (commands, wanted) in [
            (&["-A FORWARD -s fd00:1::/64 -i cni0 -j DROP"][..], &[&*drop6][..]),
            (&["-A FORWARD -s fc00:1::/64 -j DROP", "-A FORWARD -i eth7 -j DROP"], NONE),
        ] {
            let Some(found) = after(false, commands) else { return };
            assert_eq!(found, wanted, "{commands:?}");
        }
    }

    #[test]
    fn bytes_that_do_not_hold_together_are_refused() {
        for entries in [vec![0; 10], vec![0; 112], vec![0xff; 400]] {
            let table = Table { hooks: [Some((0, 0)); 5], entries };
            let mut ruleset = Ruleset::default();
            assert!(!add(&mut ruleset, true, "filter", &table));
            assert!(ruleset.hooked.is_empty());
        }
    }
}
