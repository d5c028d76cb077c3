//! Manifests and indexes: hostile bytes in, a checked description out. Pure.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::platform::Platform;

/// Manifests, indexes and configs above this are refused (CVE-2023-25153; containerd's limit is 8 MiB, the OCI
/// distribution spec asks registries to accept 4).
pub const MAX_JSON_BYTES: u64 = 4 << 20;
/// Overlayfs stacks at most 500 layers; Docker makes at most 127.
const MAX_LAYERS: usize = 500;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest is no JSON of the expected shape: {0}")]
    Malformed(String),
    #[error("manifest has both `layers` and `manifests`: ambiguous, refused (CVE-2021-41190)")]
    Ambiguous,
    #[error("manifest has media type {found} but was served or described as {expected} (CVE-2021-41190)")]
    MediaType { expected: String, found: String },
    #[error("Docker schema 1 manifests are not supported: push the image again with a current client")]
    Schema1,
    #[error("{0} is not the manifest of an image")]
    NotAnImage(String),
    #[error("config has media type {0}: an artifact, not an image that can run")]
    Artifact(String),
    #[error("layer media type {0} is not supported")]
    LayerType(String),
    #[error("no manifest for {wanted} (there is: {available})")]
    NoPlatform { wanted: Platform, available: String },
    #[error("image has {0} layers, more than overlayfs can stack (500)")]
    TooManyLayers(usize),
    #[error("config names {diff_ids} layers and the manifest {layers}")]
    LayerCount { diff_ids: usize, layers: usize },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// What a registry or an archive may answer for a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    Image(ImageManifest),
    Index(Vec<Descriptor>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// `expected`: the media type the sender gave (Content-Type, descriptor); empty when it gave none.
    pub fn parse(bytes: &[u8], expected: &str) -> Result<Self, ManifestError> {
        let expected = expected.split(';').next().unwrap_or_default().trim();
        if DOCKER_SCHEMA1.contains(&expected) {
            return Err(ManifestError::Schema1);
        }
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
            return Err(ManifestError::Schema1);
        }
        if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
            return Err(ManifestError::Ambiguous);
        }
        if let Some(found) = &raw.media_type
            && is_manifest_type(expected)
            && found != expected
        {
            return Err(ManifestError::MediaType { expected: expected.to_owned(), found: found.clone() });
        }
        let media_type = raw.media_type.as_deref().filter(|given| !given.is_empty()).unwrap_or(expected);
        match raw {
            Raw { manifests: Some(manifests), .. } => match media_type {
                OCI_MANIFEST | DOCKER_MANIFEST => {
                    Err(ManifestError::NotAnImage(format!("an index typed {media_type}")))
                }
                _ => Ok(Self::Index(manifests)),
            },
            Raw { config: Some(config), layers, .. } => match media_type {
                OCI_INDEX | DOCKER_INDEX => {
                    Err(ManifestError::NotAnImage(format!("a manifest typed {media_type}")))
                }
                _ => ImageManifest::checked(config, layers.unwrap_or_default()).map(Self::Image),
            },
            _ => Err(ManifestError::NotAnImage(format!("{media_type:?} without config or manifests"))),
        }
    }
}

impl ImageManifest {
    fn checked(config: Descriptor, layers: Vec<Descriptor>) -> Result<Self, ManifestError> {
        if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG | "") {
            return Err(ManifestError::Artifact(config.media_type));
        }
        if layers.len() > MAX_LAYERS {
            return Err(ManifestError::TooManyLayers(layers.len()));
        }
        match layers.iter().find(|layer| !is_layer_type(&layer.media_type)) {
            Some(layer) => Err(ManifestError::LayerType(layer.media_type.clone())),
            None => Ok(Self { config, layers }),
        }
    }
}

/// The JSON of an image manifest: for images that come without one.
pub fn encode(image: &ImageManifest) -> Vec<u8> {
    let ImageManifest { config, layers } = image;
    let json = serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
    json.to_string().into_bytes()
}

fn is_manifest_type(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_INDEX)
}

/// The compression is told from the bytes, not from the type: archives and old registries mislabel it.
fn is_layer_type(media_type: &str) -> bool {
    let Some(rest) = media_type
        .strip_prefix("application/vnd.oci.image.layer.")
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs."))
    else {
        return media_type.is_empty();
    };
    matches!(
        rest,
        "v1.tar"
            | "v1.tar+gzip"
            | "v1.tar+zstd"
            | "diff.tar"
            | "diff.tar.gzip"
            | "diff.tar.zstd"
            | "nondistributable.v1.tar"
            | "nondistributable.v1.tar+gzip"
            | "nondistributable.v1.tar+zstd"
            | "foreign.diff.tar.gzip"
    )
}

