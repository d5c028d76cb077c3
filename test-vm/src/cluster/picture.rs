//! What a node holds in the kernel, as lines of text: two pictures of the same work differ in nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use anyhow::Result;

use super::node::Node;

/// Facts about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture(BTreeSet<String>);

impl Picture {
    pub fn take(node: &Node) -> Result<Self> {
        let mut facts = BTreeSet::new();
        for (kind, command) in COMMANDS {
            let text = node.place.run(command[0], &command[1..])?;
            facts.extend(text.lines().filter_map(|line| fact(kind, line)));
        }
        facts.extend(node.netd.iter().flat_map(|netd| descriptors(netd.pid())));
        Ok(Self(facts))
    }

    /// What came and what went since `before`; `None` when nothing did.
    pub fn since(&self, before: &Self) -> Option<Difference> {
        let came: Vec<_> = self.0.difference(&before.0).cloned().collect();
        let went: Vec<_> = before.0.difference(&self.0).cloned().collect();
        (!came.is_empty() || !went.is_empty()).then_some(Difference { came, went })
    }

    /// The same without the facts of one kind.
    #[must_use]
    pub fn without(self, kind: &str) -> Self {
        Self(self.0.into_iter().filter(|fact| !fact.starts_with(kind)).collect())
    }

    /// True when there is a fact of one kind that contains `text`.
    pub fn has(&self, kind: &str, text: &str) -> bool {
        self.0.iter().any(|fact| fact.starts_with(kind) && fact.contains(text))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    pub came: Vec<String>,
    pub went: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let came = self.came.iter().map(|fact| format!("+ {fact}"));
        let lines: Vec<_> = came.chain(self.went.iter().map(|fact| format!("- {fact}"))).collect();
        f.write_str(&lines.join("; "))
    }
}

const COMMANDS: [(&str, &[&str]); 9] = [
    ("link", &["ip", "-o", "link"]),
    ("address", &["ip", "-o", "address"]),
    ("route", &["ip", "route", "show", "table", "all"]),
    ("route", &["ip", "-6", "route", "show", "table", "all"]),
    ("policy", &["ip", "rule"]),
    ("neighbour", &["ip", "neighbour", "show", "nud", "permanent"]),
    ("fdb", &["bridge", "fdb", "show"]),
    ("rule", &["nft", "-s", "list", "ruleset"]),
    ("pin", &["find", "/sys/fs/bpf", "-mindepth", "1"]),
];

/// One line of a command as a fact, without what changes by itself; `None` for what the kernel makes when it sees fit.
fn fact(kind: &str, line: &str) -> Option<String> {
    let line = line.trim();
    if line.is_empty()
        || ["fe80::", "ff00::", " multicast ", "33:33:", "01:00:5e"].iter().any(|p| line.contains(p))
    {
        return None;
    }
    let text = match kind {
        // A link is its number and name: one that was made anew is another.
        "link" => line.split(": ").take(2).collect::<Vec<_>>().join(" "),
        // IPv6 addresses live for ever, but are printed with time left when they do not.
        "address" => line.split(" valid_lft").next()?.trim_end_matches('\\').to_string(),
        _ => line.to_string(),
    };
    let words = text.split_whitespace().filter(|word| !["linkdown", "tentative"].contains(word));
    Some(format!("{kind} {}", words.collect::<Vec<_>>().join(" ")))
}

/// How many descriptors of each kind a process holds.
fn descriptors(pid: u32) -> Vec<String> {
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        // `socket:[123]` is a socket; `anon_inode:bpf-map` and paths are what they are.
        *kinds.entry(target.split('[').next().unwrap_or_default().to_string()).or_default() += 1;
    }
    kinds.into_iter().map(|(kind, count)| format!("descriptor {kind} x {count}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_made_anew_is_another_and_its_state_is_not() {
        let up = fact("link", "7: flannel.1: <BROADCAST,UP> mtu 1450 state UNKNOWN");
        assert_eq!(up, fact("link", "7: flannel.1: <BROADCAST> mtu 1450 state DOWN"));
        assert_ne!(up, fact("link", "9: flannel.1: <BROADCAST,UP> mtu 1450 state UNKNOWN"));
    }

    #[test]
    fn what_the_kernel_makes_by_itself_is_no_fact() {
        assert_eq!(fact("route", "fe80::/64 dev eth0 proto kernel"), None);
        assert_eq!(fact("fdb", "33:33:00:00:00:01 dev eth0 self permanent"), None);
        assert!(fact("fdb", "02:11:22:33:44:55 dev flannel.1 dst 192.168.77.2 self permanent").is_some());
    }

    #[test]
    fn a_difference_says_what_came_and_what_went() {
        let picture = |facts: &[&str]| Picture(facts.iter().map(|f| (*f).to_string()).collect());
        let difference = picture(&["link 1 lo", "pin x"]).since(&picture(&["link 1 lo", "route r"]));
        assert_eq!(difference.map(|d| d.to_string()).as_deref(), Some("+ pin x; - route r"));
        assert_eq!(picture(&["a"]).since(&picture(&["a"])), None);
    }
}
