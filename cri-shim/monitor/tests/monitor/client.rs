//! A daemon as small as can be: blocking, one call at a time unless told otherwise.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use corten_monitor::protocol::{Answer, Call, Event, Exit, Failure, Message, PodState, Reply, Request};
use corten_monitor::socket::{self, Received};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Client {
    pub socket: OwnedFd,
    next: u64,
    events: VecDeque<Event>,
    replies: VecDeque<(Reply, Vec<OwnedFd>)>,
}

impl Client {
    pub fn over(socket: OwnedFd) -> Self {
        Self { socket, next: 1, events: VecDeque::new(), replies: VecDeque::new() }
    }

    /// Sends without waiting; the id of the call.
    pub fn send(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> u64 {
        let id = self.next;
        self.next += 1;
        self.send_raw(&serde_json::to_vec(&Call { id, request }).unwrap(), fds);
        id
    }

    pub fn send_raw(&mut self, packet: &[u8], fds: &[BorrowedFd<'_>]) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = socket::send(&self.socket, packet, fds) {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
            wait(&self.socket, PollFlags::OUT, deadline);
        }
    }

    pub fn call(&mut self, request: Request) -> Result<Answer, Failure> {
        self.call_with(request, &[]).map(|(answer, _)| answer)
    }

    pub fn call_with(
        &mut self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), Failure> {
        let id = self.send(request, fds);
        self.reply(id)
    }

    pub fn reply(&mut self, id: u64) -> Result<(Answer, Vec<OwnedFd>), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.replies.iter().position(|(reply, _)| reply.id == id) {
                let (reply, fds) = self.replies.remove(at).unwrap();
                return reply.result.map(|answer| (answer, fds));
            }
            assert!(self.receive(deadline), "the monitor closed the connection");
        }
    }

    /// The next event; other messages stay for later.
    pub fn event(&mut self) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            assert!(self.receive(deadline), "the monitor closed the connection");
        }
    }

    /// Waits for the end of a container, past other events.
    pub fn exit_of(&mut self, container: &str) -> Exit {
        loop {
            if let Event::ContainerExited { id, exit } = self.event()
                && id == container
            {
                return exit;
            }
        }
    }

    pub fn exit_of_exec(&mut self, number: u64) -> Exit {
        loop {
            if let Event::ExecExited { exec, exit, .. } = self.event()
                && exec == number
            {
                return exit;
            }
        }
    }

    /// Waits for the end of an exec, which may have been told already, between others.
    pub fn expect_exec_exit(&mut self, number: u64, code: i32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let is_it = |event: &Event| matches!(event, Event::ExecExited { exec, .. } if *exec == number);
            if let Some(at) = self.events.iter().position(is_it) {
                let event = self.events.remove(at);
                assert!(
                    matches!(event, Some(Event::ExecExited { exit, .. }) if exit.code == code),
                    "{event:?}"
                );
                return;
            }
            assert!(self.receive(deadline), "the monitor closed the connection");
        }
    }

    pub fn list(&mut self) -> PodState {
        let (answer, mut fds) = self.call_with(Request::List, &[]).unwrap();
        assert_eq!(answer, Answer::Listed);
        socket::read_attached(fds.remove(0)).unwrap()
    }

    /// Whether the peer closes, rather than says anything.
    pub fn is_closed(&mut self) -> bool {
        !self.receive(Instant::now() + PATIENCE)
    }

    fn receive(&mut self, deadline: Instant) -> bool {
        loop {
            match socket::receive(&self.socket) {
                Ok(Received::Packet(packet, fds)) => {
                    match serde_json::from_slice(&packet).unwrap() {
                        Message::Reply(reply) => self.replies.push_back((reply, fds)),
                        Message::Event(event) => self.events.push_back(event),
                    }
                    return true;
                }
                Ok(Received::End) => return false,
                Ok(Received::TooLong) => panic!("a message past the bound"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    wait(&self.socket, PollFlags::IN, deadline);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn wait(socket: impl AsFd, flags: PollFlags, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    let ready = poll(&mut [PollFd::new(&socket, flags)], Some(&timeout)).unwrap();
    assert!(ready > 0, "the monitor did not answer within {PATIENCE:?}");
}
