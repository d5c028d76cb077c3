//! The record that makes an image exist, and how a text finds one. Plain data; opens nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::unpack::Usage;

pub const VERSION: u32 = 1;
/// Shorter texts would find an image by accident.
const MIN_ID_PREFIX: usize = 4;

/// An image whose every layer is unpacked and synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    pub version: u32,
    /// Digest of the config: CRI's Image.id and PullImageResponse.image_ref.
    pub id: Digest,
    /// Digest of this platform's manifest (an index that led to it stands in `repo_digests`).
    pub manifest: Digest,
    /// Complete references with tag, sorted.
    pub repo_tags: BTreeSet<String>,
    /// Complete references with digest, sorted.
    pub repo_digests: BTreeSet<String>,
    /// Lowest first.
    pub layers: Vec<ImageLayer>,
    /// Bytes on disk: unpacked layers, config and manifest.
    pub size_bytes: u64,
    /// Never to be collected by the kubelet.
    pub pinned: bool,
    /// USER of the config, as written there; hostile.
    pub user: String,
    /// Grows with every record written to this store: of two records that claim one tag, the higher has it.
    pub generation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageLayer {
    pub chain_id: Digest,
    pub diff_id: Digest,
    /// Of the compressed blob.
    pub digest: Digest,
    pub compressed_bytes: u64,
}

/// `layer.json` in a layer's directory: its commit mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRecord {
    pub version: u32,
    pub chain_id: Digest,
    pub diff_id: Digest,
    pub usage: Usage,
    /// Hides every layer below.
    pub root_opaque: bool,
}

/// `snapshot.json` in a container snapshot's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRecord {
    pub version: u32,
    pub key: String,
    pub image: Digest,
    /// Chain ids, lowest first: kept alive by this snapshot even when the image is removed.
    pub layers: Vec<Digest>,
}

impl ImageRecord {
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.repo_tags.iter().chain(&self.repo_digests)
    }

    /// Takes a name away. The digests of a repository go with its last tag, as in Docker.
    pub fn untag(&mut self, reference: &Reference) -> bool {
        let full = reference.to_string();
        let removed = self.repo_tags.remove(&full) || self.repo_digests.remove(&full);
        let tag_prefix = format!("{}:", reference.name());
        if removed
            && reference.tag().is_some()
            && !self.repo_tags.iter().any(|tag| tag.starts_with(&tag_prefix))
        {
            let digest_prefix = format!("{}@", reference.name());
            self.repo_digests.retain(|digest| !digest.starts_with(&digest_prefix));
        }
        removed
    }
}

/// Finds an image by id (with or without `sha256:`), by any reference, or by a unique prefix of its id.
pub fn find(
    images: impl Iterator<Item = Arc<ImageRecord>> + Clone,
    text: &str,
) -> Result<Arc<ImageRecord>, StoreError> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let not_found = || StoreError::NotFound(text.chars().take(300).collect());
    if let Some(id) = Digest::from_hex(hex) {
        return images.clone().find(|image| image.id == id).ok_or_else(not_found);
    }
    let parsed = Reference::parse(text);
    if let Ok(reference) = &parsed {
        let name = reference.to_string();
        if let Some(image) = images.clone().find(|image| image.names().any(|known| *known == name)) {
            return Ok(image);
        }
    }
    let is_prefix = hex.len() >= MIN_ID_PREFIX && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_prefix {
        let mut matching = images.filter(|image| image.id.hex().starts_with(hex));
        return match (matching.next(), matching.next()) {
            (Some(image), None) => Ok(image),
            (Some(_), Some(_)) => Err(StoreError::Ambiguous(text.to_owned())),
            _ => Err(not_found()),
        };
    }
    parsed.map_err(StoreError::Reference).and_then(|_| Err(not_found()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(seed: &str, tags: &[&str]) -> Arc<ImageRecord> {
        let id = Digest::of(seed.as_bytes());
        Arc::new(ImageRecord {
            version: VERSION,
            id,
            manifest: id,
            repo_tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            repo_digests: [format!("docker.io/library/{seed}@{id}")].into(),
            layers: Vec::new(),
            size_bytes: 1,
            pinned: false,
            user: String::new(),
            generation: 1,
        })
    }

    #[test]
    fn an_image_is_found_by_all_its_names() {
        let all = [image("one", &["docker.io/library/one:latest", "localhost:5000/x:v1"]), image("two", &[])];
        let id = all[0].id;
        let texts = [
            "one",
            "one:latest",
            "docker.io/one",
            "localhost:5000/x:v1",
            &id.to_string(),
            &id.hex(),
            &id.hex()[..12],
            &format!("sha256:{}", &id.hex()[..8]),
            &format!("one@{id}"),
            &format!("one:other@{id}"),
        ];
        for text in texts {
            assert_eq!(find(all.iter().cloned(), text).unwrap().id, id, "{text}");
        }
        for text in ["three", "one:v2", "ffffffff", "x:v1"] {
            assert!(matches!(find(all.iter().cloned(), text), Err(StoreError::NotFound(_))), "{text}");
        }
        assert!(matches!(find(all.iter().cloned(), "NOT VALID"), Err(StoreError::Reference(_))));
    }

    #[test]
    fn the_digests_of_a_repository_go_with_its_last_tag() {
        let mut record = (*image("one", &["docker.io/library/one:a", "docker.io/library/one:b"])).clone();
        assert!(record.untag(&Reference::parse("one:a").unwrap()));
        assert_eq!(record.repo_digests.len(), 1);
        assert!(!record.untag(&Reference::parse("one:a").unwrap()));
        assert!(record.untag(&Reference::parse("one:b").unwrap()));
        assert_eq!(record.names().count(), 0);
    }

    #[test]
    fn a_record_of_version_1_is_readable() {
        let d = Digest::of(b"");
        let text = format!(
            r#"{{"version":1,"id":"{d}","manifest":"{d}","repo_tags":["docker.io/library/a:1"],"repo_digests":[],
            "layers":[{{"chain_id":"{d}","diff_id":"{d}","digest":"{d}","compressed_bytes":5}}],
            "size_bytes":7,"pinned":true,"user":"65532","generation":3}}"#
        );
        let record: ImageRecord = serde_json::from_str(&text).unwrap();
        assert!(record.pinned && record.layers.len() == 1 && record.user == "65532");
    }
}
