//! Should the fast path be on? The decision is pure; beside it is what it is decided by: privileges, bpffs, and
//! everybody's rules.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use corten_netlink::{NetlinkError, Socket};
use nix::sys::statfs::{FsType, statfs};

use super::foreign::{self, Finding, Ruleset, Surroundings};
use crate::options::Fastpath as Wish;

/// BPF_FS_MAGIC.
const BPF_FS: FsType = FsType(0xcafe_4a11);
const BPF_MOUNT: &str = "/sys/fs/bpf";
/// Rules of others that are looked at; more than this are not judged.
const RULES_LIMIT: usize = 20_000;

/// Why the fast path cannot be, whatever is wished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    Capability(&'static str),
    NoBpfFs {
        dir: PathBuf,
        why: String,
    },
    /// The kernel refused a map, a program or its attachment.
    Kernel(String),
}

impl Obstacle {
    /// The verifier tells every step it took; its last lines are the reason.
    pub fn kernel(text: &str) -> Self {
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let mut end: Vec<&str> =
            rest.lines().map(str::trim).filter(|line| !line.is_empty()).rev().take(5).collect();
        end.push(first);
        end.reverse();
        Self::Kernel(end.join("; "))
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(name) => write!(f, "the daemon lacks {name}"),
            Self::NoBpfFs { dir, why } => {
                write!(
                    f,
                    "{} is not on a bpf file system: {why} (mount -t bpf bpf {BPF_MOUNT})",
                    dir.display()
                )
            }
            Self::Kernel(what) => f.write_str(what),
        }
    }
}

/// What is decided, and why, in words for `corten-netd status`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    pub on: bool,
    /// Why it is off.
    pub why: Vec<String>,
    /// What `fastpath = on` goes past.
    pub overrides: Vec<String>,
}

/// `findings`: rules that may touch traffic between pods; `Err` when the rules could not be read.
pub fn decide(wish: Wish, obstacles: &[Obstacle], findings: &Result<Vec<Finding>, String>) -> Decision {
    let rules: Vec<String> = match findings {
        Ok(findings) => findings.iter().map(ToString::to_string).collect(),
        Err(why) => vec![format!("the rules of others cannot be judged: {why}")],
    };
    let obstacles: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
    match wish {
        Wish::Off => Decision { why: vec!["fastpath = off".into()], ..Decision::default() },
        _ if !obstacles.is_empty() => Decision { why: obstacles, ..Decision::default() },
        Wish::Auto if !rules.is_empty() => Decision { why: rules, ..Decision::default() },
        Wish::Auto => Decision { on: true, ..Decision::default() },
        Wish::On => Decision { on: true, overrides: rules, ..Decision::default() },
    }
}

/// What can be said before anything is loaded. Mounts bpffs at its usual place when `dir` lies there and nobody has
/// (systemd does at boot); elsewhere a mount is the administrator's.
pub fn obstacles(dir: &Path) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    match corten_sys::caps::held() {
        Ok(held) => {
            let has = |name| corten_sys::caps::by_name(name).is_some_and(|mask| held.effective & mask != 0);
            if !has("CAP_NET_ADMIN") {
                obstacles.push(Obstacle::Capability("CAP_NET_ADMIN"));
            }
            // CAP_BPF is in CAP_SYS_ADMIN's powers, and did not exist before 5.8.
            if !has("CAP_BPF") && !has("CAP_SYS_ADMIN") {
                obstacles.push(Obstacle::Capability("CAP_BPF"));
            }
        }
        Err(errno) => obstacles.push(Obstacle::Kernel(format!("read our capabilities: {errno}"))),
    }
    if let Err(why) = bpf_fs(dir) {
        obstacles.push(Obstacle::NoBpfFs { dir: dir.to_owned(), why });
    }
    obstacles
}

/// Makes sure that `dir` is, or can be made, on a bpf file system.
fn bpf_fs(dir: &Path) -> Result<(), String> {
    if is_bpf_fs(dir)? {
        return Ok(());
    }
    if !dir.starts_with(BPF_MOUNT) {
        return Err("the nearest directory that exists is of another kind".into());
    }
    let none = None::<&str>;
    let flags =
        nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("bpf"), BPF_MOUNT, Some("bpf"), flags, Some("mode=0700"))
        .or_else(|_| nix::mount::mount(none, BPF_MOUNT, Some("bpf"), flags, none))
        .map_err(|errno| format!("mount bpf at {BPF_MOUNT}: {errno}"))
}

