//! The smallest HTTP client that can tell a test what a pod answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// GET `path`; the body of a 200, everything else as the reason it is none.
pub fn get(address: &str, path: &str) -> Result<String, String> {
    let socket: SocketAddr = address.parse().map_err(|e| format!("{address}: {e}"))?;
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&socket, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = ask().map_err(|e| format!("GET {address}{path}: {e}"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or(format!("GET {address}{path}: half an answer: {answer:?}"))?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        Ok(body.into())
    } else {
        Err(format!("GET {address}{path}: {status}"))
    }
}
