//! Frames of SPDY/3.1, without any I/O. Source: SPDY Protocol, Draft 3.1, section 2; moby/spdystream for what its
//! users really send.

use super::headers::{Deflater, Headers, Inflater};

/// Every frame begins with so many bytes.
pub const HEAD: usize = 8;
/// Of a control frame's payload; the longest that is ever sent carries a few headers.
pub const MAX_CONTROL: usize = 64 << 10;
/// 24 bits.
pub const MAX_DATA: usize = (1 << 24) - 1;

const VERSION: u16 = 3;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("SPDY version {0} is not 3")]
    Version(u16),
    #[error("a control frame of type {0} is not known")]
    Kind(u16),
    #[error("a control frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("a control frame of type {kind} has {length} bytes")]
    Length { kind: u16, length: usize },
    #[error("stream 0 is none")]
    ZeroStream,
    #[error("the headers are not compressed as agreed")]
    Compression,
    #[error("the headers are longer than they may be")]
    BlockTooLong,
    #[error("the headers are cut off or too long")]
    Block,
    #[error("{0} headers are too many")]
    TooManyHeaders(usize),
    #[error("the header {0:?} is empty, not in lower case or there twice")]
    Header(String),
}

/// What comes before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    Data { stream: u32, fin: bool, length: usize },
    Control { kind: u16, flags: u8, length: usize },
}

/// Why a stream was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    ProtocolError,
    InvalidStream,
    Refused,
    Cancel,
    InternalError,
    /// Any other number.
    Other(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    SynStream {
        stream: u32,
        associated: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        stream: u32,
        status: Reset,
    },
    /// (id, value). Nobody who speaks with Kubernetes obeys them.
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last_good: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    /// Ignored by all: flow is held back by not reading.
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
}

impl Head {
    pub fn parse(bytes: [u8; HEAD]) -> Result<Self, FrameError> {
        let [a, b, c, d, flags, rest @ ..] = bytes;
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return if stream == 0 {
                Err(FrameError::ZeroStream)
            } else {
                Ok(Self::Data { stream, fin: flags & FIN != 0, length })
            };
        }
        let (version, kind) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > MAX_CONTROL {
            return Err(FrameError::TooLong(length));
        }
        Ok(Self::Control { kind, flags, length })
    }
}

impl Reset {
    pub fn number(self) -> u32 {
        match self {
            Self::ProtocolError => 1,
            Self::InvalidStream => 2,
            Self::Refused => 3,
            Self::Cancel => 5,
            Self::InternalError => 6,
            Self::Other(number) => number,
        }
    }

    fn of(number: u32) -> Self {
        match number {
            1 => Self::ProtocolError,
            2 => Self::InvalidStream,
            3 => Self::Refused,
            5 => Self::Cancel,
            6 => Self::InternalError,
            other => Self::Other(other),
        }
    }
}

