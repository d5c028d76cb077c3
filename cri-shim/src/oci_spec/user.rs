//! Who a container runs as: CRI's run_as fields or the image's USER, looked up in the rootfs' own passwd and group.
//! Both files are hostile: they are read line by line, with bounds (CVE-2026-47262, CVE-2025-4437, CVE-2024-8676).

use std::io::{BufRead, BufReader, Read};

use corten_cri_api::v1;

/// The largest /etc/passwd or /etc/group that is read.
pub const FILE_LIMIT_BYTES: u64 = 4 << 20;
/// The longest line.
pub const LINE_LIMIT_BYTES: usize = 64 << 10;
/// The most groups one user is put into.
pub const GROUPS_LIMIT: usize = 65_536;

/// What was asked for, before anything was looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserRequest {
    /// `uid`, `name`, `uid:gid`, ... as USER in an image; empty for root.
    pub user: String,
    pub supplemental: Vec<u32>,
    /// Whether the image's group file adds groups.
    pub merge: bool,
}

/// Numbers only: what the process gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// The primary gid is always the first (CVE-2023-25173).
    pub groups: Vec<u32>,
    /// `None` when the rootfs knows no such user.
    pub home: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswdError {
    #[error("{0:?} is not an id: a number from 0 to 2147483647 is needed")]
    Id(String),
    #[error("run_as_group is given without run_as_user or run_as_username")]
    GroupWithoutUser,
    #[error("no user {0:?} in the image's /etc/passwd")]
    NoUser(String),
    #[error("no group {0:?} in the image's /etc/group")]
    NoGroup(String),
    #[error("the image's {0} is larger than 4 MiB, has a line longer than 64 KiB or cannot be read")]
    File(&'static str),
    #[error("{0:?} is not a user: `user`, `uid`, `user:group` or `uid:gid` is needed")]
    Form(String),
    #[error("more than 65536 supplementary groups")]
    TooManyGroups,
}

impl UserRequest {
    /// From the CRI fields, else from the image's USER.
    pub fn new(security: &v1::LinuxContainerSecurityContext, image_user: &str) -> Result<Self, PasswdError> {
        let group = security.run_as_group.map(|g| id(g.value)).transpose()?;
        let user = match (&security.run_as_username, security.run_as_user) {
            (name, _) if !name.is_empty() => Some(name.clone()),
            (_, Some(uid)) => Some(id(uid.value)?.to_string()),
            _ => None,
        };
        let user = match (user, group) {
            (Some(user), Some(group)) => format!("{user}:{group}"),
            (Some(user), None) => user,
            (None, Some(_)) => return Err(PasswdError::GroupWithoutUser),
            (None, None) => image_user.to_owned(),
        };
        let supplemental = security.supplemental_groups.iter().map(|g| id(*g)).collect::<Result<_, _>>()?;
        let merge = security.supplemental_groups_policy() == v1::SupplementalGroupsPolicy::Merge;
        Ok(Self { user, supplemental, merge })
    }

    /// Looks names up in the rootfs' files; an absent file reads as empty.
    pub fn resolve(&self, passwd: impl Read, group: impl Read) -> Result<ResolvedUser, PasswdError> {
        let (user, group_part) = match self.user.split_once(':') {
            Some((user, group)) if !user.is_empty() && !group.is_empty() => (user, Some(group)),
            Some(_) => return Err(PasswdError::Form(self.user.clone())),
            None if self.user.is_empty() => ("0", None),
            None => (self.user.as_str(), None),
        };
        let entry = find_user(user, passwd)?;
        let uid = match (number(user)?, &entry) {
            (Some(uid), _) => uid,
            (None, Some(entry)) => entry.uid,
            (None, None) => return Err(PasswdError::NoUser(user.into())),
        };
        let name = entry.as_ref().map(|e| e.name.clone());
        let groups = read_groups(group, name.as_deref(), group_part)?;
        let gid = match group_part {
            Some(text) => match number(text)? {
                Some(gid) => gid,
                None => groups.named.ok_or_else(|| PasswdError::NoGroup(text.into()))?,
            },
            None => entry.as_ref().map_or(0, |e| e.gid),
        };
        let mut all = vec![gid];
        let from_image = if self.merge { groups.member_of } else { Vec::new() };
        for gid in from_image.into_iter().chain(self.supplemental.iter().copied()) {
            if !all.contains(&gid) {
                all.push(gid);
            }
        }
        if all.len() > GROUPS_LIMIT {
            return Err(PasswdError::TooManyGroups);
        }
        let home = entry.map(|e| e.home).filter(|h| h.starts_with('/') && !h.contains('\0'));
        Ok(ResolvedUser { uid, gid, groups: all, home })
    }
}

fn id(value: i64) -> Result<u32, PasswdError> {
    let wrong = |()| PasswdError::Id(value.to_string());
    i32::try_from(value).map_err(|_| ()).and_then(|v| u32::try_from(v).map_err(|_| ())).map_err(wrong)
}

/// A run of digits is an id and must fit 31 bits (CVE-2024-40635: an overflow once became root); else it is a name.
fn number(text: &str) -> Result<Option<u32>, PasswdError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if text == digits && i32::try_from(id).is_ok() => Ok(Some(id)),
        _ => Err(PasswdError::Id(text.into())),
    }
}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

