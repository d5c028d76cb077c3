//! Manifests, configs and layers: hosts in order, digests and sizes checked, broken transfers resumed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use tokio::sync::mpsc;

use super::Session;
use super::error::RegistryError;
use crate::digest::{Digest, Hasher};
use crate::manifest::{self, Descriptor, MAX_JSON_BYTES, Manifest};
use crate::reference::Version;

/// Failures in a row without one new byte, before and after the first byte. With the pauses below, a registry that
/// restarts has about 15 s.
const MAX_FAILURES_AT_START: u32 = 2;
const MAX_FAILURES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub struct FetchedManifest {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub manifest: Manifest,
}

/// What a layer's reader is sent.
pub enum Piece {
    Data(Bytes),
    /// All bytes were sent and their digest is right. Without this the stream's end is an error.
    Verified,
}

/// Where a layer's bytes go.
pub struct Sink {
    pub pieces: mpsc::Sender<Piece>,
    /// Set by the reader before it gives up because of the bytes themselves: then they are fetched to the end
    /// nevertheless, to tell a wrong digest from a broken image.
    pub content_at_fault: Arc<AtomicBool>,
    /// Called with the bytes received so far.
    pub progress: Box<dyn Fn(u64) + Send + Sync>,
}

/// How an attempt at a blob ended.
enum Attempt {
    /// Another attempt, from the byte after the last, may do.
    Again(RegistryError),
    Final(RegistryError),
}

impl Session {
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The manifest or index that the reference names.
    pub async fn resolve(&self) -> Result<FetchedManifest, RegistryError> {
        match self.reference.version().clone() {
            Version::Tag(tag) => self.manifest(&tag, None, "").await,
            Version::Digest(digest) => self.manifest(&digest.to_string(), Some(digest), "").await,
        }
    }

    /// A manifest that an index names.
    pub async fn child(&self, descriptor: &Descriptor) -> Result<FetchedManifest, RegistryError> {
        let digest = descriptor.digest;
        self.manifest(&digest.to_string(), Some(digest), &descriptor.media_type).await
    }

    async fn manifest(
        &self,
        version: &str,
        expected: Option<Digest>,
        media_type: &str,
    ) -> Result<FetchedManifest, RegistryError> {
        let capability = if expected.is_some() { "pull" } else { "resolve" };
        let mut errors = Vec::new();
        for (index, session) in self.hosts.iter().enumerate() {
            if expected.is_some() && session.host.pull || expected.is_none() && session.host.resolve {
                match self.manifest_from(index, version, expected, media_type).await {
                    Ok(manifest) => return Ok(manifest),
                    Err(error) => errors.push(error),
                }
            }
        }
        Err(combined(errors, capability))
    }