/// Of the nearest ancestor that exists.
fn is_bpf_fs(dir: &Path) -> Result<bool, String> {
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = statfs(existing).map_err(|errno| format!("statfs {}: {errno}", existing.display()))?;
    Ok(found.filesystem_type() == BPF_FS)
}

/// Everybody's rules that traffic between pods may meet.
pub fn rules(netfilter: &mut Socket, around: &Surroundings) -> Result<Ruleset, NetlinkError> {
    let hooked = netfilter.nft_hooked_chains()?;
    let bases = foreign::relevant(&hooked, around);
    let mut open: Vec<foreign::ChainId> =
        bases.map(|chain| (chain.family, chain.table.clone(), chain.name.clone())).collect();
    let mut rules = BTreeMap::new();
    let mut read = 0;
    while let Some(id) = open.pop() {
        if rules.contains_key(&id) || read > RULES_LIMIT {
            continue;
        }
        let (family, table, chain) = &id;
        let list = netfilter.nft_read_rules(*family, table, chain)?;
        read += list.len();
        let called = list.iter().filter_map(|rule| foreign::called(rule));
        let called = called.filter(|chain| !foreign::is_benign_chain(chain));
        open.extend(called.map(|chain| (*family, table.clone(), chain.to_owned())));
        rules.insert(id, list);
    }
    Ok(Ruleset { hooked, rules, complete: read <= RULES_LIMIT })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        let (table, chain, effect) = ("filter".into(), "FORWARD".into(), "drops".into());
        Finding { family: 2, table, chain, effect, traffic: "traffic to pods of other nodes" }
    }

    #[test]
    fn off_is_off_and_auto_is_on_only_when_nothing_speaks_against_it() {
        let rule = "chain FORWARD of table ip filter drops traffic to pods of other nodes";
        let obstacle = Obstacle::Capability("CAP_BPF");
        let lacks = "the daemon lacks CAP_BPF";
        for (wish, obstacles, findings, on, why, overrides) in [
            (Wish::Off, vec![], vec![], false, vec!["fastpath = off"], vec![]),
            (Wish::Auto, vec![], vec![], true, vec![], vec![]),
            (Wish::Auto, vec![], vec![finding()], false, vec![rule], vec![]),
            (Wish::On, vec![], vec![finding()], true, vec![], vec![rule]),
            (Wish::On, vec![obstacle.clone()], vec![], false, vec![lacks], vec![]),
            (Wish::Auto, vec![obstacle], vec![finding()], false, vec![lacks], vec![]),
        ] {
            let text = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
            let wanted = Decision { on, why: text(why), overrides: text(overrides) };
            assert_eq!(decide(wish, &obstacles, &Ok(findings)), wanted, "{wish:?}");
        }
    }

    #[test]
    fn rules_that_cannot_be_read_turn_auto_off() {
        let decision = decide(Wish::Auto, &[], &Err("EPERM".into()));
        assert!(!decision.on && decision.why[0].contains("EPERM"), "{decision:?}");
        assert!(decide(Wish::On, &[], &Err("EPERM".into())).on);
    }

    #[test]
    fn of_a_long_refusal_the_beginning_and_the_end_are_told() {
        let steps: Vec<String> = (0..1000).map(|step| format!("{step}: r1 = r2\n")).collect();
        let steps = steps.concat();
        let text =
            Obstacle::kernel(&format!("the kernel refuses from_pod:\n{steps}invalid access\n\n")).to_string();
        assert!(text.starts_with("the kernel refuses from_pod:; 996: "), "{text}");
        assert!(text.ends_with("; invalid access"), "{text}");
        assert_eq!(Obstacle::kernel("short").to_string(), "short");
    }

    #[test]
    fn a_pin_directory_must_be_on_bpffs() {
        let dir = tempfile::tempdir().expect("a directory");
        let wanted = dir.path().join("corten/v1");
        assert!(bpf_fs(&wanted).is_err(), "an ordinary file system");
    }
}