/// The first manifest of an index that runs on `platform`. Attestations (platform unknown/unknown) never match; an
/// entry without platform matches only when it is alone, as in archives.
pub fn select<'a>(index: &'a [Descriptor], platform: &Platform) -> Result<&'a Descriptor, ManifestError> {
    let fits =
        |descriptor: &&Descriptor| descriptor.platform.as_ref().is_some_and(|other| platform.runs(other));
    if let [only @ Descriptor { platform: None, .. }] = index {
        return Ok(only);
    }
    index.iter().find(fits).ok_or_else(|| {
        let list: Vec<_> =
            index.iter().take(20).filter_map(|d| d.platform.as_ref()).map(ToString::to_string).collect();
        ManifestError::NoPlatform { wanted: platform.clone(), available: list.join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn image(media_type: &str, extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}",{extra}
            "config":{{"mediaType":"{OCI_CONFIG}","digest":"{D}","size":2}},
            "layers":[{{"mediaType":"{OCI_LAYER}+gzip","digest":"{D}","size":3}}]}}"#
        )
    }

    #[test]
    fn reads_images_and_indexes_of_both_families() {
        for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
            let parsed = Manifest::parse(image(media_type, "").as_bytes(), media_type).unwrap();
            assert!(matches!(parsed, Manifest::Image(image) if image.layers.len() == 1));
        }
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[
              {{"digest":"{D}","size":1,"mediaType":"{OCI_MANIFEST}","platform":{{"os":"unknown","architecture":"unknown"}}}},
              {{"digest":"{D}","size":2,"mediaType":"{OCI_MANIFEST}","platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
        );
        let Manifest::Index(list) = Manifest::parse(index.as_bytes(), OCI_INDEX).unwrap() else {
            panic!("no index")
        };
        let amd64 = Platform { os: "linux".into(), architecture: "amd64".into(), variant: None };
        assert_eq!(select(&list, &amd64).unwrap().size, 2);
        let s390x = Platform { architecture: "s390x".into(), ..amd64 };
        let error = select(&list, &s390x).unwrap_err().to_string();
        assert_eq!(error, "no manifest for linux/s390x (there is: unknown/unknown, linux/amd64)");
    }

    #[test]
    fn cve_2021_41190_manifest_with_layers_and_manifests_is_refused() {
        let both = image(OCI_MANIFEST, r#""manifests":[],"#);
        assert_eq!(Manifest::parse(both.as_bytes(), OCI_MANIFEST), Err(ManifestError::Ambiguous));
        let index_typed = image(OCI_INDEX, "");
        assert!(matches!(Manifest::parse(index_typed.as_bytes(), ""), Err(ManifestError::NotAnImage(_))));
        let relabelled = image(DOCKER_MANIFEST, "");
        assert!(matches!(
            Manifest::parse(relabelled.as_bytes(), OCI_MANIFEST),
            Err(ManifestError::MediaType { .. })
        ));
    }

    #[test]
    fn docker_schema1_is_refused_by_name() {
        let by_version = r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#;
        assert_eq!(Manifest::parse(by_version.as_bytes(), "application/json"), Err(ManifestError::Schema1));
        assert_eq!(Manifest::parse(b"{}", DOCKER_SCHEMA1[1]), Err(ManifestError::Schema1));
    }

    #[test]
    fn artifacts_unknown_layers_and_other_digests_are_refused_by_name() {
        let helm = image(OCI_MANIFEST, "").replace(OCI_CONFIG, "application/vnd.cncf.helm.config.v1+json");
        assert!(matches!(Manifest::parse(helm.as_bytes(), ""), Err(ManifestError::Artifact(_))));
        let encrypted = image(OCI_MANIFEST, "").replace("tar+gzip", "tar+gzip+encrypted");
        assert!(matches!(Manifest::parse(encrypted.as_bytes(), ""), Err(ManifestError::LayerType(_))));
        let sha512 = image(OCI_MANIFEST, "").replace("sha256:", "sha512:");
        assert!(Manifest::parse(sha512.as_bytes(), "").unwrap_err().to_string().contains("sha512"));
        assert!(matches!(Manifest::parse(b"[]", ""), Err(ManifestError::Malformed(_))));
    }
}
