//! The process of a container, or one that is started in it later.

use std::ffi::{CString, OsStr};
use std::path::PathBuf;

use corten_sys::caps;
use corten_sys::sched::{SchedAttr, parse_list};
use oci_spec::runtime::{
    Capabilities, IOPriorityClass, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimitType,
    Process as Spec, Scheduler,
};

use super::{Result, c_string};
use crate::error::ConfigError;

#[derive(Debug, Clone)]
pub struct Process {
    pub arguments: Vec<CString>,
    /// `NAME=value`, the last of a name only.
    pub environment: Vec<CString>,
    /// Directories of PATH.
    pub search_path: Vec<PathBuf>,
    pub has_home: bool,
    pub cwd: PathBuf,
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    pub ids: Ids,
    pub capabilities: caps::Sets,
    pub no_new_privileges: bool,
    pub limits: Vec<Limit>,
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<SchedAttr>,
    /// Class and level.
    pub io_priority: Option<(u16, u16)>,
    /// CPUs before the process is in its cgroup, and for its program.
    pub cpu_affinity: (Option<CpuList>, Option<CpuList>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub name: &'static str,
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    pub mode: i32,
    pub nodes: Vec<u32>,
}

type CpuList = Vec<u32>;

/// Longer lists of CPUs or nodes than any kernel has.
const LIST_LIMIT: usize = 8192;

impl Process {
    pub fn new(spec: &Spec) -> Result<Self> {
        let refused = [
            ("process.apparmorProfile", spec.apparmor_profile()),
            ("process.selinuxLabel", spec.selinux_label()),
        ];
        for (field, value) in refused {
            if value.as_ref().is_some_and(|value| !value.is_empty()) {
                return Err(ConfigError::unsupported(
                    field,
                    "this build has no security modules; leave it empty",
                ));
            }
        }
        let arguments = spec.args().as_deref().unwrap_or_default();
        if arguments.first().is_none_or(String::is_empty) {
            return Err(ConfigError::invalid("process.args", "names no program"));
        }
        if !spec.cwd().is_absolute() {
            return Err(ConfigError::invalid(
                "process.cwd",
                format!("{} is not an absolute path", spec.cwd().display()),
            ));
        }
        let variables = environment(spec.env().as_deref().unwrap_or_default())?;
        let value =
            |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        Ok(Self {
            arguments: arguments
                .iter()
                .map(|text| c_string("process.args", text.as_str()))
                .collect::<Result<_>>()?,
            search_path: std::env::split_paths(OsStr::new(value("PATH").unwrap_or_default())).collect(),
            has_home: value("HOME").is_some_and(|home| !home.is_empty()),
            environment: variables
                .iter()
                .map(|(name, value)| c_string("process.env", format!("{name}={value}")))
                .collect::<Result<_>>()?,
            cwd: spec.cwd().clone(),
            terminal: spec.terminal().unwrap_or(false),
            console_size: spec.console_size().map(|size| (size.height() as u16, size.width() as u16)),
            ids: ids(spec),
            capabilities: capabilities(spec),
            no_new_privileges: spec.no_new_privileges().unwrap_or(false),
            limits: limits(spec)?,
            oom_score_adj: oom_score_adj(spec)?,
            scheduler: spec.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: spec.io_priority().map(|p| io_priority(p.class(), p.priority())).transpose()?,
            cpu_affinity: cpu_affinity(spec)?,
        })
    }
}

/// The last value of a name wins, in the place of the first: what execve gets has each name once.
fn environment(list: &[String]) -> Result<Vec<(String, String)>> {
    let mut variables: Vec<(String, String)> = Vec::with_capacity(list.len());
    let mut places = std::collections::HashMap::with_capacity(list.len());
    for pair in list {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name.is_empty() {
            return Err(ConfigError::invalid("process.env", format!("{pair:?} has no name")));
        }
        if let Some(place) = places.get(name) {
            value.clone_into(&mut variables[*place as usize].1);
        } else {
            places.insert(name, variables.len() as u32);
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(variables)
}

fn ids(spec: &Spec) -> Ids {
    let user = spec.user();
    Ids {
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask(),
    }
}

/// Capabilities that are not listed are not had; without the section, none.
fn capabilities(spec: &Spec) -> caps::Sets {
    let Some(sets) = spec.capabilities() else { return caps::Sets::default() };
    caps::Sets {
        bounding: mask(sets.bounding().as_ref()),
        effective: mask(sets.effective().as_ref()),
        permitted: mask(sets.permitted().as_ref()),
        inheritable: mask(sets.inheritable().as_ref()),
        // The kernel wants ambient ones inheritable too; CVE-2022-29162 is why nothing is added to that set.
        ambient: mask(sets.ambient().as_ref()) & mask(sets.inheritable().as_ref()),
    }
}

fn mask(set: Option<&Capabilities>) -> caps::Mask {
    set.into_iter()
        .flatten()
        .filter_map(|capability| caps::by_name(&format!("CAP_{capability}")))
        .fold(0, |a, b| a | b)
}

fn limits(spec: &Spec) -> Result<Vec<Limit>> {
    let mut limits: Vec<Limit> = Vec::new();
    for limit in spec.rlimits().iter().flatten() {
        let (name, resource) = resource(limit.typ());
        if limits.iter().any(|known| known.resource == resource) {
            return Err(ConfigError::invalid("process.rlimits", format!("{name} is listed twice")));
        }
        if limit.soft() > limit.hard() {
            return Err(ConfigError::invalid(
                "process.rlimits",
                format!("{name}: the soft limit is above the hard one"),
            ));
        }
        limits.push(Limit { name, resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(limits)
}

fn resource(kind: PosixRlimitType) -> (&'static str, u32) {
    use PosixRlimitType as Kind;
    let (name, number) = match kind {
        Kind::RlimitCpu => ("RLIMIT_CPU", libc::RLIMIT_CPU),
        Kind::RlimitFsize => ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
        Kind::RlimitData => ("RLIMIT_DATA", libc::RLIMIT_DATA),
        Kind::RlimitStack => ("RLIMIT_STACK", libc::RLIMIT_STACK),
        Kind::RlimitCore => ("RLIMIT_CORE", libc::RLIMIT_CORE),
        Kind::RlimitRss => ("RLIMIT_RSS", libc::RLIMIT_RSS),
        Kind::RlimitNproc => ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
        Kind::RlimitNofile => ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
        Kind::RlimitMemlock => ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
        Kind::RlimitAs => ("RLIMIT_AS", libc::RLIMIT_AS),
        Kind::RlimitLocks => ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
        Kind::RlimitSigpending => ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
        Kind::RlimitMsgqueue => ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
        Kind::RlimitNice => ("RLIMIT_NICE", libc::RLIMIT_NICE),
        Kind::RlimitRtprio => ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
        Kind::RlimitRttime => ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    };
    (name, number as u32)
}

fn oom_score_adj(spec: &Spec) -> Result<Option<i32>> {
    match spec.oom_score_adj() {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(ConfigError::invalid("process.oomScoreAdj", format!("{score} is not within -1000 and 1000")))
        }
        score => Ok(score),
    }
}

fn scheduler(spec: &Scheduler) -> Result<SchedAttr> {
    let policy = match spec.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = spec.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            }
    });
    let priority = u32::try_from(spec.priority().unwrap_or(0))
        .map_err(|_| ConfigError::invalid("process.scheduler.priority", "is negative"))?;
    let mut attributes = SchedAttr::default();
    (attributes.policy, attributes.flags) = (policy, flags);
    (attributes.nice, attributes.priority) = (spec.nice().unwrap_or(0), priority);
    attributes.runtime = spec.runtime().unwrap_or(0);
    attributes.deadline = spec.deadline().unwrap_or(0);
    attributes.period = spec.period().unwrap_or(0);
    Ok(attributes)
}

fn io_priority(class: IOPriorityClass, level: i64) -> Result<(u16, u16)> {
    let class = match class {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u16::try_from(level) {
        Ok(level @ 0..=7) => Ok((class, level)),
        _ => {
            Err(ConfigError::invalid("process.ioPriority.priority", format!("{level} is not within 0 and 7")))
        }
    }
}

fn cpu_affinity(spec: &Spec) -> Result<(Option<CpuList>, Option<CpuList>)> {
    let Some(affinity) = spec.exec_cpu_affinity() else { return Ok((None, None)) };
    let list = |field: &str, text: &Option<String>| -> Result<Option<Vec<u32>>> {
        let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let cpus = parse_list(text, LIST_LIMIT);
        cpus.map(Some)
            .ok_or_else(|| ConfigError::invalid(field, format!("{text:?} is no list of CPUs such as 0-3,8")))
    };
    Ok((
        list("process.execCPUAffinity.initial", affinity.initial())?,
        list("process.execCPUAffinity.final", affinity.cpu_affinity_final())?,
    ))
}

/// personality(2); the specification defines no flags yet.
pub(super) fn personality(spec: &LinuxPersonality) -> Result<u64> {
    if spec.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(ConfigError::unsupported("linux.personality.flags", "leave them empty"));
    }
    Ok(match spec.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        // PER_LINUX32 of linux/personality.h.
        LinuxPersonalityDomain::PerLinux32 => 0x0008,
    })
}

impl MemoryPolicy {
    pub(super) fn new(spec: &LinuxMemoryPolicy) -> Result<Self> {
        let mode = match spec.mode() {
            MemoryPolicyModeType::MpolDefault => 0,
            MemoryPolicyModeType::MpolPreferred => 1,
            MemoryPolicyModeType::MpolBind => 2,
            MemoryPolicyModeType::MpolInterleave => 3,
            MemoryPolicyModeType::MpolLocal => 4,
            MemoryPolicyModeType::MpolPreferredMany => 5,
            MemoryPolicyModeType::MpolWeightedInterleave => 6,
        };
        let flags = spec.flags().iter().flatten().fold(0, |flags, flag| {
            flags
                | match flag {
                    MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
                    MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                    MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                }
        });
        let nodes = match spec.nodes().as_deref().filter(|text| !text.is_empty()) {
            None => Vec::new(),
            Some(text) => parse_list(text, LIST_LIMIT).ok_or_else(|| {
                ConfigError::invalid("linux.memoryPolicy.nodes", format!("{text:?} is no list of nodes"))
            })?,
        };
        Ok(Self { mode: mode | flags, nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: serde_json::Value) -> Result<Process> {
        let mut whole = serde_json::json!({"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}});
        whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        Process::new(&serde_json::from_value(whole).unwrap())
    }

    #[test]
    fn the_last_value_of_a_variable_wins_in_the_place_of_the_first() {
        let process = process(serde_json::json!({"env": ["PATH=/a:/b", "X=1", "PATH=/c", "EMPTY"]})).unwrap();
        assert_eq!(process.environment, [c"PATH=/c".into(), c"X=1".into(), CString::from(c"EMPTY=")]);
        assert_eq!(process.search_path, [PathBuf::from("/c")]);
    }

    #[test]
    fn cve_2022_29162_nothing_is_added_to_the_inheritable_set() {
        let all = serde_json::json!(["CAP_CHOWN", "CAP_KILL"]);
        let json = serde_json::json!({"capabilities": {"bounding": all, "effective": all, "permitted": all, "ambient": all}});
        let sets = process(json).unwrap().capabilities;
        assert_eq!((sets.permitted, sets.inheritable, sets.ambient), (0b10_0001, 0, 0));
        let json = serde_json::json!({"capabilities": {"inheritable": ["CAP_KILL"], "ambient": all}});
        let sets = process(json).unwrap().capabilities;
        assert_eq!((sets.inheritable, sets.ambient), (0b10_0000, 0b10_0000));
    }

    #[test]
    fn out_of_range_values_are_refused() {
        let table = [
            serde_json::json!({"oomScoreAdj": 1001}),
            serde_json::json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}),
            serde_json::json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]}),
            serde_json::json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]}),
            serde_json::json!({"execCPUAffinity": {"initial": "3-1"}}),
        ];
        for json in table {
            process(json.clone()).unwrap_err_or(&json);
        }
    }

    trait Refused {
        fn unwrap_err_or(self, json: &serde_json::Value);
    }

    impl Refused for Result<Process> {
        fn unwrap_err_or(self, json: &serde_json::Value) {
            assert!(self.is_err(), "{json} was taken");
        }
    }
}
