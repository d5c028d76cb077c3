//! Reads a tar stream entry by entry: ustar, GNU (long names, sparse, base-256 numbers) and PAX (long names, sizes,
//! times, xattrs, sparse 0.0, 0.1, 1.0). Headers are decoded by the `tar` crate; the walk is our own because every
//! length that a header names must be bounded before memory is taken for it (CVE-2025-58183), which the crate's
//! iterator does not do. Knows nothing of files.

use std::io::{self, Read};

use super::error::UnpackError;

pub const BLOCK: usize = 512;
/// Most bytes of one PAX header, long name or sparse map (Go's archive/tar has the same limit).
const MAX_META_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File { sparse: Option<Sparse> },
    Hardlink { target: Vec<u8> },
    Symlink { target: Vec<u8> },
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Directory,
    Fifo,
}

/// Where the bytes that follow belong in a file of `real_size` bytes; sorted, not overlapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    pub real_size: u64,
    pub extents: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_secs: i64,
    pub mtime_nanos: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Fields that extended headers set for the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: PaxSparse,
}

#[derive(Default)]
struct PaxSparse {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    /// Offsets and lengths by turns, of formats 0.0 and 0.1.
    numbers: Vec<u64>,
}

pub struct TarReader<R> {
    inner: R,
    /// Data bytes of the current entry that are not read yet, and the padding after them.
    data_left: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, data_left: 0, padding: 0 }
    }

    /// The stream after the archive: what the diff id still covers.
    pub fn into_inner(self) -> R {
        self.inner
    }

    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Bytes of the current entry that are not read yet.
    pub fn data_left(&self) -> u64 {
        self.data_left
    }

    /// Passes over the current entry by `seek`, which moves the stream forward and says whether that was inside it.
    pub fn skip_data(&mut self, seek: impl FnOnce(&mut R, u64) -> bool) -> Result<(), UnpackError> {
        let bytes = self.data_left + self.padding;
        (self.data_left, self.padding) = (0, 0);
        if seek(&mut self.inner, bytes) { Ok(()) } else { Err(truncated()) }
    }

    /// The next entry; `None` after the end mark. Skips what is left of the current one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        self.skip(self.data_left + self.padding)?;
        (self.data_left, self.padding) = (0, 0);
        let mut extended = Extended::default();
        loop {
            let Some(block) = self.next_header()? else { return Ok(None) };
            let header = tar::Header::from_byte_slice(&block);
            let size = extended.size.map_or_else(|| field(&block, 124..136, header.entry_size()), Ok)?;
            match block[156] {
                b'L' => extended.path = Some(self.long_name(size)?),
                b'K' => extended.link = Some(self.long_name(size)?),
                b'x' | b'X' => {
                    let records = self.meta(size, "bytes in a PAX header")?;
                    extended.read_pax(&records)?;
                }
                // Global headers set defaults of no interest (comments); containerd ignores them too.
                b'g' => drop(self.meta(size, "bytes in a PAX header")?),
                typeflag => return self.entry(header, typeflag, size, extended).map(Some),
            }
        }
    }

    /// Reads from the current entry's data; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let want = usize::try_from(self.data_left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.inner.read(&mut buffer[..want]).map_err(UnpackError::Read)?;
        if got == 0 {
            return Err(truncated());
        }
        self.data_left -= got as u64;
        Ok(got)
    }

    fn next_header(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|&byte| byte == 0) {
            return match self.block()? {
                Some(second) if second.iter().any(|&byte| byte != 0) => {
                    Err(UnpackError::Tar("a lone block of zeros inside the archive".into()))
                }
                _ => Ok(None),
            };
        }
        if !checksum_matches(&block) {
            return Err(UnpackError::Tar("a header's checksum is wrong".into()));
        }
        Ok(Some(block))
    }

    /// One block; `None` if the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(truncated()),
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UnpackError::Read(error)),
            }
        }
        Ok(Some(block))
    }

    fn full_block(&mut self) -> Result<[u8; BLOCK], UnpackError> {
        self.block()?.ok_or_else(truncated)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), UnpackError> {
        let skipped =
            io::copy(&mut self.inner.by_ref().take(bytes), &mut io::sink()).map_err(UnpackError::Read)?;
        if skipped == bytes { Ok(()) } else { Err(truncated()) }
    }

    /// The data of an extended header, with its padding.
    fn meta(&mut self, size: u64, what: &'static str) -> Result<Vec<u8>, UnpackError> {
        if size > MAX_META_BYTES {
            return Err(UnpackError::Limit { what, limit: MAX_META_BYTES });
        }
        let mut bytes = vec![0; size as usize];
        self.inner.read_exact(&mut bytes).map_err(eof_is_truncation)?;
        self.skip(padding(size))?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        let mut name = self.meta(size, "bytes in a long name")?;
        name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
        Ok(name)
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        typeflag: u8,
        size: u64,
        extended: Extended,
    ) -> Result<Entry, UnpackError> {
        let Extended { path, link, uid, gid, mtime, xattrs, sparse: pax_sparse, .. } = extended;
        let block = header.as_bytes();
        let pax_named = pax_sparse.name.clone();
        let path = pax_named.or(path).unwrap_or_else(|| header.path_bytes().into_owned());
        let problem = |problem: String| UnpackError::Entry { path: path.as_slice().into(), problem };
        let target = || link.clone().or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default();
        let device = || -> Result<(u32, u32), UnpackError> {
            let major = field(block, 329..337, header.device_major().map(Option::unwrap_or_default))?;
            let minor = field(block, 337..345, header.device_minor().map(Option::unwrap_or_default))?;
            // The kernel's dev_t has 12 bits of major and 20 of minor.
            if major >= 1 << 12 || minor >= 1 << 20 {
                return Err(problem(format!("device number {major}:{minor} does not exist on Linux")));
            }
            Ok((major, minor))
        };
        (self.data_left, self.padding) = (size, padding(size));
        let kind = match typeflag {
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File { sparse: self.pax_sparse(&pax_sparse, size)? },
            b'S' => Kind::File { sparse: Some(self.gnu_sparse(header, size)?) },
            b'1' => Kind::Hardlink { target: target() },
            b'2' => Kind::Symlink { target: target() },
            b'3' => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(problem(format!("tar entry type '{}' is not supported", other.escape_ascii())));
            }
        };
        let id = |value: u64, what: &str| {
            u32::try_from(value)
                .ok()
                .filter(|&id| id != u32::MAX)
                .ok_or_else(|| problem(format!("{what} {value} is out of range")))
        };
        let (mtime_secs, mtime_nanos) = match mtime {
            Some(mtime) => mtime,
            // Base-256 numbers may be negative; the crate gives their two's complement.
            None => (field(block, 136..148, header.mtime())? as i64, 0),
        };
        Ok(Entry {
            mode: field(block, 100..108, header.mode())? & 0o7777,
            uid: id(uid.map_or_else(|| field(block, 108..116, header.uid()), Ok)?, "uid")?,
            gid: id(gid.map_or_else(|| field(block, 116..124, header.gid()), Ok)?, "gid")?,
            kind,
            mtime_secs,
            mtime_nanos,
            xattrs,
            path,
        })
    }

    /// Old GNU format: four extents in the header, 21 in each extension block after it.
    fn gnu_sparse(&mut self, header: &tar::Header, size: u64) -> Result<Sparse, UnpackError> {
        let gnu =
            header.as_gnu().ok_or_else(|| UnpackError::Tar("sparse entry without GNU header".into()))?;
        let mut numbers = Vec::new();
        let mut push = |extents: &[tar::GnuSparseHeader]| -> Result<(), UnpackError> {
            for extent in extents.iter().filter(|extent| !extent.is_empty()) {
                numbers.extend([
                    extent.offset().map_err(|error| number(&error))?,
                    extent.length().map_err(|error| number(&error))?,
                ]);
            }
            within_meta(numbers.len() as u64 * 12)
        };
        push(&gnu.sparse)?;
        let mut extended = gnu.is_extended();
        while extended {
            let block = self.full_block()?;
            let mut extension = tar::GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&block);
            push(extension.sparse())?;
            extended = extension.is_extended();
        }
        Sparse::checked(gnu.real_size().map_err(|error| number(&error))?, &numbers, size)
    }

    fn pax_sparse(&mut self, pax: &PaxSparse, size: u64) -> Result<Option<Sparse>, UnpackError> {
        let Some(real_size) = pax.real_size else { return Ok(None) };
        match (pax.major, pax.minor) {
            (Some(1), Some(0)) => {
                let numbers = self.sparse_map_in_data()?;
                Sparse::checked(real_size, &numbers, self.data_left).map(Some)
            }
            (None | Some(0), None | Some(0 | 1)) => Sparse::checked(real_size, &pax.numbers, size).map(Some),
            (major, minor) => {
                Err(UnpackError::Tar(format!("PAX sparse format {major:?}.{minor:?} is not supported")))
            }
        }
    }

    /// Format 1.0: decimal lines at the head of the data, padded to a block: count, then offset and length each.
    fn sparse_map_in_data(&mut self) -> Result<Vec<u64>, UnpackError> {
        let mut text = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        let mut parsed = 0;
        loop {
            while let Some(length) = text[parsed..].iter().position(|&byte| byte == b'\n') {
                numbers.push(decimal(&text[parsed..parsed + length])?);
                parsed += length + 1;
                let count = numbers[0];
                within_meta(count.saturating_mul(4))?;
                if numbers.len() as u64 == 1 + 2 * count {
                    numbers.remove(0);
                    return Ok(numbers);
                }
            }
            within_meta(text.len() as u64)?;
            if self.data_left < BLOCK as u64 {
                return Err(UnpackError::Tar("sparse map is longer than its file".into()));
            }
            text.extend(self.full_block()?);
            self.data_left -= BLOCK as u64;
        }
    }
}

