//! Tags, varints and lengths. Source: protobuf.dev/programming-guides/encoding.

use crate::error::Problem;

/// The value behind a tag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Raw<'a> {
    pub(crate) fn varint(self) -> Result<u64, Problem> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(other.wrong()),
        }
    }

    pub(crate) fn fixed64(self) -> Result<u64, Problem> {
        match self {
            Self::Fixed64(value) => Ok(value),
            other => Err(other.wrong()),
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], Problem> {
        match self {
            Self::Bytes(value) => Ok(value),
            other => Err(other.wrong()),
        }
    }

    pub(crate) fn text(self) -> Result<&'a str, Problem> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Problem::Utf8)
    }

    fn wrong(self) -> Problem {
        Problem::WireType(match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32(_) => 5,
        })
    }
}

/// The fields of a message, in the order they were written. Groups, which nobody writes any more, are skipped.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field and its number; `None` at the end.
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Raw<'a>)>, Problem> {
        let mut groups = 0_u32;
        while !self.rest.is_empty() {
            let tag = self.varint()?;
            let number = u32::try_from(tag >> 3).map_err(|_| Problem::Tag(tag))?;
            if number == 0 || number >= 1 << 29 {
                return Err(Problem::Tag(tag));
            }
            let raw = match tag & 7 {
                0 => Raw::Varint(self.varint()?),
                1 => Raw::Fixed64(u64::from_le_bytes(self.array()?)),
                2 => {
                    let length = usize::try_from(self.varint()?).map_err(|_| Problem::Truncated)?;
                    Raw::Bytes(self.take(length)?)
                }
                3 => {
                    groups += 1;
                    continue;
                }
                4 if groups > 0 => {
                    groups -= 1;
                    continue;
                }
                5 => Raw::Fixed32(u32::from_le_bytes(self.array()?)),
                _ => return Err(Problem::Tag(tag)),
            };
            if groups == 0 {
                return Ok(Some((number, raw)));
            }
        }
        if groups > 0 { Err(Problem::Truncated) } else { Ok(None) }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0_u64;
        for (at, &byte) in self.rest.iter().enumerate() {
            // The tenth byte has room for one bit only.
            if at == 9 && byte > 1 {
                return Err(Problem::Overflow);
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(Problem::Truncated)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Problem::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Problem> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Problem::Truncated)?;
        self.rest = rest;
        Ok(head)
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn write_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

pub(crate) fn write_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn write_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// What `write` writes as a message: its length is put in front when it is known.
pub(crate) fn write_message(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    try_write_message(out, number, |out| {
        write(out);
        Ok::<(), std::convert::Infallible>(())
    })
    .unwrap_or_else(|never| match never {});
}

pub(crate) fn try_write_message<E>(
    out: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_varint(out, u64::from(number) << 3 | 2);
    let start = out.len();
    write(out)?;
    let end = out.len();
    put_varint(out, (end - start) as u64);
    let width = out.len() - end;
    out[start..].rotate_right(width);
    Ok(())
}
