//! The one socket type: send requests, check sequence numbers, collect acknowledgements, replies and dumps.
//!
//! The kernel handles a request inside the `send`, so when it returns all answers are queued: nothing here waits.

use std::io;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use crate::error::NetlinkError;
use crate::message::{Attributes, HEADER_LEN, Message};

/// The kernel never puts more than this into one datagram of a dump (net/netlink/af_netlink.c, netlink_dump()).
const RECEIVE_BYTES: usize = 32 * 1024;
/// Replies of one request, all datagrams together: a nf_tables chain with some 100,000 rules.
const DUMP_LIMIT_BYTES: usize = 64 * 1024 * 1024;
const DUMP_TRIES: u32 = 32;
/// Messages in one send: were all of them refused, the refusals still fit into the default receive queue (208 KiB, of
/// which each takes about 1 KiB).
const SEND_MESSAGES: usize = 128;

const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
const NLMSG_NOOP: u16 = libc::NLMSG_NOOP as u16;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Route,
    Netfilter,
    SockDiag,
}

/// A netlink socket of the network namespace that was the thread's own at [`Socket::open`].
#[derive(Debug)]
pub struct Socket {
    raw: RawSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of a reply, without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub kind: u16,
    pub body: Vec<u8>,
}

/// One received message: its sequence number, its flags and its meaning.
type Received = (u32, u16, Answer);

/// What one received message means for the request it answers.
enum Answer {
    Acknowledged,
    Refused(Errno, Option<String>),
    Done,
    Data(Reply),
}

impl Socket {
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let number = match protocol {
            Protocol::Route => NETLINK_ROUTE,
            Protocol::Netfilter => NETLINK_NETFILTER,
            Protocol::SockDiag => NETLINK_SOCK_DIAG,
        };
        let open = || {
            let raw = RawSocket::new(number)?;
            raw.set_ext_ack(true)?;
            raw.set_cap_ack(true)?;
            if protocol == Protocol::Route {
                // Filters in dump requests are honoured, unknown ones refused (Linux 4.20).
                raw.set_netlink_get_strict_chk(true)?;
            }
            Ok(raw)
        };
        let raw = open().map_err(|source| io_error(format!("open {protocol:?} netlink socket"), source))?;
        Ok(Self { raw, sequence: 0, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// The number that notifications of changes made through this socket carry as their sender.
    pub fn port(&mut self) -> Result<u32, NetlinkError> {
        let mut address = SocketAddr::new(0, 0);
        let asked = self.raw.get_address(&mut address).and_then(|()| match address.port_number() {
            0 => self.raw.bind_auto().map(|bound| bound.port_number()),
            port => Ok(port),
        });
        asked.map_err(|source| io_error("ask for the netlink socket's port".into(), source))
    }

    /// Sends all requests and takes all acknowledgements. The kernel goes on after a refused one; the first refusal
    /// is returned.
    pub fn transact(&mut self, requests: Vec<Message>) -> Result<(), NetlinkError> {
        self.transact_all(requests)?.into_iter().next().map_or(Ok(()), |(_, refusal)| Err(refusal))
    }

    /// Sends all requests, many in one call, and returns the refused ones by their place.
    ///
    /// # Errors
    /// Only when the socket itself failed; how many of the requests were done is then unknown.
    pub fn transact_all(
        &mut self,
        requests: Vec<Message>,
    ) -> Result<Vec<(usize, NetlinkError)>, NetlinkError> {
        let mut refused = Vec::new();
        let mut requests = requests.into_iter().enumerate().peekable();
        while requests.peek().is_some() {
            self.transact_some(requests.by_ref().take(SEND_MESSAGES), &mut refused)?;
        }
        Ok(refused)
    }

    /// One send. Refusals come for any message, but only the last one asks for an acknowledgement: the kernel answers
    /// in order, so then all are done.
    fn transact_some(
        &mut self,
        requests: impl Iterator<Item = (usize, Message)>,
        refused: &mut Vec<(usize, NetlinkError)>,
    ) -> Result<(), NetlinkError> {
        let mut requests = requests.peekable();
        let first = self.sequence.wrapping_add(1);
        let (mut what, mut bytes) = (Vec::new(), Vec::new());
        while let Some((place, request)) = requests.next() {
            what.push((place, request.what().to_owned()));
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend(request.sealed(self.sequence, requests.peek().is_none()));
        }
        let last = self.sequence;
        let describe = || what.iter().map(|(_, what)| what.as_str()).collect::<Vec<_>>().join("; ");
        self.send(&bytes, describe)?;
        loop {
            for (sequence, _, answer) in self.receive(0, describe)?.unwrap_or_default() {
                let Some((place, what)) = what.get(sequence.wrapping_sub(first) as usize) else { continue };
                if let Answer::Refused(errno, detail) = answer {
                    refused.push((*place, NetlinkError::Refused { what: what.clone(), errno, detail }));
                } else if !matches!(answer, Answer::Acknowledged) {
                    continue;
                }
                if sequence == last {
                    return Ok(());
                }
            }
        }
    }

    /// A request that is answered by one message.
    pub fn get(&mut self, request: Message) -> Result<Reply, NetlinkError> {
        let what = request.what().to_owned();
        self.sequence = self.sequence.wrapping_add(1);
        let wanted = self.sequence;
        self.send(&request.sealed(wanted, false), || what.clone())?;
        loop {
            for (sequence, _, answer) in self.receive(0, || what.clone())?.unwrap_or_default() {
                match answer {
                    _ if sequence != wanted => {}
                    Answer::Data(reply) => return Ok(reply),
                    Answer::Refused(errno, detail) => {
                        return Err(NetlinkError::Refused { what, errno, detail });
                    }
                    Answer::Acknowledged | Answer::Done => {
                        return Err(NetlinkError::Malformed { what, why: "no data" });
                    }
                }
            }
        }
    }

    /// A request for a list. Read again when the table changed meanwhile.
    pub fn dump(&mut self, request: &Message) -> Result<Vec<Reply>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            if let Some(replies) = self.dump_once(request.clone())? {
                return Ok(replies);
            }
        }
        Err(NetlinkError::Interrupted { what: request.what().to_owned(), tries: DUMP_TRIES })
    }

