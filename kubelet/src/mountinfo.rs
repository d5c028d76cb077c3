//! /proc/PID/mountinfo, as far as it is needed.

use std::path::PathBuf;

#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    pub fs_type: String,
    /// Options of the file system: for cgroup v1 its controllers.
    pub options: String,
}

pub fn parse(text: &str) -> impl Iterator<Item = Mount> + '_ {
    text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        Some(Mount {
            point: unescape(left.split(' ').nth(4)?).into(),
            fs_type: right.next()?.to_owned(),
            options: right.nth(1).unwrap_or_default().to_owned(),
        })
    })
}

/// The kernel writes space, tab, newline and backslash as `\040`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        out.push(code.map_or('\\', char::from));
        rest = &rest[at + if code.is_some() { 4 } else { 1 }..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let text = "36 35 98:0 / /mnt/a\\040b rw,noatime shared:1 - cgroup cgroup rw,cpu,cpuacct\nbroken\n";
        let all: Vec<Mount> = parse(text).collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].point, PathBuf::from("/mnt/a b"));
        assert_eq!((all[0].fs_type.as_str(), all[0].options.as_str()), ("cgroup", "rw,cpu,cpuacct"));
    }
}
