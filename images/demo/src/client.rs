//! `client`: one request after the other, one line each, for ever.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::args::Url;

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: u64 = 64 << 10;

pub fn start(url: Url, interval: Duration) {
    println!("corten-demo asks http://{}{} every {interval:?}", url.authority, url.path);
    std::thread::spawn(move || {
        loop {
            let started = Instant::now();
            match ask(&url) {
                Ok((status, body)) => {
                    println!("{status}, {:.1} ms: {body}", started.elapsed().as_secs_f64() * 1e3);
                }
                Err(error) => println!("no answer from {}: {error}", url.authority),
            }
            std::thread::sleep(interval.saturating_sub(started.elapsed()));
        }
    });
}

fn ask(url: &Url) -> std::io::Result<(String, String)> {
    let address = url.authority.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let Url { authority, path } = url;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(digest(&String::from_utf8_lossy(&answer)))
}

/// Pure: the status and the body's first line.
fn digest(answer: &str) -> (String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status =
        head.lines().next().and_then(|line| line.split_once(' ')).map_or("no HTTP", |(_, status)| status);
    (status.escape_debug().to_string(), body.lines().next().unwrap_or_default().escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_one_line() {
        let answer = "HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello\nworld\n";
        assert_eq!(digest(answer), ("200 OK".to_owned(), "hello".to_owned()));
        assert_eq!(digest("\u{1b}["), ("no HTTP".to_owned(), String::new()));
    }
}
