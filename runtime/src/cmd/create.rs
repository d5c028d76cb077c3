//! `create [options] ID`

use anyhow::bail;
use corten_runtime::{Console, CreateRequest};

use super::{Answer, Context};
use crate::options::{Arguments, unknown_option};

pub fn run(arguments: Arguments, context: &Context) -> Answer {
    let parsed = parse(arguments, false)?;
    let created = context.runtime.create(&parsed.request)?;
    context.log.warnings(&created.warnings);
    Ok(0)
}

/// What `create` and `run` are told.
pub struct Parsed {
    pub request: CreateRequest,
    pub detach: bool,
    pub keep: bool,
    pub no_subreaper: bool,
}

/// `run` has three options more.
pub fn parse(mut arguments: Arguments, is_run: bool) -> anyhow::Result<Parsed> {
    let mut request = CreateRequest::new("", ".");
    let (mut detach, mut keep, mut no_subreaper) = (false, false, false);
    while let Some(name) = arguments.next()? {
        match name.as_str() {
            "bundle" | "b" => request.bundle = non_empty(arguments.path()?).unwrap_or_else(|| ".".into()),
            "console-socket" => {
                request.console = non_empty(arguments.path()?).map_or(Console::None, Console::Socket);
            }
            "pid-file" => request.pid_file = non_empty(arguments.path()?),
            "pidfd-socket" => request.pidfd_socket = non_empty(arguments.path()?),
            "no-pivot" => request.no_pivot = arguments.switch()?,
            "no-new-keyring" => request.no_new_keyring = arguments.switch()?,
            "preserve-fds" => request.preserve_fds = arguments.number()?,
            "detach" | "d" if is_run => detach = arguments.switch()?,
            "keep" if is_run => keep = arguments.switch()?,
            "no-subreaper" if is_run => no_subreaper = arguments.switch()?,
            other => return unknown_option(other),
        }
    }
    request.id = arguments.container_id()?;
    request.listen_fds = listen_fds()?;
    request.preserve_fds += request.listen_fds;
    check_preserved(request.preserve_fds)?;
    Ok(Parsed { request, detach, keep, no_subreaper })
}

pub fn non_empty(path: std::path::PathBuf) -> Option<std::path::PathBuf> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

/// Activated sockets that are meant for this process are passed on.
pub fn listen_fds() -> anyhow::Result<u32> {
    let meant = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    match std::env::var("LISTEN_FDS") {
        Ok(count) if meant => {
            count.parse().map_err(|_| anyhow::anyhow!("LISTEN_FDS is {count:?}, no number"))
        }
        _ => Ok(0),
    }
}

/// Descriptors that are not there would later be ours.
pub fn check_preserved(count: u32) -> anyhow::Result<()> {
    for number in 3..3 + count as i32 {
        if !corten_sys::fd::is_open(number) {
            bail!("cannot preserve descriptor {number}: it is not open (--preserve-fds, LISTEN_FDS)");
        }
    }
    Ok(())
}
