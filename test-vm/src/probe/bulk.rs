//! One TCP connection full of bytes, echoed by the server; every byte that comes back is compared.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use super::{PATIENCE, wish};

#[derive(clap::Args)]
pub struct Bulk {
    address: SocketAddr,
    /// Send at most this many megabytes a second
    #[arg(long, default_value_t = 40)]
    megabytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub sent: u64,
    /// Bytes that came back and were right.
    pub returned: u64,
    /// The longest time without a byte.
    pub stall_ms: u64,
    /// What went wrong: a reset, a wrong byte, an end before the end.
    pub error: Option<String>,
}

/// A connection that gives nothing for this long is dead to its users.
const DEAD: Duration = Duration::from_secs(20);
const CHUNK: usize = 64 << 10;

static STOP: AtomicBool = AtomicBool::new(false);

/// Sends until its standard input ends; prints `flowing` at the first byte that came back, and the result at the end.
pub fn bulk(args: &Bulk) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&args.address, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(DEAD))?;
    stream.set_write_timeout(Some(DEAD))?;
    stream.write_all(&[wish::ECHO])?;
    thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        STOP.store(true, Ordering::Relaxed);
    });
    let writer = stream.try_clone()?;
    let rate = args.megabytes.max(1) * 1_000_000;
    let sender = thread::spawn(move || send(writer, rate));
    let mut moved = receive(stream);
    let (sent, error) = sender.join().expect("the sender does not panic");
    moved.sent = sent;
    moved.error = moved.error.or(error);
    if moved.error.is_none() && moved.returned != sent {
        moved.error = Some(format!("{} bytes are missing", sent.abs_diff(moved.returned)));
    }
    println!("{}", serde_json::to_string(&moved)?);
    Ok(())
}

fn send(mut stream: TcpStream, rate: u64) -> (u64, Option<String>) {
    let (pattern, start, mut sent) = (Pattern::new(), Instant::now(), 0);
    while !STOP.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_millis() as u64) * rate / 1000;
        if sent >= due {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        match stream.write(pattern.from(sent, CHUNK)) {
            Ok(count) => sent += count as u64,
            Err(error) => return (sent, Some(format!("send at byte {sent}: {}", named(&error)))),
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    (sent, None)
}

fn receive(mut stream: TcpStream) -> Moved {
    let pattern = Pattern::new();
    let mut moved = Moved { sent: 0, returned: 0, stall_ms: 0, error: None };
    let (mut buffer, mut last) = (vec![0; 256 << 10], Instant::now());
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return moved,
            Ok(count) => count,
            Err(error) => {
                moved.error = Some(format!("receive at byte {}: {}", moved.returned, named(&error)));
                // The sender must not wait for room that nobody makes.
                let _ = stream.shutdown(Shutdown::Both);
                return moved;
            }
        };
        if moved.returned == 0 {
            println!("flowing");
        }
        moved.stall_ms = moved.stall_ms.max(last.elapsed().as_millis() as u64);
        last = Instant::now();
        if let Some(offset) = pattern.first_wrong(moved.returned, &buffer[..count]) {
            moved.error = Some(format!("byte {offset} is not the one that was sent"));
            let _ = stream.shutdown(Shutdown::Both);
            return moved;
        }
        moved.returned += count as u64;
    }
}

fn named(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("nothing for {} s", DEAD.as_secs()),
        _ => error.to_string(),
    }
}
