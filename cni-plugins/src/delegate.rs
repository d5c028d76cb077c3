//! Running another plugin: in this process when it is one of ours, by exec of CNI_PATH when it is not.
//!
//! The CNI specification's rules for delegation: the same environment but for the verb, the whole configuration on
//! stdin, stderr passed through. Knows nothing of what is delegated; [`crate::ipam`] and the flannel plugin do.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use corten_sys::Context;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::Value;

use crate::Result;
use crate::error::{Code, Error};
use crate::plugin::{self, Plugin};
use crate::skel::{Attachment, Network, ValidAttachment};

/// No result of a plugin is near it.
const STDOUT_LIMIT_BYTES: u64 = 4 * 1024 * 1024;

/// What another plugin is run for.
#[derive(Debug, PartialEq, Eq)]
pub struct Role {
    /// For errors: "IPAM plugin".
    pub title: &'static str,
    /// The key that names the plugin.
    pub key: &'static str,
    /// The one plugin of ours that fits.
    pub built_in: &'static str,
    /// An environment variable that, set to 1, runs the program even though the plugin is built in.
    pub exec_variable: &'static str,
}

/// Another plugin, by the name of its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate {
    name: String,
    role: &'static Role,
}

impl Delegate {
    pub fn new(role: &'static Role, name: &str) -> Result<Self> {
        if name.is_empty() || name.contains('/') {
            return Err(Error::config(format!("{} {name:?} is not the name of a plugin", role.key)));
        }
        Ok(Self { name: name.to_owned(), role })
    }

    /// `None`: it is run by exec.
    pub fn ours(&self) -> Option<&'static Plugin> {
        let exec = || std::env::var_os(self.role.exec_variable).is_some_and(|v| v == "1");
        if self.name == self.role.built_in && !exec() { plugin::find(&self.name) } else { None }
    }

    /// The result as it came.
    pub fn add(&self, network: &Network, attachment: &Attachment) -> Result<Value> {
        if let Some(plugin) = self.ours() {
            return (plugin.add)(network, attachment);
        }
        let stdout = self.exec("ADD", network, Some(attachment))?;
        serde_json::from_slice(&stdout).map_err(|e| {
            Error::new(Code::Decoding, format!("result of {} {}: {e}", self.role.title, self.name))
        })
    }

    pub fn del(&self, network: &Network, attachment: &Attachment) -> Result<()> {
        match self.ours() {
            Some(plugin) => (plugin.del)(network, attachment),
            None => self.exec("DEL", network, Some(attachment)).map(drop),
        }
    }

    pub fn check(&self, network: &Network, attachment: &Attachment) -> Result<()> {
        match self.ours() {
            Some(plugin) => (plugin.check)(network, attachment),
            None => self.exec("CHECK", network, Some(attachment)).map(drop),
        }
    }

    pub fn gc(&self, network: &Network, valid: &[ValidAttachment]) -> Result<()> {
        match self.ours() {
            Some(plugin) => (plugin.gc)(network, valid),
            None => self.exec("GC", network, None).map(drop),
        }
    }

    pub fn status(&self, network: &Network) -> Result<()> {
        match self.ours() {
            Some(plugin) => (plugin.status)(network),
            None => self.exec("STATUS", network, None).map(drop),
        }
    }

    /// Our own environment reaches the program; what is set here differs from it when GC deletes on behalf of an
    /// attachment that nobody names.
    fn exec(&self, verb: &str, network: &Network, attachment: Option<&Attachment>) -> Result<Vec<u8>> {
        let program = self.find(network)?;
        let mut command = Command::new(&program);
        command.env("CNI_COMMAND", verb).stdin(Stdio::from(self.stdin_of(network)?));
        if let Some(attachment) = attachment {
            command
                .env("CNI_CONTAINERID", &attachment.container_id)
                .env("CNI_IFNAME", &attachment.ifname)
                .env("CNI_NETNS", &attachment.netns);
        }
        let what = || format!("run {} {}", self.role.title, program.display());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().tried(what)?;
        let mut stdout = Vec::new();
        let pipe = child.stdout.take().expect("piped");
        let read = pipe.take(STDOUT_LIMIT_BYTES + 1).read_to_end(&mut stdout);
        // The pipe is closed here: one that goes on writing gets SIGPIPE.
        let status = child.wait().tried(what)?;
        read.tried(what)?;
        if stdout.len() as u64 > STDOUT_LIMIT_BYTES {
            return Err(Error::internal(format!(
                "{} {} printed more than 4 MiB",
                self.role.title, self.name
            )));
        }
        if status.success() { Ok(stdout) } else { Err(self.error(&status.to_string(), &stdout)) }
    }

    fn find(&self, network: &Network) -> Result<PathBuf> {
        let candidates = network.path.iter().map(|dir| dir.join(&self.name));
        candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            let text = format!("failed to find plugin {:?} in path {:?}", self.name, network.path);
            Error::environment(text)
                .details(format!("CNI_PATH must list the directory of the {}", self.role.title))
        })
    }

    /// In memory rather than a pipe: we need not write while the plugin runs, so no thread.
    fn stdin_of(&self, network: &Network) -> Result<File> {
        let descriptor = memfd_create("cni-stdin", MemfdFlags::CLOEXEC)
            .tried(|| format!("create stdin of {} {}", self.role.title, self.name))?;
        let mut file = File::from(descriptor);
        file.write_all(&network.stdin)
            .and_then(|()| file.rewind())
            .tried(|| format!("write stdin of {} {}", self.role.title, self.name))?;
        Ok(file)
    }

    /// A plugin tells its error on stdout; when it does not, its exit status has to do.
    fn error(&self, status: &str, stdout: &[u8]) -> Error {
        let said: Option<Value> = serde_json::from_slice(stdout).ok();
        let text = |key: &str| Some(said.as_ref()?.get(key)?.as_str()?.to_owned());
        let code = said.as_ref().and_then(|v| v.get("code")).and_then(Value::as_u64);
        match (code, text("msg")) {
            (Some(code), Some(msg)) => {
                let code = Code::Delegate(u32::try_from(code).unwrap_or(999));
                Error::new(code, format!("{} {}: {msg}", self.role.title, self.name))
                    .details(text("details").unwrap_or_default())
            }
            _ => Error::internal(format!(
                "{} {} failed ({status}) and printed no CNI error",
                self.role.title, self.name
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ROLE: Role =
        Role { title: "IPAM plugin", key: "ipam.type", built_in: "x", exec_variable: "UNSET" };

    #[test]
    fn a_delegates_error_keeps_its_code_and_names_the_delegate() {
        let delegate = Delegate::new(&ROLE, "dhcp").expect("a name");
        let error = delegate.error("exit status: 1", br#"{"code":105,"msg":"no lease","details":"d"}"#);
        assert_eq!((error.code.number(), error.msg.as_str()), (105, "IPAM plugin dhcp: no lease"));
        let error = delegate.error("signal: 9 (SIGKILL)", b"garbage");
        assert_eq!(error.code, Code::Internal);
        assert!(error.msg.contains("SIGKILL"), "{error}");
    }

    #[test]
    fn a_path_is_not_the_name_of_a_plugin() {
        for bad in ["", "../x", "/bin/sh"] {
            let error = Delegate::new(&ROLE, bad).expect_err(bad);
            assert!(error.msg.contains("ipam.type"), "{error}");
        }
    }
}
