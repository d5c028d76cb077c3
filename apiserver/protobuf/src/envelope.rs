//! `k8s\0` and `runtime.Unknown`. Source: apimachinery `pkg/runtime/generated.proto`.

use crate::error::{Error, Problem};
use crate::wire::{Reader, write_bytes, write_message};

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

pub fn is_envelope(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// What is in an envelope.
#[derive(Debug, Default)]
pub(crate) struct Envelope<'a> {
    pub(crate) api_version: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) raw: &'a [u8],
}

pub(crate) fn read(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(Problem::NoEnvelope)?;
    let mut envelope = Envelope::default();
    let mut reader = Reader::new(rest);
    while let Some((number, raw)) = reader.field()? {
        match number {
            1 => {
                let mut meta = Reader::new(raw.bytes()?);
                while let Some((number, raw)) = meta.field()? {
                    match number {
                        1 => envelope.api_version = raw.text()?,
                        2 => envelope.kind = raw.text()?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = raw.bytes()?,
            3 if !raw.bytes()?.is_empty() => return Err(Problem::Encoding(raw.text()?.to_owned()).into()),
            _ => {}
        }
    }
    Ok(envelope)
}

pub(crate) fn write(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAGIC.len() + raw.len() + api_version.len() + kind.len() + 20);
    out.extend_from_slice(MAGIC);
    write_message(&mut out, 1, |meta| {
        write_bytes(meta, 1, api_version.as_bytes());
        write_bytes(meta, 2, kind.as_bytes());
    });
    write_bytes(&mut out, 2, raw);
    // Content encoding and type: upstream's encoder writes them even when they are empty.
    write_bytes(&mut out, 3, b"");
    write_bytes(&mut out, 4, b"");
    out
}