    /// `None`: interrupted by a change, what was read may be torn.
    fn dump_once(&mut self, request: Message) -> Result<Option<Vec<Reply>>, NetlinkError> {
        let what = request.what().to_owned();
        self.sequence = self.sequence.wrapping_add(1);
        let wanted = self.sequence;
        self.send(&request.sealed(wanted, false), || what.clone())?;
        let mut replies = Vec::new();
        let mut interrupted = false;
        let mut size_bytes = 0;
        loop {
            for (sequence, flags, answer) in self.receive(0, || what.clone())?.unwrap_or_default() {
                if sequence != wanted {
                    continue;
                }
                interrupted |= flags & NLM_F_DUMP_INTR != 0;
                match answer {
                    Answer::Data(reply) => {
                        size_bytes += reply.body.len();
                        replies.push(reply);
                    }
                    Answer::Done | Answer::Acknowledged => return Ok((!interrupted).then_some(replies)),
                    Answer::Refused(Errno::EINTR | Errno::EAGAIN, _) => return Ok(None),
                    Answer::Refused(errno, detail) => {
                        return Err(NetlinkError::Refused { what, errno, detail });
                    }
                }
            }
            if size_bytes > DUMP_LIMIT_BYTES {
                return Err(NetlinkError::Malformed { what, why: "longer than 64 MiB" });
            }
        }
    }

    /// nf_tables: all messages or none. `begin` and `end` are the batch's brackets; only the last message asks for an
    /// acknowledgement, refusals come for any. Returns the first refusal.
    pub(crate) fn batch(
        &mut self,
        begin: Message,
        messages: Vec<Message>,
        end: Message,
    ) -> Result<(), NetlinkError> {
        let what: Vec<String> = messages.iter().map(|m| m.what().to_owned()).collect();
        let Some(last) = messages.len().checked_sub(1) else { return Ok(()) };
        let first = self.sequence.wrapping_add(1);
        let mut bytes = begin.sealed(first, false);
        for (index, message) in messages.into_iter().enumerate() {
            bytes.extend(message.sealed(first.wrapping_add(1 + index as u32), index == last));
        }
        self.sequence = first.wrapping_add(2 + last as u32);
        bytes.extend(end.sealed(self.sequence, false));
        let describe = || match &what[..] {
            [_, _, _, _, _, ..] => {
                format!("nf_tables batch ({}; and {} more)", what[..4].join("; "), what.len() - 4)
            }
            _ => format!("nf_tables batch ({})", what.join("; ")),
        };
        self.allow_send(bytes.len()).map_err(|source| io_error(describe(), source))?;
        self.send(&bytes, describe)?;
        let mut outcome = None;
        while let Some(answers) = self.receive(libc::MSG_DONTWAIT, describe)? {
            for (sequence, _, answer) in answers {
                let offset = sequence.wrapping_sub(first) as usize;
                if offset > last + 2 {
                    continue;
                }
                match answer {
                    Answer::Refused(errno, detail) if !matches!(outcome, Some(Err(_))) => {
                        let what = what.get(offset.wrapping_sub(1)).cloned().unwrap_or_else(describe);
                        outcome = Some(Err(NetlinkError::Refused { what, errno, detail }));
                    }
                    Answer::Acknowledged if outcome.is_none() => outcome = Some(Ok(())),
                    _ => {}
                }
            }
        }
        outcome
            .unwrap_or_else(|| Err(NetlinkError::Malformed { what: describe(), why: "no acknowledgement" }))
    }

    /// A netlink message must fit into the send buffer whole; a transaction may have megabytes.
    fn allow_send(&self, length: usize) -> io::Result<()> {
        // What the kernel takes off for its bookkeeping (net/netlink/af_netlink.c, netlink_sendmsg()).
        let wanted = length + 64;
        if getsockopt(&self.raw, sockopt::SndBuf)? >= wanted {
            return Ok(());
        }
        // The kernel doubles it. Force needs CAP_NET_ADMIN in the first user namespace.
        setsockopt(&self.raw, sockopt::SndBufForce, &wanted)
            .or_else(|_| setsockopt(&self.raw, sockopt::SndBuf, &wanted))?;
        Ok(())
    }

