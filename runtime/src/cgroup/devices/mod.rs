//! Which device nodes a container may use.
//!
//! The rules of config.json are applied in order to an empty allow-list, then the default devices are allowed; the
//! result is a [`Policy`], the same for both versions. v1 writes the difference to what the kernel has now, so that a
//! running container never loses a device it keeps; v2 loads a BPF program made from it.

pub mod program;
pub(super) mod v1;
pub(super) mod v2;

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::error::CgroupError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Block,
    Char,
}

/// A set of device numbers; `None` is every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Devices {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

impl Devices {
    fn covers(self, other: Self) -> bool {
        let wide = |mine: Option<u32>, theirs: Option<u32>| mine.is_none() || mine == theirs;
        self.kind == other.kind && wide(self.major, other.major) && wide(self.minor, other.minor)
    }
}

impl fmt::Display for Devices {
    /// As devices.allow takes it: `c 1:3`, `b *:*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// A set of read, write and mknod, with the kernel's bits (`BPF_DEVCG_ACC_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    pub const MKNOD: Self = Self(1);
    pub const READ: Self = Self(2);
    pub const WRITE: Self = Self(4);
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(7);

    pub const fn bits(self) -> u8 {
        self.0
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn parse(text: &str) -> Option<Self> {
        text.chars().try_fold(Self::NONE, |access, letter| match letter {
            'r' => Some(access.with(Self::READ)),
            'w' => Some(access.with(Self::WRITE)),
            'm' => Some(access.with(Self::MKNOD)),
            _ => None,
        })
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            f.write_str(if self.meets(bit) { letter } else { "" })?;
        }
        Ok(())
    }
}

/// What is allowed by default, and the exceptions from that: what the kernel's v1 controller keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub allow: bool,
    pub exceptions: BTreeMap<Devices, Access>,
}

impl Policy {
    pub const DENY_ALL: Self = Self { allow: false, exceptions: BTreeMap::new() };
    pub const ALLOW_ALL: Self = Self { allow: true, exceptions: BTreeMap::new() };

    /// Apply one rule to some devices.
    ///
    /// # Errors
    /// The rule would cut a hole into a wider exception, which the kernel's v1 controller would silently not do.
    fn apply(&mut self, allow: bool, devices: Devices, access: Access) -> Result<(), CgroupError> {
        if allow != self.allow {
            let entry = self.exceptions.entry(devices).or_insert(Access::NONE);
            *entry = entry.with(access);
            return Ok(());
        }
        let holed = self
            .exceptions
            .iter()
            .find(|(wide, held)| **wide != devices && wide.covers(devices) && held.meets(access));
        if let Some((wide, held)) = holed {
            return Err(CgroupError::invalid(
                "linux.resources.devices",
                format!(
                    "the rule for {devices} {access} would cut a hole into the rule for {wide} {held}, which cgroup v1 cannot do"
                ),
            ));
        }
        if let Some(held) = self.exceptions.get_mut(&devices) {
            *held = held.without(access);
        }
        self.exceptions.retain(|_, held| *held != Access::NONE);
        Ok(())
    }
}

/// What every container may use, as in runc: create any node, and use null, zero, full, random, urandom, tty, the
/// pseudo-terminals and their multiplexer.
const DEFAULT: [(Devices, Access); 10] = {
    const fn char(major: u32, minor: Option<u32>) -> (Devices, Access) {
        (Devices { kind: Kind::Char, major: Some(major), minor }, Access::ALL)
    }
    [
        (Devices { kind: Kind::Char, major: None, minor: None }, Access::MKNOD),
        (Devices { kind: Kind::Block, major: None, minor: None }, Access::MKNOD),
        char(1, Some(3)),
        char(1, Some(8)),
        char(1, Some(7)),
        char(5, Some(0)),
        char(1, Some(5)),
        char(1, Some(9)),
        char(136, None),
        char(5, Some(2)),
    ]
};

