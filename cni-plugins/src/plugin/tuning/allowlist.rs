//! The administrator's list of sysctls that networks may write: a regular expression a line, matched anywhere in the
//! key, as upstream. No file, no limit.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use corten_sys::Context;
use regex_lite::Regex;

use crate::Result;
use crate::error::{Code, Error};

const DEFAULT: &str = "/etc/cni/tuning/allowlist.conf";
/// Not a key of the configuration: whoever writes that is who is to be limited.
const VARIABLE: &str = "CORTEN_CNI_ALLOWLIST";

#[derive(Debug)]
pub enum Allowlist {
    Everything,
    Only(PathBuf, Vec<Regex>),
}

impl Allowlist {
    pub fn read() -> Result<Self> {
        let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
        let path = path.map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&path, &text),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Self::Everything),
            Err(e) => Err(e).tried(|| format!("read {}", path.display())).map_err(Into::into),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let compile = |line: &str| {
            Regex::new(line).map_err(|e| {
                let text = format!("{}: {line:?} is not a regular expression", path.display());
                Error::new(Code::InvalidConfig, text).details(e.to_string())
            })
        };
        Ok(Self::Only(path.to_owned(), lines.map(compile).collect::<Result<_>>()?))
    }

    /// `keys`: as the configuration writes them.
    pub fn refuse_others<'a>(&self, mut keys: impl Iterator<Item = &'a str>) -> Result<()> {
        let Self::Only(path, allowed) = self else { return Ok(()) };
        let Some(key) = keys.find(|key| !allowed.iter().any(|regex| regex.is_match(key))) else {
            return Ok(());
        };
        let allowed: Vec<&str> = allowed.iter().map(Regex::as_str).collect();
        Err(Error::config(format!(
            "Sysctl {key} is not allowed. Only the following sysctls are allowed: {allowed:?}"
        ))
        .details(format!("the list is {}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, key: &str) -> bool {
        let list = Allowlist::parse(Path::new("list"), list).expect("regular expressions");
        list.refuse_others([key].into_iter()).is_ok()
    }

    #[test]
    fn a_key_that_no_line_matches_is_refused() {
        let list = "^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$\n\n  ^net\\.core\\.somaxconn$ \n";
        assert!(allows(list, "net.ipv4.conf.IFNAME.forwarding"));
        assert!(allows(list, "net.core.somaxconn"));
        assert!(!allows(list, "net.core.somaxconn2"));
        assert!(!allows("", "net.core.somaxconn"), "an empty list allows nothing");
        assert!(allows("conf", "net.ipv4.conf.all.forwarding"), "anywhere in the key");
    }

    #[test]
    fn a_line_that_is_no_expression_is_named() {
        let error = Allowlist::parse(Path::new("list"), "net.(").expect_err("unclosed");
        assert!(error.msg.contains("\"net.(\""), "{error}");
    }
}
