//! Unpacks one layer straight from its stream into a directory, in overlayfs' own format (whiteouts as 0:0 character
//! devices, opaque directories by xattr). Two threads: one decompresses, one hashes (diff id), parses and writes.
//! Knows nothing of registries; may not resolve a path except beneath the directory it was given.

pub mod error;
mod fixup;
pub(crate) mod path;
pub(crate) mod tar;
mod writer;

use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::sync::mpsc;

pub use error::UnpackError;
pub use fixup::apply as apply_fixups;

use crate::digest::{Digest, Hasher};

/// Ceilings for one layer: far above real images, low enough that a bomb ends in an error and not in a full disk.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub entries: u64,
    /// Bytes after decompression, holes of sparse files included.
    pub bytes: u64,
    /// Components of one path.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 5_000_000, bytes: 256 << 30, depth: 256 }
    }
}

/// What a layer takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

/// What could not be done without the layers below.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fixups {
    /// Directories made for an entry whose tar does not hold them: they take the lower directory's metadata, lest
    /// overlayfs show ours. Parents before children.
    pub implicit_dirs: std::collections::BTreeSet<Vec<u8>>,
    /// (link, target) where the target is not in this layer.
    pub hardlinks: Vec<(Vec<u8>, Vec<u8>)>,
    /// Modification times (seconds, nanoseconds) of directories, set when nothing is written into them any more.
    pub dir_times: std::collections::BTreeMap<Vec<u8>, (i64, u32)>,
}

#[derive(Debug)]
pub struct Unpacked {
    pub usage: Usage,
    pub fixups: Fixups,
    /// The layer hides everything below it. Overlayfs does not honour the mark on a layer's root, so that the stack
    /// must be cut here.
    pub root_opaque: bool,
}

const CHUNK_BYTES: usize = 256 << 10;
/// Chunks between the decompressor and the writer.
const CHUNKS: usize = 8;

/// Unpacks `compressed` (gzip, zstd or plain; told from its first bytes) into `root` and checks `diff_id`.
///
/// On error `root` holds part of the layer; the caller removes it.
pub fn unpack(
    compressed: impl Read + Send,
    diff_id: Digest,
    root: OwnedFd,
    limits: Limits,
) -> Result<Unpacked, UnpackError> {
    let (filled, full) = mpsc::sync_channel::<io::Result<Vec<u8>>>(CHUNKS);
    let (emptied, empty) = mpsc::channel::<Vec<u8>>();
    std::thread::scope(|scope| {
        scope.spawn(move || decompress(compressed, &filled, &empty));
        let reader = ChunkReader {
            full,
            emptied,
            chunk: Vec::new(),
            at: 0,
            hasher: Hasher::default(),
            limit: limits.bytes,
        };
        write_layer(reader, diff_id, root, limits)
    })
}

fn decompress(
    compressed: impl Read,
    filled: &mpsc::SyncSender<io::Result<Vec<u8>>>,
    empty: &mpsc::Receiver<Vec<u8>>,
) {
    let mut decoder = match decoder(compressed) {
        Ok(decoder) => decoder,
        Err(error) => return drop(filled.send(Err(error))),
    };
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK_BYTES, 0);
        let result = fill(&mut decoder, &mut chunk).map(|length| {
            chunk.truncate(length);
            chunk
        });
        let last = !matches!(&result, Ok(chunk) if chunk.len() == CHUNK_BYTES);
        // The writer is gone after an error of its own, which is the one that is reported.
        if filled.send(result).is_err() || last {
            return;
        }
    }
}

pub(crate) fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

pub(crate) fn is_compressed(start: &[u8]) -> bool {
    start.starts_with(GZIP) || start.starts_with(ZSTD)
}

/// By magic number: media types are wrong too often, in `docker save` archives always.
pub(crate) fn decoder<'a, R: Read + 'a>(compressed: R) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = compressed;
    let mut magic = [0; ZSTD.len()];
    let length = fill(&mut reader, &mut magic)?;
    let whole =
        BufReader::with_capacity(CHUNK_BYTES, io::Cursor::new(magic).take(length as u64).chain(reader));
    Ok(if magic.starts_with(GZIP) {
        Box::new(flate2::bufread::MultiGzDecoder::new(whole))
    } else if magic.starts_with(ZSTD) {
        Box::new(zstd::stream::read::Decoder::with_buffer(whole)?)
    } else {
        Box::new(whole)
    })
}

/// The decompressed stream as the writer sees it: hashed and bounded.
struct ChunkReader {
    full: mpsc::Receiver<io::Result<Vec<u8>>>,
    emptied: mpsc::Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    hasher: Hasher,
    limit: u64,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Ok(next) = self.full.recv() else { return Ok(0) };
            let _ = self.emptied.send(std::mem::replace(&mut self.chunk, next?));
            self.at = 0;
            self.hasher.update(&self.chunk);
            if self.hasher.bytes() > self.limit {
                return Err(io::Error::other(format!("more than {} bytes after decompression", self.limit)));
            }
        }
        let length = buffer.len().min(self.chunk.len() - self.at);
        buffer[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

fn write_layer(
    reader: ChunkReader,
    diff_id: Digest,
    root: OwnedFd,
    limits: Limits,
) -> Result<Unpacked, UnpackError> {
    let mut archive = tar::TarReader::new(reader);
    let mut writer = writer::Writer::new(root, limits);
    while let Some(entry) = archive.next_entry()? {
        writer.add(&entry, &mut archive)?;
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(UnpackError::Read)?;
    let found = rest.hasher.finish();
    if found != diff_id {
        return Err(UnpackError::DiffId { expected: diff_id, found });
    }
    Ok(writer.finish())
}

#[cfg(test)]
mod tests;
