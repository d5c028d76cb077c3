//! The server: tells who it is, plays request and response, sends back what it gets; TCP and UDP on the same ports.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};

use super::{pin, wish};

#[derive(clap::Args)]
pub struct Serve {
    /// What it answers to the question who it is
    #[arg(long)]
    name: String,
    /// Run on this CPU alone
    #[arg(long)]
    cpu: Option<usize>,
    /// Where it listens. Addresses, not wildcards: an answer by UDP must come from the address that was asked
    #[arg(required = true)]
    listen: Vec<SocketAddr>,
}

/// Prints `ready` when all sockets are bound, then serves until it is killed.
pub fn serve(args: &Serve) -> Result<()> {
    if let Some(cpu) = args.cpu {
        pin(cpu)?;
    }
    for &address in &args.listen {
        let tcp = TcpListener::bind(address).with_context(|| format!("listen on {address}, tcp"))?;
        let udp = UdpSocket::bind(address).with_context(|| format!("listen on {address}, udp"))?;
        let name = args.name.clone();
        thread::spawn(move || accept(&tcp, &name));
        let name = args.name.clone();
        thread::spawn(move || datagrams(&udp, &name));
    }
    println!("ready");
    loop {
        thread::park();
    }
}

fn accept(listener: &TcpListener, name: &str) {
    for stream in listener.incoming().flatten() {
        let name = name.to_string();
        // A client that leaves in the middle is the client's business.
        thread::spawn(move || drop(answer(stream, &name)));
    }
}

fn answer(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wanted = [0];
    stream.read_exact(&mut wanted)?;
    match wanted[0] {
        wish::WHO => stream.write_all(introduction(name, stream.peer_addr()?).as_bytes()),
        wish::ROUNDS => {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut message = vec![0; (u32::from_be_bytes(length) as usize).clamp(1, 1 << 20)];
            loop {
                stream.read_exact(&mut message)?;
                stream.write_all(&message)?;
            }
        }
        wish::ECHO => {
            let mut buffer = vec![0; 256 << 10];
            loop {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    return stream.shutdown(Shutdown::Write);
                }
                stream.write_all(&buffer[..count])?;
            }
        }
        _ => Ok(()),
    }
}

fn datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
        match buffer[..count].first() {
            Some(&wish::WHO) => {
                // As long as the question, so that a large one tries fragments both ways.
                let mut text = introduction(name, from).into_bytes();
                text.resize(text.len().max(count), b' ');
                let _ = socket.send_to(&text, from);
            }
            Some(&wish::ROUNDS) => drop(socket.send_to(&buffer[..count], from)),
            _ => {}
        }
    }
}

fn introduction(name: &str, peer: SocketAddr) -> String {
    format!("{name} {}", peer.ip().to_canonical())
}
