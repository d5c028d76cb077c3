//! The life of a monitor: it comes up, waits and answers, and goes when nothing is left to hold.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Instant;

use corten_sys::fd::cloexec_from;
use corten_sys::process::{own_pid, set_subreaper};
use corten_sys::{Context, Failure};

use crate::clients::Clients;
use crate::layout::Layout;
use crate::own_log;
use crate::pod::{Pod, PodOptions};
use crate::poller::{Poller, Token};
use crate::process::{boot_id, start_time_ticks};
use crate::protocol::{Call, PROTOCOL_VERSION, Reply};
use crate::reaper::Reaper;
use crate::record::{self, MonitorRecord};
use crate::{mount_namespace, socket};

/// What a monitor is started with; its first connection is its stdin.
#[derive(Debug)]
pub struct Options {
    pub sandbox: String,
    pub dir: PathBuf,
    pub oci_root: PathBuf,
    pub netns_dir: Option<PathBuf>,
}

/// Serves until nothing is left. `first`: the connection that was inherited.
pub fn serve(options: &Options, first: Option<OwnedFd>) -> Result<(), Failure> {
    let layout = Layout::new(&options.dir);
    own_log::open(&layout).tried(|| format!("open {}", layout.monitor_log().display()))?;
    let ended = come_up(options, &layout, first).and_then(|mut monitor| monitor.run());
    match &ended {
        Ok(()) => clean_up(&layout),
        Err(failure) => own_log::say(&failure.to_string()),
    }
    ended
}

fn come_up(options: &Options, layout: &Layout, first: Option<OwnedFd>) -> Result<Monitor, Failure> {
    // Without a terminal and a session of the daemon's, whose signals would reach us.
    let _ = rustix::process::setsid();
    cloexec_from(3).tried(|| "keep inherited descriptors from containers".into())?;
    set_subreaper(true).tried(|| "become a subreaper".into())?;
    mount_namespace::enter(&options.dir)?;
    for dir in [layout.containers(), layout.exits()] {
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&dir)
            .tried(|| format!("create {}", dir.display()))?;
    }
    let reaper = Reaper::new().tried(|| "watch for the end of children".into())?;
    let path = layout.socket();
    let listener = socket::listen(&path).tried(|| format!("listen on {}", path.display()))?;
    write_record(options, layout).tried(|| format!("write {}", layout.monitor_record().display()))?;
    let poller = Poller::new().tried(|| "make an epoll".into())?;
    let mut clients = Clients::default();
    watch(&poller, &reaper, &listener, first, &mut clients).tried(|| "watch descriptors".into())?;
    let pod = Pod::new(PodOptions {
        sandbox: options.sandbox.clone(),
        layout: layout.clone(),
        oci_root: options.oci_root.clone(),
        netns_dir: options.netns_dir.clone(),
    });
    Ok(Monitor { poller, reaper, listener, clients, pod })
}

fn watch(
    poller: &Poller,
    reaper: &Reaper,
    listener: &OwnedFd,
    first: Option<OwnedFd>,
    clients: &mut Clients,
) -> io::Result<()> {
    poller.add(reaper, Token::Signals)?;
    poller.add(listener.as_fd(), Token::Listener)?;
    first.map_or(Ok(()), |socket| clients.adopt(poller, socket))
}

fn write_record(options: &Options, layout: &Layout) -> io::Result<()> {
    let pid = own_pid();
    let record = MonitorRecord {
        protocol: PROTOCOL_VERSION,
        sandbox: options.sandbox.clone(),
        pid,
        start_time_ticks: start_time_ticks(pid)?,
        boot_id: boot_id()?,
        oci_root: options.oci_root.clone(),
    };
    record::write(&layout.monitor_record(), &record)
}

/// A monitor that ends by itself leaves its messages alone.
fn clean_up(layout: &Layout) {
    let _ = record::remove(&layout.monitor_record());
    let _ = fs::remove_file(layout.socket());
}

struct Monitor {
    poller: Poller,
    reaper: Reaper,
    listener: OwnedFd,
    clients: Clients,
    pod: Pod,
}

impl Monitor {
    fn run(&mut self) -> Result<(), Failure> {
        // Nobody to serve and nothing to hold: the daemon died before it gave us anything.
        while !(self.pod.is_empty() && self.clients.is_empty()) {
            let timeout = self.pod.next_look().map(|next| next.saturating_duration_since(Instant::now()));
            let ready = self.poller.wait(timeout).tried(|| "wait for descriptors".into())?;
            let mut shut_down = false;
            for token in ready {
                shut_down |= self.handle(token);
                self.tell();
            }
            self.pod.look_for_oom_kills();
            self.tell();
            if shut_down {
                break;
            }
        }
        Ok(())
    }

    /// True when the monitor was told to end.
    fn handle(&mut self, token: Token) -> bool {
        match token {
            Token::Signals => {
                for (pid, exit) in self.reaper.reap() {
                    self.pod.ended(pid, exit);
                }
            }
            Token::Listener => {
                if let Err(error) = self.clients.accept(&self.poller, &self.listener) {
                    own_log::say(&format!("accept a connection: {error}"));
                }
            }
            Token::Client(number) => return self.serve_client(number),
            Token::Stream(number) => self.pod.read(&self.poller, number),
            Token::Oom(number) => self.pod.oom_noticed(number),
        }
        false
    }

    /// Tells everybody what has happened.
    fn tell(&mut self) {
        for event in std::mem::take(&mut self.pod.events) {
            self.clients.broadcast(&self.poller, event);
        }
    }

    fn serve_client(&mut self, number: u32) -> bool {
        self.clients.flush(&self.poller, number);
        let Some((Call { id, request }, fds)) = self.clients.receive(&self.poller, number) else {
            return false;
        };
        let outcome = self.pod.handle(&self.poller, request, fds);
        // An end that the request itself brought about (delete) is told before its answer.
        self.tell();
        self.clients.reply(&self.poller, number, Reply { id, result: outcome.result }, outcome.fds);
        self.pod.settle();
        outcome.shut_down
    }
}
