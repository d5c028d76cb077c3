//! Messages that begin with the number of a channel, without any I/O. Source: streaming `pkg/httpstream/wsstream`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;

/// The first byte of a message that closes a channel (v5).
const CLOSE: u8 = 255;

/// What is agreed for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// 1 where nothing says otherwise; 4 and later tell exit codes, 5 closes channels.
    pub version: u8,
    /// Messages are text: the channel as a digit, then base64.
    pub base64: bool,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Data {
        channel: u8,
        bytes: Bytes,
    },
    /// Nothing more comes on the channel.
    Close {
        channel: u8,
    },
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    #[error("a message that closes a channel has {0} bytes")]
    Close(usize),
    #[error("there is no channel {0}")]
    NoChannel(u8),
}

impl Protocol {
    /// What kubelets accept, oldest first; the empty name is a client's that names none.
    pub const NAMES: [&str; 6] = [
        "",
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "v5.channel.k8s.io",
    ];

    pub fn of(name: &str) -> Option<Self> {
        let (version, base64) = match name {
            "" | "channel.k8s.io" => (1, false),
            "base64.channel.k8s.io" => (1, true),
            "v4.channel.k8s.io" => (4, false),
            "v4.base64.channel.k8s.io" => (4, true),
            "v5.channel.k8s.io" => (5, false),
            _ => return None,
        };
        Some(Self { version, base64 })
    }

    /// `channels`: how many there are; what is for another one is not for anybody.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn read(self, message: Message, channels: usize) -> Result<Said, ChannelError> {
        let payload: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => return Ok(Said::Nothing),
        };
        let Some(&first) = payload.first() else { return Ok(Said::Nothing) };
        if self.version >= 5 && first == CLOSE {
            return match payload[1..] {
                [channel] if usize::from(channel) < channels => Ok(Said::Close { channel }),
                [channel] => Err(ChannelError::NoChannel(channel)),
                _ => Err(ChannelError::Close(payload.len())),
            };
        }
        let channel = if self.base64 { first.wrapping_sub(b'0') } else { first };
        if usize::from(channel) >= channels {
            return Ok(Said::Nothing);
        }
        let bytes = payload.slice(1..);
        if !self.base64 {
            return Ok(Said::Data { channel, bytes });
        }
        // What is no base64 is skipped, as upstream does.
        Ok(STANDARD.decode(&bytes).map_or(Said::Nothing, |bytes| Said::Data { channel, bytes: bytes.into() }))
    }

    pub fn write(self, channel: u8, bytes: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", STANDARD.encode(bytes)));
        }
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(channel);
        message.extend_from_slice(bytes);
        Message::binary(message)
    }

    /// `None`: the protocol has no such message.
    pub fn write_close(self, channel: u8) -> Option<Message> {
        (self.version >= 5).then(|| Message::binary(vec![CLOSE, channel]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(name: &str) -> Protocol {
        Protocol::of(name).expect("a protocol")
    }

    #[test]
    fn every_protocol_reads_what_it_writes() {
        for name in Protocol::NAMES {
            for bytes in [&b""[..], b"abc", &[0, 255, 10]] {
                let said = protocol(name).read(protocol(name).write(3, bytes), 5).expect("a message");
                assert_eq!(said, Said::Data { channel: 3, bytes: Bytes::copy_from_slice(bytes) }, "{name}");
            }
        }
        assert_eq!(protocol("base64.channel.k8s.io").write(1, b"\n"), Message::text("1Cg=="));
        assert_eq!(protocol("v4.channel.k8s.io").write(1, b"\n"), Message::binary(vec![1, 10]));
    }

    #[test]
    fn a_channel_is_closed_in_version_5_only() {
        let close = protocol("v5.channel.k8s.io").write_close(0).expect("a message");
        assert_eq!(protocol("v5.channel.k8s.io").read(close.clone(), 5), Ok(Said::Close { channel: 0 }));
        assert_eq!(protocol("v4.channel.k8s.io").read(close, 5), Ok(Said::Nothing));
        assert_eq!(protocol("v4.channel.k8s.io").write_close(0), None);
        let v5 = |bytes: &[u8]| protocol("v5.channel.k8s.io").read(Message::binary(bytes.to_vec()), 5);
        assert_eq!(v5(&[255]), Err(ChannelError::Close(1)));
        assert_eq!(v5(&[255, 0, 0]), Err(ChannelError::Close(3)));
        assert_eq!(v5(&[255, 5]), Err(ChannelError::NoChannel(5)));
    }

    #[test]
    fn what_is_for_nobody_is_skipped() {
        let v4 = |bytes: &[u8]| protocol("v4.channel.k8s.io").read(Message::binary(bytes.to_vec()), 5);
        assert_eq!(v4(&[]), Ok(Said::Nothing));
        assert_eq!(v4(&[5, 1]), Ok(Said::Nothing));
        let text = |text: &str| protocol("v4.base64.channel.k8s.io").read(Message::text(text), 5);
        for wrong in ["0!", "/Cg==", "x", "9Cg=="] {
            assert_eq!(text(wrong), Ok(Said::Nothing), "{wrong}");
        }
        assert_eq!(text("0"), Ok(Said::Data { channel: 0, bytes: Bytes::new() }));
    }

    #[test]
    fn no_message_of_three_bytes_is_more_than_an_error() {
        for name in Protocol::NAMES {
            for first in 0..=255 {
                for second in 0..=255 {
                    let _ = protocol(name).read(Message::binary(vec![first, second]), 5);
                    let _ = protocol(name).read(Message::binary(vec![first, second, 0]), 5);
                }
            }
        }
    }
}
