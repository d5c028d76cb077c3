//! devices.allow and devices.deny of cgroup v1.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use super::{Access, Devices, Kind, Policy};
use crate::cgroup::error::{CgroupError, errno};
use crate::cgroup::files;

/// Write the difference between what the kernel has and `target`, and see that it took.
pub fn apply(dir: &Path, target: &Policy) -> Result<(), CgroupError> {
    let list = dir.join("devices.list");
    let writes = transition(&parse(&files::read(&list)?), target);
    if writes.is_empty() {
        return Ok(());
    }
    let open = |file: &str| {
        let path = dir.join(file);
        let opened = OpenOptions::new().write(true).open(&path);
        opened.map_err(|error| CgroupError::io("open", path, &error))
    };
    let (mut allow, mut deny) = (open("devices.allow")?, open("devices.deny")?);
    for (allowed, rule) in writes {
        let (file, name) = if allowed { (&mut allow, "devices.allow") } else { (&mut deny, "devices.deny") };
        file.write_all(rule.as_bytes()).map_err(|error| CgroupError::Write {
            path: dir.join(name),
            value: rule,
            errno: errno(&error),
        })?;
    }
    let now = parse(&files::read(&list)?);
    // The list does not show what a default of "allow" leaves out.
    let took = if target.allow { now.allow } else { now == *target };
    if took { Ok(()) } else { Err(CgroupError::DeviceRules { path: dir.into() }) }
}

/// devices.list: `a *:* rwm` alone, or one exception a line.
fn parse(list: &str) -> Policy {
    let mut policy = Policy::DENY_ALL;
    for line in list.lines() {
        let mut fields = line.split([' ', ':']);
        let kind = match fields.next() {
            Some("a") => return Policy::ALLOW_ALL,
            Some("b") => Kind::Block,
            Some("c") => Kind::Char,
            _ => continue,
        };
        let mut number = || fields.next().and_then(|number| number.parse().ok());
        let devices = Devices { kind, major: number(), minor: number() };
        let access = fields.next().and_then(Access::parse).unwrap_or(Access::NONE);
        policy.exceptions.insert(devices, access);
    }
    policy
}

/// The writes from one policy to the other, as (allow, rule): what is lost first, then what is gained; a device that
/// both have is not touched.
fn transition(from: &Policy, to: &Policy) -> Vec<(bool, String)> {
    let mut writes = Vec::new();
    let nothing = BTreeMap::new();
    let old = if from.allow == to.allow {
        &from.exceptions
    } else {
        writes.push((to.allow, "a".to_owned()));
        &nothing
    };
    let difference = |a: &BTreeMap<Devices, Access>, b: &BTreeMap<Devices, Access>, allow: bool| {
        let rest = a
            .iter()
            .map(|(devices, access)| (devices, access.without(*b.get(devices).unwrap_or(&Access::NONE))));
        let rest = rest.filter(|(_, access)| *access != Access::NONE);
        rest.map(|(devices, access)| (allow, format!("{devices} {access}"))).collect::<Vec<_>>()
    };
    writes.extend(difference(old, &to.exceptions, to.allow));
    writes.extend(difference(&to.exceptions, old, !to.allow));
    writes
}

#[cfg(test)]
mod tests {
    use super::super::target;
    use super::*;

    #[test]
    fn a_list_is_read_back() {
        assert_eq!(parse("a *:* rwm\n"), Policy::ALLOW_ALL);
        let policy = parse("c 1:3 rwm\nb *:* m\nc 136:* rw\n");
        assert!(!policy.allow);
        let lines: Vec<String> =
            policy.exceptions.iter().map(|(devices, access)| format!("{devices} {access}")).collect();
        assert_eq!(lines, ["b *:* m", "c 1:3 rwm", "c 136:* rw"]);
    }

    #[test]
    fn only_the_difference_is_written() {
        let shown = |from: &Policy, to: &Policy| -> Vec<String> {
            transition(from, to)
                .into_iter()
                .map(|(allow, rule)| format!("{}{rule}", if allow { '+' } else { '-' }))
                .collect()
        };
        let base = target(&[]).unwrap();
        assert!(shown(&base, &base).is_empty());
        assert_eq!(shown(&Policy::ALLOW_ALL, &Policy::DENY_ALL), ["-a"]);
        assert_eq!(shown(&base, &Policy::ALLOW_ALL), ["+a"]);
        assert_eq!(
            shown(&parse("c 1:3 rwm\nc 9:9 rw\n"), &parse("c 1:3 rw\nc 8:8 r\nc 9:9 rwm\n")),
            ["-c 1:3 m", "+c 8:8 r", "+c 9:9 m"]
        );
        let fresh = shown(&Policy::ALLOW_ALL, &base);
        assert_eq!((fresh.len(), fresh[0].as_str(), fresh[1].as_str()), (11, "-a", "+b *:* m"));
    }
}