impl Sparse {
    fn checked(real_size: u64, numbers: &[u64], stored: u64) -> Result<Self, UnpackError> {
        let bad = |what: &str| UnpackError::Tar(format!("sparse map: {what}"));
        let (pairs, rest) = numbers.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(bad("an offset without length"));
        }
        let mut end = 0;
        let mut total = 0u64;
        for &[offset, length] in pairs {
            if offset < end {
                return Err(bad("extents overlap or are not in order"));
            }
            end = offset
                .checked_add(length)
                .filter(|&end| end <= real_size)
                .ok_or_else(|| bad("extent behind the end"))?;
            total += length;
        }
        if total != stored {
            return Err(bad("extents and stored bytes differ"));
        }
        Ok(Self { real_size, extents: pairs.iter().map(|&[offset, length]| (offset, length)).collect() })
    }
}

impl Extended {
    /// Records `<length> <key>=<value>\n`. Source: POSIX pax, "pax Extended Header".
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), UnpackError> {
        let bad = || UnpackError::Tar("malformed PAX record".into());
        while !records.is_empty() && records[0] != 0 {
            let space = records.iter().take(20).position(|&byte| byte == b' ').ok_or_else(bad)?;
            let length = usize::try_from(decimal(&records[..space])?).map_err(|_| bad())?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &records[space + 1..length - 1];
            records = &records[length..];
            let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
            self.set(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(pax_time(value)?),
            b"GNU.sparse.major" => self.sparse.major = Some(decimal(value)?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(decimal(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = Some(decimal(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.numbers.push(decimal(value)?),
            b"GNU.sparse.map" => {
                self.sparse.numbers =
                    value.split(|&byte| byte == b',').map(decimal).collect::<Result<_, _>>()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// `[-]seconds[.fraction]`, rounded down to nanoseconds.
fn pax_time(value: &[u8]) -> Result<(i64, u32), UnpackError> {
    let bad = || UnpackError::Tar("malformed PAX time".into());
    let (negative, digits) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let (whole, fraction) = match digits.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &[][..]),
    };
    let seconds = i64::try_from(decimal(whole)?).map_err(|_| bad())?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let nanos =
        (0..9).fold(0, |sum, i| sum * 10 + fraction.get(i).map_or(0, |&digit| u32::from(digit - b'0')));
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

fn decimal(text: &[u8]) -> Result<u64, UnpackError> {
    let malformed = || UnpackError::Tar("malformed number in a PAX header or sparse map".into());
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)
}

fn within_meta(bytes: u64) -> Result<(), UnpackError> {
    if bytes > MAX_META_BYTES {
        return Err(UnpackError::Limit { what: "bytes in a sparse map", limit: MAX_META_BYTES });
    }
    Ok(())
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn checksum_matches(block: &[u8; BLOCK]) -> bool {
    let outside = |&(at, _): &(usize, &u8)| !(148..156).contains(&at);
    let sum: u32 = block.iter().enumerate().filter(outside).map(|(_, &byte)| u32::from(byte)).sum();
    tar::Header::from_byte_slice(block).cksum().is_ok_and(|stored| stored == sum + 8 * u32::from(b' '))
}

fn truncated() -> UnpackError {
    UnpackError::Tar("ends in the middle of an entry (truncated)".into())
}

fn eof_is_truncation(error: io::Error) -> UnpackError {
    if error.kind() == io::ErrorKind::UnexpectedEof { truncated() } else { UnpackError::Read(error) }
}

/// A header's number; an empty field is 0, as in Go and GNU tar.
fn field<T: Default>(
    block: &[u8; BLOCK],
    place: std::ops::Range<usize>,
    value: io::Result<T>,
) -> Result<T, UnpackError> {
    match value {
        Err(_) if block[place.clone()].iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(T::default()),
        other => other.map_err(|error| number(&error)),
    }
}

fn number(error: &io::Error) -> UnpackError {
    UnpackError::Tar(format!("a header's number: {error}"))
}
