//! TCP and UDP between namespaces, byte for byte.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Netns;

pub const PORT: u16 = 7007;
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers TCP and UDP on [`PORT`] with what it gets; `sign` goes before each first answer of TCP.
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    pub fn start(netns: &Netns, sign: u8) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (listener, udp) = netns.within(|| {
            let any: SocketAddr = ([0_u16; 8], PORT).into();
            (TcpListener::bind(any).expect("listen"), UdpSocket::bind(any).expect("bind"))
        });
        listener.set_nonblocking(true).expect("set");
        udp.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
        let (s1, s2) = (stop.clone(), stop.clone());
        let accepts = std::thread::spawn(move || {
            while !s1.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => drop(std::thread::spawn(move || echo(client, sign))),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        let datagrams = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !s2.load(Ordering::Relaxed) {
                if let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(&buffer[..length], from);
                }
            }
        });
        Self { stop, threads: vec![accepts, datagrams] }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn echo(mut client: TcpStream, sign: u8) {
    let mut buffer = vec![0; 64 * 1024];
    client.set_nonblocking(false).expect("set");
    if client.write_all(&[sign]).is_err() {
        return;
    }
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        if client.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Connects from `netns`; the stream and the server's sign.
pub fn connect(netns: &Netns, to: SocketAddr) -> std::io::Result<(TcpStream, u8)> {
    let mut stream = netns.within(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut sign = [0];
    stream.read_exact(&mut sign)?;
    Ok((stream, sign[0]))
}

/// There and back.
pub fn round_trip(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    assert!(back == bytes, "what comes back is what was sent");
    Ok(())
}

/// TCP with small and large packets.
pub fn tcp(netns: &Netns, to: IpAddr) -> std::io::Result<u8> {
    let (mut stream, sign) = connect(netns, (to, PORT).into())?;
    for length in [1, 100, 1400, 30_000] {
        round_trip(&mut stream, &vec![length as u8; length])?;
    }
    Ok(sign)
}

pub fn udp(netns: &Netns, to: SocketAddr) -> std::io::Result<()> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = netns.within(|| UdpSocket::bind(any))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(to)?;
    let mut back = [0; 2048];
    let mut last = Ok(());
    // The first may go while the kernel still asks for neighbours.
    for _ in 0..3 {
        socket.send(&[7; 1000])?;
        last = socket.recv(&mut back).map(|length| assert_eq!(length, 1000));
        if last.is_ok() {
            break;
        }
    }
    last?;
    for length in [1, 512, 1300] {
        socket.send(&vec![9; length])?;
        assert_eq!(socket.recv(&mut back)?, length);
    }
    Ok(())
}

/// A bulk TCP flow that checks every byte, until it is ended.
pub struct Bulk {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Bulk {
    pub fn start(netns: &Netns, to: SocketAddr) -> Self {
        let (mut stream, _) = connect(netns, to).expect("connected");
        let (stop, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), bytes.clone());
        let thread = std::thread::spawn(move || {
            let mut round = 0_u8;
            while !stopped.load(Ordering::Relaxed) {
                round_trip(&mut stream, &vec![round; 20_000])?;
                round = round.wrapping_add(1);
                counted.fetch_add(40_000, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { stop, bytes, thread: Some(thread) }
    }

    /// Some more bytes have come back since now.
    pub fn progresses(&self) {
        let before = self.bytes.load(Ordering::Relaxed);
        super::wait_for("the flow goes on", PATIENCE, || {
            let thread = self.thread.as_ref().expect("running");
            assert!(!thread.is_finished(), "the connection broke");
            (self.bytes.load(Ordering::Relaxed) > before + 400_000).then_some(())
        });
    }

    pub fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("running").join().expect("no panic").expect("no connection was lost");
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