    async fn manifest_from(
        &self,
        host: usize,
        version: &str,
        expected: Option<Digest>,
        media_type: &str,
    ) -> Result<FetchedManifest, RegistryError> {
        let accept =
            [manifest::OCI_INDEX, manifest::DOCKER_INDEX, manifest::OCI_MANIFEST, manifest::DOCKER_MANIFEST];
        let accept = HeaderValue::from_str(&accept.join(", ")).expect("media types are ASCII");
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept)]);
        let (url, response) = self.get(host, &format!("manifests/{version}"), &headers).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(&url, response).await);
        }
        let text = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let served_type = text("content-type").unwrap_or_default();
        let promised = text("docker-content-digest").and_then(|digest| digest.parse::<Digest>().ok());
        let bytes = self.body(&url, response, MAX_JSON_BYTES).await?;
        let found = Digest::of(&bytes);
        if let Some(expected) = expected.or(promised).filter(|&digest| digest != found) {
            return Err(RegistryError::Digest { url, expected, found });
        }
        let expected_type = if media_type.is_empty() { &served_type } else { media_type };
        let parsed = Manifest::parse(&bytes, expected_type);
        let manifest = parsed.map_err(|source| RegistryError::Manifest { url, source })?;
        Ok(FetchedManifest { bytes, digest: found, manifest })
    }

    /// A config: small, and kept as it is.
    pub async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let url = descriptor.digest.to_string();
        if descriptor.size > MAX_JSON_BYTES {
            return Err(RegistryError::TooLarge { url, limit: MAX_JSON_BYTES });
        }
        let mut errors = Vec::new();
        for host in (0..self.hosts.len()).filter(|&host| self.can_pull(host)) {
            match self.small_blob_from(host, descriptor).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => errors.push(error),
            }
        }
        Err(combined(errors, "pull"))
    }

    async fn small_blob_from(&self, host: usize, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let (pieces, mut received) = mpsc::channel(16);
        let sink = Sink { pieces, content_at_fault: Arc::default(), progress: Box::new(|_| {}) };
        let collect = async {
            let mut bytes = Vec::new();
            while let Some(Piece::Data(data)) = received.recv().await {
                bytes.extend_from_slice(&data);
            }
            bytes
        };
        let (fetched, bytes) = tokio::join!(self.blob(host, descriptor, sink), collect);
        fetched.map(|()| bytes)
    }

    pub fn can_pull(&self, host: usize) -> bool {
        self.hosts[host].host.pull
    }

    /// Streams a blob from one host into `sink`: size and digest checked, a broken connection resumed by Range (I4).
    pub async fn blob(&self, host: usize, descriptor: &Descriptor, sink: Sink) -> Result<(), RegistryError> {
        let mut hasher = Hasher::default();
        let mut failures = 0;
        let session = &self.hosts[host].host;
        let url = format!(
            "{}://{}/{}@{}",
            session.scheme,
            session.authority,
            self.reference.repository(),
            descriptor.digest
        );
        loop {
            let before = hasher.bytes();
            match self.attempt(host, descriptor, &mut hasher, &sink).await {
                Ok(()) => break,
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Again(error)) => {
                    failures = if hasher.bytes() > before { 1 } else { failures + 1 };
                    let limit = if hasher.bytes() == 0 { MAX_FAILURES_AT_START } else { MAX_FAILURES };
                    if failures >= limit {
                        let (got, want, problem) = (hasher.bytes(), descriptor.size, error.to_string());
                        return Err(if got == 0 {
                            error
                        } else {
                            RegistryError::Broken { url, failures, got, want, problem }
                        });
                    }
                    tracing::debug!(url, got = hasher.bytes(), %error, "transfer broke, resuming");
                    tokio::time::sleep((FIRST_PAUSE * 2u32.pow(failures - 1)).min(LONGEST_PAUSE)).await;
                }
            }
        }
        let found = hasher.finish();
        if found != descriptor.digest {
            return Err(RegistryError::Digest { url, expected: descriptor.digest, found });
        }
        sink.pieces.send(Piece::Verified).await.map_err(|_| RegistryError::Aborted)
    }

    async fn attempt(
        &self,
        host: usize,
        descriptor: &Descriptor,
        hasher: &mut Hasher,
        sink: &Sink,
    ) -> Result<(), Attempt> {
        let start = hasher.bytes();
        let want = descriptor.size;
        let mut headers = HeaderMap::new();
        if start > 0 {
            let range = HeaderValue::from_str(&format!("bytes={start}-")).expect("digits are ASCII");
            headers.insert(header::RANGE, range);
        }
        let answer = self.get(host, &format!("blobs/{}", descriptor.digest), &headers).await;
        let (url, response) = answer.map_err(|error| match error {
            RegistryError::Connect { .. } => Attempt::Again(error),
            other => Attempt::Final(other),
        })?;
        // Bytes of a whole answer that are here already.
        let mut skip = match response.status() {
            StatusCode::OK => start,
            StatusCode::PARTIAL_CONTENT if range_starts_at(response.headers(), start) => 0,
            StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(Attempt::Final(RegistryError::Truncated { url, got: start, want }));
            }
            status => {
                let busy = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                let error = self.refusal(&url, response).await;
                return Err(if busy { Attempt::Again(error) } else { Attempt::Final(error) });
            }
        };
        let announced = content_length(response.headers()).map(|length| length + start - skip);
        if let Some(got) = announced.filter(|&got| got < want) {
            return Err(Attempt::Final(RegistryError::Truncated { url, got, want }));
        }
        let mut body = response.into_body();
        loop {
            let data = match self.frame(&url, &mut body).await {
                Ok(Some(data)) => data,
                Ok(None) => break,
                Err(error @ RegistryError::Connect { .. }) => return Err(Attempt::Again(error)),
                Err(error) => return Err(Attempt::Final(error)),
            };
            let skipped = skip.min(data.len() as u64);
            skip -= skipped;
            let data = data.slice(skipped as usize..);
            if hasher.bytes() + data.len() as u64 > want {
                return Err(Attempt::Final(RegistryError::Oversized { url, want }));
            }
            hasher.update(&data);
            (sink.progress)(hasher.bytes());
            if !data.is_empty()
                && sink.pieces.send(Piece::Data(data)).await.is_err()
                && !sink.content_at_fault.load(Ordering::Acquire)
            {
                return Err(Attempt::Final(RegistryError::Aborted));
            }
        }
        if hasher.bytes() < want {
            let got = hasher.bytes();
            return Err(Attempt::Again(RegistryError::Truncated { url, got, want }));
        }
        Ok(())
    }
}

fn range_starts_at(headers: &HeaderMap, start: u64) -> bool {
    let value = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    value.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse().ok()) == Some(start)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub fn combined(mut errors: Vec<RegistryError>, capability: &'static str) -> RegistryError {
    match errors.len() {
        0 => RegistryError::NoHost(capability),
        1 => errors.remove(0),
        _ => RegistryError::AllHosts(errors),
    }
}
