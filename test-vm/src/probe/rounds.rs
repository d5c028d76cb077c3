//! Request and response, one at a time: how many a second, and how long each took.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{PATIENCE, pin, wish};

#[derive(clap::Args)]
pub struct Rounds {
    address: SocketAddr,
    #[arg(long)]
    udp: bool,
    /// Milliseconds that count; a fifth of it is run before, which does not
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// Length of request and response
    #[arg(long, default_value_t = 1)]
    bytes: usize,
    /// Run on this CPU alone
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Round trips that counted.
    pub count: usize,
    pub per_second: f64,
    pub p50_micros: f64,
    pub p90_micros: f64,
    pub p99_micros: f64,
    /// Datagrams that got no answer.
    pub lost: usize,
}

pub fn rounds(args: &Rounds) -> Result<()> {
    if let Some(cpu) = args.cpu {
        pin(cpu)?;
    }
    let counted = if args.udp { udp(args)? } else { tcp(args)? };
    println!("{}", serde_json::to_string(&counted)?);
    Ok(())
}

fn tcp(args: &Rounds) -> Result<Counted> {
    let mut stream = TcpStream::connect_timeout(&args.address, PATIENCE).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = args.bytes.max(1);
    stream.write_all(&[wish::ROUNDS])?;
    stream.write_all(&(length as u32).to_be_bytes())?;
    let mut message = vec![7; length];
    measure(args.millis, || {
        stream.write_all(&message).context("send")?;
        stream.read_exact(&mut message).context("receive")?;
        Ok(true)
    })
}

fn udp(args: &Rounds) -> Result<Counted> {
    let socket = UdpSocket::bind(if args.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(args.address)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let message = vec![wish::ROUNDS; args.bytes.max(1)];
    let mut answer = vec![0; 65_536];
    measure(args.millis, || {
        socket.send(&message).context("send")?;
        Ok(socket.recv(&mut answer).is_ok())
    })
}

/// Plays `round` for the given time; it says whether the answer came.
#[expect(clippy::cast_precision_loss, reason = "a count of seconds' round trips")]
fn measure(millis: u64, mut round: impl FnMut() -> Result<bool>) -> Result<Counted> {
    let warm = Instant::now() + Duration::from_millis(millis / 5);
    while Instant::now() < warm {
        round()?;
    }
    let (start, length) = (Instant::now(), Duration::from_millis(millis));
    let (mut took, mut lost, mut last) = (Vec::with_capacity(1 << 18), 0, start);
    while last.duration_since(start) < length {
        let answered = round()?;
        let now = Instant::now();
        if answered {
            took.push(now.duration_since(last));
        } else {
            lost += 1;
        }
        last = now;
    }
    ensure!(!took.is_empty(), "no answer at all");
    took.sort_unstable();
    let micros = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)].as_secs_f64() * 1e6;
    Ok(Counted {
        count: took.len(),
        per_second: took.len() as f64 / last.duration_since(start).as_secs_f64(),
        p50_micros: micros(50),
        p90_micros: micros(90),
        p99_micros: micros(99),
        lost,
    })
}
