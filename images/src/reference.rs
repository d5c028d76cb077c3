//! Image references as Docker and containerd normalise them. Pure: text in, parts out.
//! Source: distribution/reference grammar and its `ParseDockerRef`.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

const DEFAULT_REGISTRY: &str = "docker.io";
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// A complete reference: registry, repository and exactly one of tag and digest.
///
/// `busybox` is `docker.io/library/busybox:latest`. A digest beats a tag, as in containerd's CRI: the tag of
/// `name:tag@digest` is dropped, because nothing says that it names this digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    Tag(String),
    Digest(Digest),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("image reference {reference:?}: {problem}")]
    Malformed { reference: String, problem: &'static str },
    #[error("image reference {reference:?}: {source}")]
    Digest { reference: String, source: DigestError },
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let shown = || text.chars().take(300).collect::<String>();
        let fail = |problem| ReferenceError::Malformed { reference: shown(), problem };
        if text.is_empty() {
            return Err(fail("is empty"));
        }
        let (name_and_tag, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let parsed =
                    digest.parse().map_err(|source| ReferenceError::Digest { reference: shown(), source })?;
                (rest, Some(parsed))
            }
            None => (text, None),
        };
        let (name, tag) = split_tag(name_and_tag);
        if Digest::from_hex(name).is_some() {
            return Err(fail("is an image id; a repository name may not look like one"));
        }
        let (registry, repository) = split_registry(name);
        if !valid_registry(&registry) {
            return Err(fail("the registry is no host name, IP address or [IPv6], with an optional port"));
        }
        if !repository.split('/').all(valid_path_component) {
            return Err(fail(
                "the repository must be lower-case letters and digits, with `.`, `_`, `__` or dashes between them",
            ));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(fail("the name is longer than 255 bytes"));
        }
        if tag.is_some_and(|tag| !valid_tag(tag)) {
            return Err(fail(
                "the tag must be 1 to 128 of letters, digits, `_`, `.`, `-`, not starting with `.` or `-`",
            ));
        }
        let version = match digest {
            Some(digest) => Version::Digest(digest),
            None => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self { registry, repository, version })
    }

    /// `docker.io`, `127.0.0.1:5000`: the name a user knows the registry by, not where it is reached.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn version(&self) -> &Version {
        &self.version
    }

    /// `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    pub fn digest(&self) -> Option<Digest> {
        match self.version {
            Version::Digest(digest) => Some(digest),
            Version::Tag(_) => None,
        }
    }

    /// The same repository at `digest`: what stands in an image's `repo_digests`.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { version: Version::Digest(digest), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, repository, version } = self;
        match version {
            Version::Tag(tag) => write!(f, "{registry}/{repository}:{tag}"),
            Version::Digest(digest) => write!(f, "{registry}/{repository}@{digest}"),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// The colon of a tag stands after the last slash; one before it belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    let path_start = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[path_start..].find(':') {
        Some(colon) => (&text[..path_start + colon], Some(&text[path_start + colon + 1..])),
        None => (text, None),
    }
}

/// Docker's rule: the first component is a registry if it could not be a repository's.
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        return (registry.to_owned(), format!("library/{repository}"));
    }
    (registry.to_owned(), repository.to_owned())
}

fn valid_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (None, rest.strip_prefix(':').or_else(|| (!rest.is_empty()).then_some("bad")))
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(label)) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn valid_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(first)
        && alphanumeric(last)
        && component.split(|c: char| c.is_ascii() && alphanumeric(c as u8)).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=MAX_TAG_BYTES).contains(&tag.len())
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
        && tag.bytes().next().is_some_and(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_as_docker_does() {
        let with_digest = [
            (format!("busybox@{D}"), format!("docker.io/library/busybox@{D}")),
            (format!("busybox:1@{D}"), format!("docker.io/library/busybox@{D}")),
            (format!("gcr.io/k8s-staging-cri-tools/x@{D}"), format!("gcr.io/k8s-staging-cri-tools/x@{D}")),
        ];
        let plain = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox:latest"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("Example.com/app", "Example.com/app:latest"),
            ("a.b/c__d/e---f:X_y.Z-1", "a.b/c__d/e---f:X_y.Z-1"),
            ("corten.local/demo:0.1", "corten.local/demo:0.1"),
        ];
        let plain = plain.map(|(from, to)| (from.to_owned(), to.to_owned()));
        for (text, want) in plain.into_iter().chain(with_digest) {
            let reference = Reference::parse(&text).unwrap();
            assert_eq!(reference.to_string(), want, "{text}");
            assert_eq!(Reference::parse(&want).unwrap(), reference, "{want} is stable");
        }
    }

    #[test]
    fn refuses_what_docker_refuses() {
        let long = format!("{}/x", "a".repeat(256));
        let id = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let long_tag = format!("x:{}", "t".repeat(129));
        for bad in [
            "",
            ":tag",
            "Busybox",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a..b",
            "a___b",
            "x:",
            "x:-t",
            "x:t/../y",
            "x@sha256:12",
            "x@md5:00",
            "ho st/x",
            "h.-a/x",
            "h:99999/x",
            "[::z]:1/x",
            "[::1]x/y",
            "../etc",
            "a/../b",
            &long,
            id,
            &long_tag,
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
