//! Which manifest of an index is ours. Pure.

use serde::{Deserialize, Serialize};

/// Operating system and processor an image is built for, in Go's names. Source: OCI image-spec image-index.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// What this program was compiled for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8".to_owned())),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant }
    }

    /// Whether an image for `other` runs here: an absent variant is the architecture's base.
    pub fn runs(&self, other: &Platform) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (other.variant.is_none()
                || other.variant == self.variant
                || self.architecture == "amd64" && other.variant.as_deref() == Some("v1"))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        Platform { os: os.into(), architecture: architecture.into(), variant: variant.map(Into::into) }
    }

    #[test]
    fn an_absent_variant_matches_and_a_foreign_one_does_not() {
        let arm = platform("linux", "arm64", Some("v8"));
        assert!(arm.runs(&platform("linux", "arm64", None)));
        assert!(arm.runs(&platform("linux", "arm64", Some("v8"))));
        assert!(!arm.runs(&platform("linux", "arm64", Some("v9"))));
        assert!(!arm.runs(&platform("windows", "arm64", None)));
        let amd = platform("linux", "amd64", None);
        assert!(amd.runs(&platform("linux", "amd64", Some("v1"))));
        assert!(!amd.runs(&platform("linux", "amd64", Some("v3"))));
        assert!(!amd.runs(&platform("unknown", "unknown", None)));
    }
}
