//! The connections of daemons. A connection that does not read costs nobody but itself: what it cannot take now is
//! queued, and past [`MAX_QUEUED`] it is closed.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SocketFlags, accept_with, sockopt};

use crate::poller::{Poller, Token};
use crate::protocol::{Call, Event, Failure, FailureKind, Message, Reply};
use crate::socket::{self, Received};

/// The most connections at a time; a further one is closed at once.
pub const MAX_CLIENTS: usize = 16;
/// The most messages kept for one connection.
pub const MAX_QUEUED: usize = 4096;
/// The longest error text sent.
pub const MAX_TEXT_BYTES: usize = 8 * 1024;

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

#[derive(Debug, Default)]
pub struct Clients {
    clients: BTreeMap<u32, Client>,
    next: u32,
}

impl Clients {
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub fn adopt(&mut self, poller: &Poller, socket: OwnedFd) -> io::Result<()> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        poller.add(&socket, Token::Client(number))?;
        self.clients.insert(number, Client { socket, queue: VecDeque::new() });
        Ok(())
    }

    /// Takes a connection from the listener. Only our own user may speak (the socket's mode says so already).
    pub fn accept(&mut self, poller: &Poller, listener: &OwnedFd) -> io::Result<()> {
        let socket = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let peer = sockopt::socket_peercred(&socket)?;
        if peer.uid != rustix::process::geteuid() || self.clients.len() >= MAX_CLIENTS {
            return Ok(());
        }
        self.adopt(poller, socket)
    }

    /// Reads one message, if there is one. A malformed one is answered with id 0, and the connection goes on.
    pub fn receive(&mut self, poller: &Poller, number: u32) -> Option<(Call, Vec<OwnedFd>)> {
        let client = self.clients.get(&number)?;
        match socket::receive(&client.socket) {
            Ok(Received::Packet(packet, fds)) => match serde_json::from_slice(&packet) {
                Ok(call) => return Some((call, fds)),
                Err(error) => self.refuse(poller, number, &format!("decode a call: {error}")),
            },
            Ok(Received::TooLong) => {
                self.refuse(poller, number, "a message is longer than 64 KiB or has too many descriptors");
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(Received::End) | Err(_) => self.close(poller, number),
        }
        None
    }

    fn refuse(&mut self, poller: &Poller, number: u32, message: &str) {
        let failure = Failure { kind: FailureKind::Invalid, message: message.to_owned() };
        self.reply(poller, number, Reply { id: 0, result: Err(failure) }, Vec::new());
    }

    /// Answers a call. An error text longer than [`MAX_TEXT_BYTES`] loses its end.
    pub fn reply(&mut self, poller: &Poller, number: u32, mut reply: Reply, fds: Vec<OwnedFd>) {
        if let Err(failure) = &mut reply.result {
            let end = failure.message.floor_char_boundary(MAX_TEXT_BYTES);
            failure.message.truncate(end);
        }
        let packet = encode(&Message::Reply(reply));
        self.send(poller, number, packet, fds);
    }

    /// Tells every connection.
    pub fn broadcast(&mut self, poller: &Poller, event: Event) {
        let packet = encode(&Message::Event(event));
        let numbers: Vec<u32> = self.clients.keys().copied().collect();
        for number in numbers {
            self.send(poller, number, packet.clone(), Vec::new());
        }
    }

    fn send(&mut self, poller: &Poller, number: u32, packet: Vec<u8>, fds: Vec<OwnedFd>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.queue.push_back((packet, fds));
        let too_many = client.queue.len() > MAX_QUEUED;
        if too_many {
            self.close(poller, number);
        } else {
            self.flush(poller, number);
        }
    }

    /// Sends what is queued, as far as the connection takes it.
    pub fn flush(&mut self, poller: &Poller, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        while let Some((packet, fds)) = client.queue.front() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match socket::send(&client.socket, packet, &borrowed) {
                Ok(()) => drop(client.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.close(poller, number),
            }
        }
        let waiting = !client.queue.is_empty();
        if poller.watch_writable(&client.socket, Token::Client(number), waiting).is_err() {
            self.close(poller, number);
        }
    }

    fn close(&mut self, poller: &Poller, number: u32) {
        if let Some(client) = self.clients.remove(&number) {
            poller.remove(&client.socket);
        }
    }
}

fn encode(message: &Message) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages are plain data with string keys")
}