    fn send(&self, bytes: &[u8], what: impl Fn() -> String) -> Result<(), NetlinkError> {
        loop {
            match self.raw.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io_error(what(), e)),
            }
        }
    }

    /// One datagram, cut into messages. `None` with MSG_DONTWAIT: there is no more.
    fn receive(
        &mut self,
        flags: i32,
        what: impl Fn() -> String,
    ) -> Result<Option<Vec<Received>>, NetlinkError> {
        let length = loop {
            match self.raw.recv(&mut &mut self.buffer[..], flags | libc::MSG_TRUNC) {
                Ok(length) => break length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(io_error(what(), e)),
            }
        };
        let Some(datagram) = self.buffer.get(..length) else {
            return Err(NetlinkError::Malformed { what: what(), why: "longer than 32 KiB" });
        };
        split(datagram).map(Some).ok_or_else(|| NetlinkError::Malformed { what: what(), why: "bad length" })
    }
}

/// Cuts a datagram into messages.
fn split(mut datagram: &[u8]) -> Option<Vec<Received>> {
    let mut answers = Vec::new();
    while datagram.len() >= HEADER_LEN {
        let length = u32::from_ne_bytes(datagram[0..4].try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(datagram[4..6].try_into().ok()?);
        let flags = u16::from_ne_bytes(datagram[6..8].try_into().ok()?);
        let sequence = u32::from_ne_bytes(datagram[8..12].try_into().ok()?);
        let body = datagram.get(HEADER_LEN..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        match kind {
            NLMSG_NOOP => {}
            NLMSG_ERROR => answers.push((sequence, flags, acknowledgement(flags, body)?)),
            NLMSG_DONE => answers.push((sequence, flags, end_of_dump(body))),
            _ => answers.push((sequence, flags, Answer::Data(Reply { kind, body: body.to_vec() }))),
        }
    }
    Some(answers)
}

/// The body of NLMSG_ERROR: errno, the header of our request (the rest too unless capped), extended attributes.
fn acknowledgement(flags: u16, body: &[u8]) -> Option<Answer> {
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    if code == 0 {
        return Some(Answer::Acknowledged);
    }
    let ours = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?) as usize;
    let skip = 4 + if flags & NLM_F_CAPPED != 0 { HEADER_LEN } else { ours.next_multiple_of(4) };
    let detail = (flags & NLM_F_ACK_TLVS != 0)
        .then(|| Attributes::after(body, skip)?.string(NLMSGERR_ATTR_MSG))
        .flatten();
    Some(Answer::Refused(Errno::from_raw(code.wrapping_neg()), detail))
}

/// NLMSG_DONE may carry an errno too.
fn end_of_dump(body: &[u8]) -> Answer {
    match body.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes) {
        Some(code) if code < 0 => Answer::Refused(Errno::from_raw(-code), None),
        _ => Answer::Done,
    }
}

fn io_error(what: String, source: io::Error) -> NetlinkError {
    NetlinkError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_LEN + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_refusal_carries_errno_and_the_kernels_text() {
        let mut body = (-libc::EEXIST).to_ne_bytes().to_vec();
        body.extend([0; HEADER_LEN]);
        let text = b"exists already\0";
        body.extend(((4 + text.len()) as u16).to_ne_bytes());
        body.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        body.extend(text);
        let answers =
            split(&datagram(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, 7, &body)).expect("well formed");
        let [(7, _, Answer::Refused(errno, Some(detail)))] = &answers[..] else { panic!("one refusal") };
        assert_eq!((*errno, detail.as_str()), (Errno::EEXIST, "exists already"));
        let error =
            NetlinkError::Refused { what: "create x".into(), errno: *errno, detail: Some(detail.clone()) };
        assert_eq!(error.to_string(), "create x: EEXIST (exists already)");
    }

    #[test]
    fn several_messages_in_one_datagram_and_the_end_of_a_dump() {
        let mut bytes = datagram(16, 2, 1, &[1, 2, 3]);
        bytes.extend(datagram(NLMSG_DONE, 2, 1, &[0; 4]));
        let answers = split(&bytes).expect("well formed");
        assert!(matches!(&answers[0].2, Answer::Data(r) if r.kind == 16 && r.body == [1, 2, 3]));
        assert!(matches!(answers[1].2, Answer::Done));
        assert!(matches!(end_of_dump(&(-libc::EINTR).to_ne_bytes()), Answer::Refused(Errno::EINTR, None)));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for length in [0_u32, 15, 17, 4096] {
            let mut bytes = datagram(16, 0, 1, &[]);
            bytes[0..4].copy_from_slice(&length.to_ne_bytes());
            assert!(split(&bytes).is_none(), "{length}");
        }
    }
}
