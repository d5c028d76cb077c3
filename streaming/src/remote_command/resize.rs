//! Sizes of a terminal: JSON objects one after the other.

use bytes::BytesMut;

use super::Input;

/// What is no size after so many bytes will never be one.
const MAX: usize = 4 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

pub struct Resizes {
    input: Input,
    buffer: BytesMut,
}

impl Resizes {
    pub(super) fn new(input: Input) -> Self {
        Self { input, buffer: BytesMut::new() }
    }

    /// The next one; `None`: no more come.
    pub async fn next(&mut self) -> Option<Size> {
        loop {
            if let Some((size, length)) = first(&self.buffer)? {
                let _ = self.buffer.split_to(length);
                return Some(size);
            }
            let bytes = self.input.recv().await?;
            if self.buffer.len() + bytes.len() > MAX {
                return None;
            }
            self.buffer.extend_from_slice(&bytes);
        }
    }
}

/// The first size and how long it is; `Some(None)`: it is not whole yet; `None`: it is none.
#[expect(clippy::option_option, reason = "the three are said above")]
fn first(buffer: &[u8]) -> Option<Option<(Size, usize)>> {
    let mut values = serde_json::Deserializer::from_slice(buffer).into_iter::<serde_json::Value>();
    match values.next() {
        None => Some(None),
        Some(Ok(value)) => {
            let number = |key: &str| {
                // Go's JSON does not mind how a key is written.
                let found = value.as_object()?.iter().find(|(have, _)| have.eq_ignore_ascii_case(key));
                found.map_or(Some(0), |(_, number)| u16::try_from(number.as_u64()?).ok())
            };
            let size = Size { width: number("Width")?, height: number("Height")? };
            Some(Some((size, values.byte_offset())))
        }
        Some(Err(error)) if error.is_eof() => Some(None),
        Some(Err(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn sizes_come_one_by_one_however_they_are_cut() {
        let (to, from) = mpsc::channel(16);
        for piece in
            ["{\"Width\":80,", "\"Height\":24}", "\n{\"Width\":100,\"Height\":50}{\"Height\":1}", "{"]
        {
            to.send(Bytes::from_static(piece.as_bytes())).await.expect("sent");
        }
        drop(to);
        let mut sizes = Resizes::new(from);
        for (width, height) in [(80, 24), (100, 50), (0, 1)] {
            assert_eq!(sizes.next().await, Some(Size { width, height }));
        }
        assert_eq!(sizes.next().await, None);
    }

    #[test]
    fn what_is_no_size_ends_them() {
        for wrong in ["x", "{]", "{\"Width\":-1}", "{\"Width\":70000}", "[]", "5 "] {
            assert_eq!(first(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
