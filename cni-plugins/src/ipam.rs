//! Delegation to the address plugin: in this process when it is one of ours, by exec of CNI_PATH when it is not.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use corten_sys::Context;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::Value;

use crate::Result;
use crate::error::{Code, Error};
use crate::plugin::{Plugin, host_local};
use crate::skel::{Attachment, Network, ValidAttachment};
use crate::types::{self, CniResult};

/// The address plugin a configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipam(String);

impl Ipam {
    /// `None`: the network has no addresses.
    pub fn of(network: &Network) -> Result<Option<Self>> {
        let kind = match network.config.get("ipam").and_then(|ipam| ipam.get("type")) {
            None => return Ok(None),
            Some(Value::String(kind)) => kind,
            Some(_) => return Err(Error::new(Code::Decoding, "key \"ipam.type\" is not a string")),
        };
        if kind.is_empty() {
            return Ok(None);
        }
        if kind.contains('/') {
            return Err(Error::config(format!("ipam.type {kind:?} is not the name of a plugin")));
        }
        Ok(Some(Self(kind.clone())))
    }

    fn ours(&self) -> Option<&'static Plugin> {
        let exec = std::env::var_os("CORTEN_CNI_EXEC_IPAM").is_some_and(|v| v == "1");
        (self.0 == host_local::PLUGIN.name && !exec).then_some(&host_local::PLUGIN)
    }

    pub fn add(&self, network: &Network, attachment: &Attachment) -> Result<CniResult> {
        if self.ours().is_some() {
            return host_local::allocate_all(network, attachment);
        }
        let stdout = self.exec("ADD", network)?;
        let value: Value = serde_json::from_slice(&stdout)
            .map_err(|e| Error::new(Code::Decoding, format!("result of IPAM plugin {}: {e}", self.0)))?;
        types::parse(&value, network.version)
    }

    pub fn del(&self, network: &Network, attachment: &Attachment) -> Result<()> {
        match self.ours() {
            Some(plugin) => (plugin.del)(network, attachment),
            None => self.exec("DEL", network).map(drop),
        }
    }

    pub fn check(&self, network: &Network, attachment: &Attachment) -> Result<()> {
        match self.ours() {
            Some(plugin) => (plugin.check)(network, attachment),
            None => self.exec("CHECK", network).map(drop),
        }
    }

    pub fn gc(&self, network: &Network, valid: &[ValidAttachment]) -> Result<()> {
        match self.ours() {
            Some(plugin) => (plugin.gc)(network, valid),
            None => self.exec("GC", network).map(drop),
        }
    }

    pub fn status(&self, network: &Network) -> Result<()> {
        match self.ours() {
            Some(plugin) => (plugin.status)(network),
            None => self.exec("STATUS", network).map(drop),
        }
    }

    /// The same environment but for the verb, the whole of stdin; stderr is passed through.
    fn exec(&self, verb: &str, network: &Network) -> Result<Vec<u8>> {
        let program = self.find(network)?;
        let spawned = Command::new(&program)
            .env("CNI_COMMAND", verb)
            .stdin(Stdio::from(stdin_of(network)?))
            .stderr(Stdio::inherit())
            .output();
        let output = spawned.tried(|| format!("run IPAM plugin {}", program.display()))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(delegate_error(&self.0, &output.status.to_string(), &output.stdout))
    }

    fn find(&self, network: &Network) -> Result<PathBuf> {
        let candidates = network.path.iter().map(|dir| dir.join(&self.0));
        candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            let text = format!("failed to find plugin {:?} in path {:?}", self.0, network.path);
            Error::environment(text).details("CNI_PATH must list the directory of the IPAM plugin")
        })
    }
}

/// In memory rather than a pipe: we need not write while the plugin runs, so no thread.
fn stdin_of(network: &Network) -> Result<File> {
    let descriptor =
        memfd_create("cni-stdin", MemfdFlags::CLOEXEC).tried(|| "create stdin of IPAM plugin".into())?;
    let mut file = File::from(descriptor);
    file.write_all(&network.stdin)
        .and_then(|()| file.rewind())
        .tried(|| "write stdin of IPAM plugin".into())?;
    Ok(file)
}

/// A plugin tells its error on stdout; when it does not, its exit status has to do.
fn delegate_error(name: &str, status: &str, stdout: &[u8]) -> Error {
    let said: Option<Value> = serde_json::from_slice(stdout).ok();
    let text = |key: &str| Some(said.as_ref()?.get(key)?.as_str()?.to_owned());
    let code = said.as_ref().and_then(|v| v.get("code")).and_then(Value::as_u64);
    match (code, text("msg")) {
        (Some(code), Some(msg)) => {
            let code = Code::Delegate(u32::try_from(code).unwrap_or(999));
            Error::new(code, format!("IPAM plugin {name}: {msg}"))
                .details(text("details").unwrap_or_default())
        }
        _ => Error::internal(format!("IPAM plugin {name} failed ({status}) and printed no CNI error")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegates_error_keeps_its_code_and_names_the_delegate() {
        let error =
            delegate_error("dhcp", "exit status: 1", br#"{"code":105,"msg":"no lease","details":"d"}"#);
        assert_eq!((error.code.number(), error.msg.as_str()), (105, "IPAM plugin dhcp: no lease"));
        let error = delegate_error("dhcp", "signal: 9 (SIGKILL)", b"garbage");
        assert_eq!(error.code, Code::Internal);
        assert!(error.msg.contains("SIGKILL"), "{error}");
    }
}