impl Control {
    pub fn parse(kind: u16, flags: u8, payload: &[u8], inflater: &mut Inflater) -> Result<Self, FrameError> {
        let number = |at: usize| -> Result<u32, FrameError> {
            let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_be_bytes).ok_or(FrameError::Length { kind, length: payload.len() })
        };
        let stream = |at| match number(at)? & 0x7fff_ffff {
            0 => Err(FrameError::ZeroStream),
            stream => Ok(stream),
        };
        let exactly = |length| {
            if payload.len() == length {
                Ok(())
            } else {
                Err(FrameError::Length { kind, length: payload.len() })
            }
        };
        let mut headers = |at: usize| {
            let block = payload.get(at..).ok_or(FrameError::Length { kind, length: payload.len() })?;
            Headers::parse(&inflater.inflate(block)?)
        };
        let fin = flags & FIN != 0;
        Ok(match kind {
            1 => Self::SynStream {
                stream: stream(0)?,
                associated: number(4)? & 0x7fff_ffff,
                fin,
                unidirectional: flags & UNIDIRECTIONAL != 0,
                // Priority and slot are not used.
                headers: headers(10)?,
            },
            2 => Self::SynReply { stream: stream(0)?, fin, headers: headers(4)? },
            3 => {
                exactly(8)?;
                Self::RstStream { stream: stream(0)?, status: Reset::of(number(4)?) }
            }
            4 => {
                let count = number(0)? as usize;
                exactly(4 + count.min(MAX_CONTROL) * 8)?;
                let pair = |at: usize| Ok((number(4 + at * 8)? & 0x00ff_ffff, number(8 + at * 8)?));
                Self::Settings((0..count).map(pair).collect::<Result<_, FrameError>>()?)
            }
            6 => {
                exactly(4)?;
                Self::Ping(number(0)?)
            }
            7 => {
                exactly(8)?;
                Self::GoAway { last_good: number(0)? & 0x7fff_ffff, status: number(4)? }
            }
            8 => Self::Headers { stream: stream(0)?, fin, headers: headers(4)? },
            9 => {
                exactly(8)?;
                Self::WindowUpdate { stream: number(0)? & 0x7fff_ffff, delta: number(4)? & 0x7fff_ffff }
            }
            other => return Err(FrameError::Kind(other)),
        })
    }

    /// Behind what is there already.
    pub fn write(&self, out: &mut Vec<u8>, deflater: &mut Deflater) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        let mut put = |number: u32| out.extend_from_slice(&number.to_be_bytes());
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let mut block = None;
        let (kind, flags): (u16, u8) = match self {
            Self::SynStream { stream, associated, fin, unidirectional, headers } => {
                put(*stream);
                put(*associated);
                out.extend_from_slice(&[0, 0]);
                block = Some(headers);
                (1, flag(*fin, FIN) | flag(*unidirectional, UNIDIRECTIONAL))
            }
            Self::SynReply { stream, fin, headers } => {
                put(*stream);
                block = Some(headers);
                (2, flag(*fin, FIN))
            }
            Self::RstStream { stream, status } => {
                put(*stream);
                put(status.number());
                (3, 0)
            }
            Self::Settings(pairs) => {
                put(pairs.len() as u32);
                for (id, value) in pairs {
                    put(*id);
                    put(*value);
                }
                (4, 0)
            }
            Self::Ping(id) => {
                put(*id);
                (6, 0)
            }
            Self::GoAway { last_good, status } => {
                put(*last_good);
                put(*status);
                (7, 0)
            }
            Self::Headers { stream, fin, headers } => {
                put(*stream);
                block = Some(headers);
                (8, flag(*fin, FIN))
            }
            Self::WindowUpdate { stream, delta } => {
                put(*stream);
                put(*delta);
                (9, 0)
            }
        };
        if let Some(headers) = block {
            deflater.deflate(&headers.block(), out);
        }
        let length = (out.len() - start - HEAD) as u32;
        out[start..start + 2].copy_from_slice(&(0x8000 | VERSION).to_be_bytes());
        out[start + 2..start + 4].copy_from_slice(&kind.to_be_bytes());
        out[start + 4..start + HEAD].copy_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
    }
}

