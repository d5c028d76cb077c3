//! Pods from files: bytes → one JSON document (`parse`) → only supported fields (`supported`) → defaulted v1 Pod
//! (`defaults`) → valid v1 Pod (`validate`). `source` watches the directory. Nothing here knows of a runtime.

mod defaults;
mod field;
mod names;
mod parse;
mod source;
mod supported;
mod validate;
#[cfg(test)]
mod validate_test;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub use defaults::{CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE, tag};
pub use field::{FieldError, Problem};
pub use parse::{MAX_BYTES, SyntaxError};
pub use source::{Files, Source, SourceError};

/// Why a file is not run.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("read {}: {errno}", file.display(), errno = crate::errno_name(source))]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    #[error("{bytes} bytes: a manifest has at most {MAX_BYTES}")]
    TooLarge { bytes: u64 },
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error("{api_version:?} {kind:?} is not a v1 Pod: only Pods can be run from files")]
    NotAPod { api_version: String, kind: String },
    #[error("{}", join(.0))]
    Fields(Vec<FieldError>),
    #[error("not a Pod: {0}")]
    Typed(#[from] serde_json::Error),
    #[error("pod {pod} is already defined by {}", by.display())]
    Taken { pod: String, by: PathBuf },
}

fn join(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads a manifest's bytes as a Pod ready to run. Pure: `seen` is now, `file` only enters the UID.
pub fn read(bytes: &[u8], file: &Path, node_name: &str, seen: Timestamp) -> Result<Arc<Pod>, ManifestError> {
    let document = parse::document(bytes)?;
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if (api_version.as_str(), kind.as_str()) != ("v1", "Pod") {
        return Err(ManifestError::NotAPod { api_version, kind });
    }
    let findings = supported::check(&document);
    if !findings.is_empty() {
        return Err(ManifestError::Fields(findings));
    }
    let mut pod: Pod = serde_json::from_value(document)?;
    if let Some(error) = validate::manifest_name(pod.metadata.name.as_deref()) {
        return Err(ManifestError::Fields(vec![error]));
    }
    let given_node = pod.spec.as_mut().and_then(|spec| spec.node_name.take());
    defaults::apply(&mut pod, node_name, file, seen);
    if let (Some(spec), Some(given)) = (&mut pod.spec, given_node) {
        spec.node_name = Some(given);
    }
    let findings = validate::check(&pod, node_name);
    if findings.is_empty() { Ok(Arc::new(pod)) } else { Err(ManifestError::Fields(findings)) }
}