/// The policy that `linux.resources.devices` and the default devices make together.
pub fn target(rules: &[LinuxDeviceCgroup]) -> Result<Policy, CgroupError> {
    let mut policy = Policy::DENY_ALL;
    for rule in rules {
        let invalid = |reason: String| CgroupError::invalid("linux.resources.devices", reason);
        let text = rule.access().as_deref().filter(|text| !text.is_empty()).unwrap_or("rwm");
        let access = Access::parse(text)
            .ok_or_else(|| invalid(format!("access {text:?} has letters other than r, w and m")))?;
        let kind = match rule.typ().unwrap_or_default() {
            // The kernel reads no numbers and no access after `a`.
            LinuxDeviceType::A => {
                policy = if rule.allow() { Policy::ALLOW_ALL } else { Policy::DENY_ALL };
                continue;
            }
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Char,
            LinuxDeviceType::P => return Err(invalid("type p (a FIFO) is no device".into())),
        };
        let devices = Devices { kind, major: number(rule.major())?, minor: number(rule.minor())? };
        policy.apply(rule.allow(), devices, access)?;
    }
    for (devices, access) in DEFAULT {
        if !policy.allow {
            policy.apply(true, devices, access)?;
        }
    }
    Ok(policy)
}

/// Absent and -1 are every number.
fn number(number: Option<i64>) -> Result<Option<u32>, CgroupError> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| {
            CgroupError::invalid("linux.resources.devices", format!("{number} is no device number"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    fn rule(allow: bool, typ: LinuxDeviceType, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
        LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(typ)
            .major(major)
            .minor(minor)
            .access(access)
            .build()
            .unwrap()
    }

    fn shown(policy: &Policy) -> Vec<String> {
        policy.exceptions.iter().map(|(devices, access)| format!("{devices} {access}")).collect()
    }

    const DEFAULTS: [&str; 10] = [
        "b *:* m",
        "c *:* m",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:2 rwm",
        "c 136:* rwm",
    ];

    #[test]
    fn no_rules_mean_the_defaults_alone() {
        let policy = target(&[]).unwrap();
        assert!(!policy.allow);
        assert_eq!(shown(&policy), DEFAULTS);
        let runc_spec: LinuxDeviceCgroup = serde_json::from_str(r#"{"allow":false,"access":"rwm"}"#).unwrap();
        assert_eq!(target(&[runc_spec]).unwrap(), policy);
    }

    #[test]
    fn privileged_allows_all() {
        assert_eq!(target(&[rule(true, LinuxDeviceType::A, -1, -1, "rwm")]).unwrap(), Policy::ALLOW_ALL);
    }

    #[test]
    fn rules_apply_in_order() {
        let fuse = rule(true, LinuxDeviceType::C, 10, 229, "rw");
        let policy = target(&[rule(false, LinuxDeviceType::A, -1, -1, "rwm"), fuse.clone()]).unwrap();
        assert!(shown(&policy).contains(&"c 10:229 rw".to_owned()));
        let taken_back = target(&[fuse, rule(false, LinuxDeviceType::C, 10, 229, "w")]).unwrap();
        assert!(shown(&taken_back).contains(&"c 10:229 r".to_owned()));
        let all_but =
            target(&[rule(true, LinuxDeviceType::A, -1, -1, ""), rule(false, LinuxDeviceType::B, 8, 0, "w")])
                .unwrap();
        assert!(all_but.allow);
        assert_eq!(shown(&all_but), ["b 8:0 w"]);
    }

    #[test]
    fn what_the_kernel_would_ignore_is_refused() {
        let hole =
            [rule(true, LinuxDeviceType::C, 10, -1, "rw"), rule(false, LinuxDeviceType::C, 10, 229, "w")];
        for bad in [
            &hole[..],
            &[rule(true, LinuxDeviceType::P, 1, 1, "r")],
            &[rule(true, LinuxDeviceType::C, 1, 1, "x")],
            &[rule(true, LinuxDeviceType::C, -2, 1, "r")],
        ] {
            assert!(target(bad).unwrap_err().to_string().contains("linux.resources.devices"));
        }
    }
}