fn find_user(user: &str, passwd: impl Read) -> Result<Option<PasswdEntry>, PasswdError> {
    let wanted = number(user)?;
    let mut found = None;
    for_each_line(passwd, "/etc/passwd", |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, rest @ ..] = fields.as_slice() else { return true };
        let (Ok(Some(uid)), Ok(Some(gid))) = (number(uid), number(gid)) else { return true };
        if wanted.map_or(*name == user, |wanted| wanted == uid) {
            let home = rest.get(1).unwrap_or(&"").to_string();
            found = Some(PasswdEntry { name: (*name).into(), uid, gid, home });
        }
        found.is_none()
    })?;
    Ok(found)
}

struct Groups {
    /// The group asked for by name.
    named: Option<u32>,
    member_of: Vec<u32>,
}

fn read_groups(file: impl Read, user: Option<&str>, wanted: Option<&str>) -> Result<Groups, PasswdError> {
    let mut groups = Groups { named: None, member_of: Vec::new() };
    for_each_line(file, "/etc/group", |line| {
        let fields: Vec<&str> = line.splitn(4, ':').collect();
        let [name, _, gid, rest @ ..] = fields.as_slice() else { return true };
        let Ok(Some(gid)) = number(gid) else { return true };
        if wanted == Some(name) && groups.named.is_none() {
            groups.named = Some(gid);
        }
        let members = rest.first().unwrap_or(&"");
        if user.is_some_and(|user| members.split(',').any(|member| member == user)) {
            groups.member_of.push(gid);
        }
        groups.member_of.len() <= GROUPS_LIMIT
    })?;
    Ok(groups)
}