/// What comes before the bytes of a stream. `length`: at most [`MAX_DATA`].
pub fn data_head(stream: u32, fin: bool, length: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&(stream & 0x7fff_ffff).to_be_bytes());
    head[4..].copy_from_slice(&(u32::from(fin) << 24 | length as u32 & 0x00ff_ffff).to_be_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Control> {
        let headers =
            Headers::default().with("streamType", "stdin").with("port", "80").with("requestID", "0");
        vec![
            Control::SynStream {
                stream: 1,
                associated: 0,
                fin: false,
                unidirectional: false,
                headers: headers.clone(),
            },
            Control::SynStream {
                stream: 3,
                associated: 1,
                fin: true,
                unidirectional: true,
                headers: headers.clone(),
            },
            Control::SynReply { stream: 1, fin: false, headers: Headers::default() },
            Control::RstStream { stream: 1, status: Reset::Cancel },
            Control::RstStream { stream: 1, status: Reset::Other(11) },
            Control::Settings(vec![(4, 100), (7, 65_536)]),
            Control::Ping(2),
            Control::GoAway { last_good: 3, status: 0 },
            Control::Headers { stream: 1, fin: true, headers },
            Control::WindowUpdate { stream: 1, delta: 1000 },
        ]
    }

    /// Head and payload of each frame.
    fn cut(mut bytes: &[u8]) -> Vec<(Head, &[u8])> {
        let mut frames = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk() {
            let head = Head::parse(*head).expect("a head");
            let (Head::Data { length, .. } | Head::Control { length, .. }) = head;
            let (payload, rest) = rest.split_at(length);
            frames.push((head, payload));
            bytes = rest;
        }
        frames
    }

    #[test]
    fn frames_come_back_as_they_were_through_one_zlib_stream() {
        let (mut bytes, mut deflater, mut inflater) = (Vec::new(), Deflater::default(), Inflater::default());
        for frame in all() {
            frame.write(&mut bytes, &mut deflater);
        }
        let read = cut(&bytes).into_iter().map(|(head, payload)| match head {
            Head::Control { kind, flags, .. } => {
                Control::parse(kind, flags, payload, &mut inflater).expect("a frame")
            }
            Head::Data { .. } => panic!("no data was written"),
        });
        assert_eq!(read.collect::<Vec<_>>(), all());
        let head = Head::parse(data_head(5, true, MAX_DATA)).expect("a head");
        assert_eq!(head, Head::Data { stream: 5, fin: true, length: MAX_DATA });
    }

    #[test]
    fn compressed_headers_name_the_dictionary_and_end_flushed() {
        let headers = Headers::default().with("streamType", "error");
        let (mut bytes, mut deflater) = (Vec::new(), Deflater::default());
        Control::SynStream { stream: 1, associated: 0, fin: false, unidirectional: false, headers }
            .write(&mut bytes, &mut deflater);
        // zlib's header names the dictionary: best compression, preset dictionary, its checksum.
        assert_eq!(bytes[18..24], [0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2]);
        assert!(bytes.ends_with(&[0, 0, 0xff, 0xff]), "the block is flushed");
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let parse = |kind, payload: &[u8]| Control::parse(kind, 0, payload, &mut Inflater::default());
        assert_eq!(Head::parse([0, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::ZeroStream));
        assert_eq!(Head::parse([0x80, 2, 0, 1, 0, 0, 0, 0]), Err(FrameError::Version(2)));
        assert_eq!(Head::parse([0x80, 3, 0, 1, 0, 1, 0, 1]), Err(FrameError::TooLong(65_537)));
        assert_eq!(parse(5, &[]), Err(FrameError::Kind(5)));
        assert_eq!(parse(6, &[0; 5]), Err(FrameError::Length { kind: 6, length: 5 }));
        assert_eq!(parse(3, &[0; 8]), Err(FrameError::ZeroStream));
        assert_eq!(parse(4, &[0xff; 12]), Err(FrameError::Length { kind: 4, length: 12 }));
        assert_eq!(parse(2, &[0, 0, 0, 1, 1, 2, 3]), Err(FrameError::Compression));
        let with = |block: &[u8]| {
            let mut payload = vec![0, 0, 0, 1];
            Deflater::default().deflate(block, &mut payload);
            parse(2, &payload)
        };
        assert_eq!(with(&[0, 0, 0, 101]), Err(FrameError::TooManyHeaders(101)));
        assert_eq!(with(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), Err(FrameError::Block));
        assert_eq!(
            with(&[0, 0, 0, 1, 0, 0, 0, 1, b'A', 0, 0, 0, 0]),
            Err(FrameError::Header("A".to_owned()))
        );
        // A few bytes that inflate to megabytes.
        assert_eq!(with(&vec![0; 8 << 20]), Err(FrameError::BlockTooLong));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_a_frame_or_an_error() {
        for frame in all() {
            let mut bytes = Vec::new();
            frame.write(&mut bytes, &mut Deflater::default());
            let parse = |bytes: &[u8]| {
                let Some((head, payload)) = bytes.split_first_chunk() else { return };
                if let Ok(Head::Control { kind, flags, .. }) = Head::parse(*head) {
                    let _ = Control::parse(kind, flags, payload, &mut Inflater::default());
                }
            };
            for end in 0..bytes.len() {
                parse(&bytes[..end]);
            }
            for at in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[at / 8] ^= 1 << (at % 8);
                parse(&flipped);
            }
        }
    }
}
