//! Asks an address who answers there, and as whom it sees the asker.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{PATIENCE, wish};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
    /// A datagram that takes several packets.
    #[value(name = "udp-large")]
    #[serde(rename = "udp-large")]
    UdpLarge,
}

#[derive(clap::Args)]
pub struct Who {
    /// `tcp=10.0.0.1:80`, `udp=[fd00::1]:53`, `udp-large=...`; asked one after the other
    #[arg(required = true, value_parser = question)]
    questions: Vec<(Transport, SocketAddr)>,
}

/// One line of output per question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    By { name: String, seen_as: IpAddr },
    Nobody(String),
}

const LARGE: usize = 8000;

pub fn who(args: &Who) -> Result<()> {
    for &(transport, address) in &args.questions {
        let answer = match ask(transport, address) {
            Ok((name, seen_as)) => Answer::By { name, seen_as },
            Err(error) => Answer::Nobody(format!("{error:#}")),
        };
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}

fn question(text: &str) -> Result<(Transport, SocketAddr), String> {
    let (transport, address) = text.split_once('=').ok_or("want TRANSPORT=ADDRESS:PORT")?;
    Ok((Transport::from_str(transport, false)?, address.parse().map_err(|e| format!("{address}: {e}"))?))
}

fn ask(transport: Transport, address: SocketAddr) -> Result<(String, IpAddr)> {
    let text = match transport {
        Transport::Tcp => {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&[wish::WHO]).context("send")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).context("receive")?;
            text
        }
        Transport::Udp | Transport::UdpLarge => {
            let length = if transport == Transport::Udp { 1 } else { LARGE };
            let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            socket.connect(address).context("connect")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(&vec![wish::WHO; length]).context("send")?;
            let mut buffer = vec![0; 65_536];
            let count = match socket.recv(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    bail!("no answer in {} ms", PATIENCE.as_millis())
                }
                received => received.context("receive")?,
            };
            if count < length {
                bail!("{count} of {length} bytes came back");
            }
            String::from_utf8_lossy(&buffer[..count]).trim_end().to_string()
        }
    };
    let (name, seen_as) = text.split_once(' ').with_context(|| format!("the answer is {text:?}"))?;
    Ok((name.to_string(), seen_as.parse().with_context(|| format!("the answer is {text:?}"))?))
}
