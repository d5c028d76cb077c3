//! Who the process is: user, groups, capabilities, home.

use std::io::Read;
use std::path::Path;

use corten_sys::caps::{self, Sets};
use corten_sys::{Context, Failure, process};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use super::protocol::{FromInit, InitEnd};
use crate::plan::Process;

/// An image's /etc/passwd is read up to here.
const PASSWD_LIMIT: u64 = 1 << 20;

/// Becomes the user with exactly the capabilities of the configuration that this process has to give.
pub(super) fn assume(process: &Process, socket: &InitEnd) -> Result<(), Failure> {
    let held = caps::held().tried(|| "read capabilities".into())?;
    let wanted = &process.capabilities;
    let sets = intersect(wanted, &held);
    let missing = (wanted.bounding | wanted.permitted | wanted.effective) & !(held.bounding & held.permitted);
    if missing != 0 {
        let text = format!("capabilities not held and thus not given: {}", caps::names(missing).join(", "));
        socket.send(&FromInit::Warning(text)).tried(|| "send a warning".into())?;
    }
    caps::limit_bounding(held.bounding, sets.bounding)
        .tried(|| "drop capabilities from the bounding set".into())?;
    caps::keep_over_setuid(true).tried(|| "prctl PR_SET_KEEPCAPS".into())?;
    let ids = &process.ids;
    process::set_ids(ids.uid, ids.gid, Some(&ids.groups))
        .tried(|| format!("become {}:{}", ids.uid, ids.gid))
        .map_err(|failure| {
            failure.hint("an id that the user namespace does not map, or setgroups is denied there")
        })?;
    caps::keep_over_setuid(false).tried(|| "prctl PR_SET_KEEPCAPS".into())?;
    caps::set(&sets).tried(|| "capset".into())?;
    caps::set_ambient(sets.ambient).tried(|| "set ambient capabilities".into())
}

/// What can be given: effective ones must be permitted, ambient ones permitted and inheritable.
fn intersect(wanted: &Sets, held: &Sets) -> Sets {
    let permitted = wanted.permitted & held.permitted;
    let inheritable = wanted.inheritable & held.permitted & held.bounding;
    Sets {
        bounding: wanted.bounding & held.bounding,
        permitted,
        effective: wanted.effective & permitted,
        inheritable,
        ambient: wanted.ambient & permitted & inheritable,
    }
}

/// `HOME=...` where the configuration has none: the user's home in the container's /etc/passwd, else `/`.
pub(super) fn home(process: &Process) -> Option<std::ffi::CString> {
    if process.has_home {
        return None;
    }
    let home =
        read_passwd().and_then(|text| home_of(&text, process.ids.uid)).unwrap_or_else(|| "/".to_owned());
    std::ffi::CString::new(format!("HOME={home}")).ok()
}

/// The file is the image's: it may be a device or a fifo, which must not block us.
fn read_passwd() -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(Path::new("/etc/passwd"), flags, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fstat(&file).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(PASSWD_LIMIT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Strict: `+1` or ` 1` is no uid (CVE-2026-30892 is what lenient parsing leads to).
fn home_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let id = fields.nth(2)?;
        let home = fields.nth(2)?;
        let matches = id.bytes().all(|b| b.is_ascii_digit()) && id.parse() == Ok(uid);
        (matches && home.starts_with('/')).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_comes_from_the_line_of_the_uid() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad:x:+5:5::/bad:\nshort:x:5\napp:x:1000:1000::/home/app:/bin/sh\n";
        assert_eq!(home_of(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home_of(passwd, 1000).as_deref(), Some("/home/app"));
        assert_eq!(home_of(passwd, 5), None);
    }

    #[test]
    fn capabilities_are_intersected_with_those_held() {
        let held = Sets { bounding: 0b0111, permitted: 0b0011, effective: 0b0011, ..Sets::default() };
        let all = 0b1111;
        let wanted =
            Sets { bounding: all, permitted: all, effective: all, inheritable: 0b0001, ambient: all };
        let given = intersect(&wanted, &held);
        let expected = Sets {
            bounding: 0b0111,
            permitted: 0b0011,
            effective: 0b0011,
            inheritable: 0b0001,
            ambient: 0b0001,
        };
        assert_eq!(given, expected);
    }
}
