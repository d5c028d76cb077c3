//! Blocks of headers: compressed with one zlib stream a direction that lives as long as the connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::{CHECKSUM, dictionary};
use super::frame::FrameError;

/// A block once it is inflated; real ones have some hundred bytes.
pub const MAX_BLOCK: usize = 64 << 10;
pub const MAX_HEADERS: usize = 100;

/// Names in lower case; several values of a name are apart by NUL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(have, _)| have.eq_ignore_ascii_case(name))?;
        found.1.split('\0').next()
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    pub(crate) fn parse(block: &[u8]) -> Result<Self, FrameError> {
        let mut rest = block;
        let count = number(&mut rest)?;
        if count > MAX_HEADERS {
            return Err(FrameError::TooManyHeaders(count));
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = text(&mut rest)?;
            if name.is_empty() || name != name.to_lowercase() || headers.iter().any(|(have, _)| *have == name)
            {
                return Err(FrameError::Header(name));
            }
            headers.push((name, text(&mut rest)?));
        }
        if rest.is_empty() { Ok(Self(headers)) } else { Err(FrameError::Block) }
    }

    pub(crate) fn block(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(128);
        let mut put = |bytes: &[u8]| {
            block.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            block.extend_from_slice(bytes);
        };
        for (name, value) in &self.0 {
            put(name.as_bytes());
            put(value.as_bytes());
        }
        block.splice(..0, (self.0.len() as u32).to_be_bytes());
        block
    }
}

fn number(rest: &mut &[u8]) -> Result<usize, FrameError> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(FrameError::Block)?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn text(rest: &mut &[u8]) -> Result<String, FrameError> {
    let length = number(rest)?;
    let (head, tail) = rest.split_at_checked(length).ok_or(FrameError::Block)?;
    *rest = tail;
    String::from_utf8(head.to_vec()).map_err(|_| FrameError::Block)
}

/// What the peer compressed. After an error it must not be used again: the streams of both sides are no longer one.
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    pub(crate) fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut block = Vec::with_capacity(512);
        loop {
            let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
            let status = match self.0.decompress_vec(input, &mut block, FlushDecompress::Sync) {
                Ok(status) => status,
                Err(error) if error.needs_dictionary() == Some(CHECKSUM) => {
                    input = &input[(self.0.total_in() - before_in) as usize..];
                    self.0.set_dictionary(&dictionary()).map_err(|_| FrameError::Compression)?;
                    continue;
                }
                Err(_) => return Err(FrameError::Compression),
            };
            let (taken, made) = (self.0.total_in() - before_in, self.0.total_out() - before_out);
            input = &input[taken as usize..];
            if block.len() > MAX_BLOCK {
                return Err(FrameError::BlockTooLong);
            }
            if status == Status::StreamEnd {
                return Err(FrameError::Compression);
            }
            if block.len() == block.capacity() {
                block.reserve(block.len());
            } else if input.is_empty() {
                return Ok(block);
            } else if taken == 0 && made == 0 {
                return Err(FrameError::Compression);
            }
        }
    }
}

pub struct Deflater(Compress);

impl Default for Deflater {
    fn default() -> Self {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(&dictionary()).expect("a new compressor takes a dictionary");
        Self(compress)
    }
}

impl Deflater {
    pub(crate) fn deflate(&mut self, mut block: &[u8], out: &mut Vec<u8>) {
        loop {
            out.reserve(block.len() + 64);
            let before = self.0.total_in();
            self.0
                .compress_vec(block, out, FlushCompress::Sync)
                .expect("a compressor in its right state takes all");
            block = &block[(self.0.total_in() - before) as usize..];
            // Room was left: everything is out.
            if block.is_empty() && out.len() < out.capacity() {
                return;
            }
        }
    }
}
