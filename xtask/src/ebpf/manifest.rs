//! `ebpf/fastpath.toml`: what the committed object was built from and with. Pure.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// sha256 over the sources, see `source.rs`.
    pub sources: String,
    /// sha256 of `fastpath.bpf.o`.
    pub object: String,
    /// `rustc --version`.
    pub rustc: String,
    /// `bpf-linker --version`.
    pub bpf_linker: String,
    /// The version of the LLVM that bpf-linker was built with and that strips the object.
    pub llvm: String,
}

const HEAD: &str = "# What fastpath.bpf.o was built from and with. Written by `cargo xtask ebpf build`, compared by \
                    `cargo xtask ebpf check`.\n";

impl Manifest {
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("ebpf/fastpath.toml is no manifest")
    }

    pub fn to_text(&self) -> String {
        format!("{HEAD}{}", toml::to_string(self).expect("strings have a TOML form"))
    }

    /// Why the committed object is not the one of these sources; `None` if it is.
    pub fn stale(&self, sources: &str, object: &str) -> Option<&'static str> {
        if self.object != object {
            return Some("ebpf/fastpath.bpf.o is not the object that its manifest describes");
        }
        (self.sources != sources).then_some("the sources changed after ebpf/fastpath.bpf.o was built")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = |value: &str| value.to_string();
        Manifest {
            sources: text("aa"),
            object: text("bb"),
            rustc: text("rustc 1.95.0 (x 2026-01-01)"),
            bpf_linker: text("bpf-linker 0.13.0"),
            llvm: text("22.1.8"),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(Manifest::parse(&manifest().to_text()).unwrap(), manifest());
        assert!(Manifest::parse("sources = \"aa\"").is_err());
    }

    #[test]
    fn object_and_sources_must_both_match() {
        assert_eq!(manifest().stale("aa", "bb"), None);
        assert!(manifest().stale("cc", "bb").unwrap().contains("sources changed"));
        assert!(manifest().stale("aa", "cc").unwrap().contains("manifest"));
    }
}