/// Calls `line` for each line until it answers false. Bytes that are not UTF-8 make their line a stranger's.
fn for_each_line(
    file: impl Read,
    name: &'static str,
    mut line: impl FnMut(&str) -> bool,
) -> Result<(), PasswdError> {
    let broken = |_| PasswdError::File(name);
    let mut reader = BufReader::new(file.take(FILE_LIMIT_BYTES + 1));
    let mut total = 0u64;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let limit = LINE_LIMIT_BYTES as u64 + 1;
        let count = (&mut reader).take(limit).read_until(b'\n', &mut bytes).map_err(broken)?;
        total += count as u64;
        if count == 0 {
            return Ok(());
        }
        if total > FILE_LIMIT_BYTES || (bytes.len() > LINE_LIMIT_BYTES && bytes.last() != Some(&b'\n')) {
            return Err(PasswdError::File(name));
        }
        let text = std::str::from_utf8(&bytes).unwrap_or("").trim_end_matches(['\n', '\r']);
        if !line(text) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n\
        bad:x:99999999999:1::/:/bin/sh\ndefault-user:x:1000:1000::/home/default-user:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwww-data:x:33:\npredefined:x:50000:default-user\nstaff:x:50:www-data,x\n";

    fn request(user: &str, supplemental: &[u32], merge: bool) -> UserRequest {
        UserRequest { user: user.into(), supplemental: supplemental.into(), merge }
    }

    fn resolve(user: &str) -> Result<ResolvedUser, PasswdError> {
        request(user, &[], true).resolve(PASSWD.as_bytes(), GROUP.as_bytes())
    }

    #[test]
    fn every_form_of_user() {
        let home = |h: &str| Some(h.to_owned());
        for (text, uid, gid, groups, at_home) in [
            ("", 0, 0, vec![0], home("/root")),
            ("0", 0, 0, vec![0], home("/root")),
            ("www-data", 33, 33, vec![33, 50], home("/var/www")),
            ("33", 33, 33, vec![33, 50], home("/var/www")),
            ("1000", 1000, 1000, vec![1000, 50000], home("/home/default-user")),
            ("1234", 1234, 0, vec![0], None),
            ("1234:4321", 1234, 4321, vec![4321], None),
            ("www-data:staff", 33, 50, vec![50], home("/var/www")),
            ("1000:1004", 1000, 1004, vec![1004, 50000], home("/home/default-user")),
        ] {
            let expected = ResolvedUser { uid, gid, groups, home: at_home };
            assert_eq!(resolve(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn cve_2024_40635_ids_beyond_31_bits_are_errors_never_root() {
        for text in
            ["2147483648", "4294967296", "4294967295", "-1", "+0", "99999999999999999999", "0:4294967296"]
        {
            assert!(matches!(resolve(text), Err(PasswdError::Id(_))), "{text}");
        }
        let negative = v1::LinuxContainerSecurityContext {
            run_as_user: Some(v1::Int64Value { value: -1 }),
            ..Default::default()
        };
        assert!(matches!(UserRequest::new(&negative, ""), Err(PasswdError::Id(_))));
    }

    #[test]
    fn cve_2026_30892_a_user_that_only_starts_with_digits_is_a_name() {
        assert_eq!(resolve("1x"), Err(PasswdError::NoUser("1x".into())));
        assert_eq!(resolve("bad"), Err(PasswdError::NoUser("bad".into())));
        assert_eq!(resolve("www-data:nope"), Err(PasswdError::NoGroup("nope".into())));
        for text in [":", "a:", ":1"] {
            assert_eq!(resolve(text), Err(PasswdError::Form(text.into())));
        }
    }

    #[test]
    fn cve_2023_25173_the_primary_gid_is_supplementary_too() {
        let user = request("1000", &[7, 50000], true).resolve(PASSWD.as_bytes(), GROUP.as_bytes()).unwrap();
        assert_eq!(user.groups, [1000, 50000, 7]);
    }

    #[test]
    fn strict_policy_leaves_the_images_groups_out() {
        let user = request("1000", &[7], false).resolve(PASSWD.as_bytes(), GROUP.as_bytes()).unwrap();
        assert_eq!(user.groups, [1000, 7]);
    }

    #[test]
    fn cve_2026_47262_passwd_files_are_bounded() {
        let endless = std::io::repeat(b'a');
        assert_eq!(request("1", &[], true).resolve(endless, &b""[..]), Err(PasswdError::File("/etc/passwd")));
        let many_lines = "x:x:5:5::/:/\n".repeat(400_000);
        let found = request("1", &[], true).resolve(many_lines.as_bytes(), &b""[..]);
        assert_eq!(found, Err(PasswdError::File("/etc/passwd")));
        let groups = std::io::repeat(b'\n');
        assert_eq!(request("1", &[], true).resolve(&b""[..], groups), Err(PasswdError::File("/etc/group")));
    }

    #[test]
    fn cri_fields_win_over_the_image_and_a_group_needs_a_user() {
        let value = |value| Some(v1::Int64Value { value });
        let with = |user, name: &str, group| v1::LinuxContainerSecurityContext {
            run_as_user: user,
            run_as_username: name.into(),
            run_as_group: group,
            ..Default::default()
        };
        let asked = |s| UserRequest::new(&s, "image:group").map(|r| r.user);
        assert_eq!(asked(with(None, "", None)).unwrap(), "image:group");
        assert_eq!(asked(with(value(5), "", None)).unwrap(), "5");
        assert_eq!(asked(with(value(5), "", value(6))).unwrap(), "5:6");
        assert_eq!(asked(with(None, "www-data", value(6))).unwrap(), "www-data:6");
        assert_eq!(asked(with(None, "", value(6))), Err(PasswdError::GroupWithoutUser));
    }
}
