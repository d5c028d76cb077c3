//! `serve`: a few threads that accept in turn, so that memory is bounded; one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const THREADS: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: u64 = 16 << 10;

/// Listens on all addresses and returns; requests are answered by threads.
pub fn start(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        // A machine without IPv6.
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .map_err(|error| format!("listen on port {port}: {error}"))?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    println!("corten-demo on {host} listens on port {port}");
    let (listener, host) = (Arc::new(listener), Arc::new(host));
    for _ in 0..THREADS {
        let (listener, host) = (Arc::clone(&listener), Arc::clone(&host));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up or stalls is its own problem.
                let _ = answer(&stream, &host);
            }
        });
    }
    Ok(())
}

fn answer(stream: &TcpStream, host: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = BufReader::new(stream).take(MAX_HEAD_BYTES);
    let mut request = String::new();
    head.read_line(&mut request)?;
    let mut line = String::new();
    while head.read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        line.clear();
    }
    let (status, body) = respond(request.trim_end(), host);
    println!("{} \"{}\" {status}", peer(stream), request.trim_end().escape_debug());
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = stream;
    stream.write_all((head + &body).as_bytes())
}

/// Pure: request line in, status line and body out.
fn respond(request: &str, host: &str) -> (&'static str, String) {
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if words.next().is_none_or(|version| !version.starts_with("HTTP/1.")) {
        return ("400 Bad Request", "want HTTP/1.1\n".to_owned());
    }
    match (method, target.split('?').next().unwrap_or_default()) {
        ("GET", "/") => ("200 OK", format!("Hello from {host}, a container run by Corten.\n")),
        ("GET", "/healthz") => ("200 OK", "ok\n".to_owned()),
        ("GET", _) => ("404 Not Found", "there is / and /healthz\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    }
}

fn peer(stream: &TcpStream) -> String {
    stream.peer_addr().map_or_else(|_| "-".to_owned(), |address| address.ip().to_canonical().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers() {
        let cases = [
            ("GET / HTTP/1.1", "200 OK"),
            ("GET /?x=1 HTTP/1.0", "200 OK"),
            ("GET /healthz HTTP/1.1", "200 OK"),
            ("GET /nothing HTTP/1.1", "404 Not Found"),
            ("POST / HTTP/1.1", "405 Method Not Allowed"),
            ("GET /", "400 Bad Request"),
            ("", "400 Bad Request"),
        ];
        for (request, status) in cases {
            assert_eq!(respond(request, "pod").0, status, "{request:?}");
        }
        assert!(respond("GET / HTTP/1.1", "pod").1.contains("pod"));
    }
}
