//! ExecSync: runs a command in a running container and answers with all it printed, up to a bound.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use corten_cri_api::v1::{ExecSyncRequest, ExecSyncResponse};
use oci_spec::runtime::Process;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::container::state::State;
use crate::daemon::Daemon;
use crate::error::{Error, Kind};
use crate::files::read_record;
use crate::monitor::{ExecStdio, Execution, Monitor};
use crate::store::Container;

/// What is kept of each stream; the rest is read and thrown away (CVE-2022-31030, CVE-2022-1708).
const STREAM_LIMIT_BYTES: usize = 16 << 20;
/// Reads are this long, so that an idle exec costs little.
const CHUNK_BYTES: usize = 8 << 10;

pub async fn exec_sync(daemon: Arc<Daemon>, request: ExecSyncRequest) -> Result<ExecSyncResponse, Error> {
    let container = daemon.store.container(&request.container_id)?;
    if request.cmd.is_empty() {
        return Err(Error::argument("cmd", "a command is needed"));
    }
    let not = |state: String| Error::State {
        kind: Kind::Container,
        id: container.id.clone(),
        state,
        wanted: "running",
    };
    if container.state() != State::Running {
        return Err(not(format!("{:?}", container.state()).to_lowercase()));
    }
    let monitor = container.sandbox.monitor().ok_or_else(|| not("in a pod that is not ready".into()))?;
    let process = process(&container, request.cmd)?;
    let limit = u64::try_from(request.timeout).ok().filter(|s| *s > 0).map(Duration::from_secs);
    let drain = Duration::from_secs(daemon.config.exec.drain_timeout_s);
    run(&monitor, &container, &process, limit, drain).await
}

/// The container's own process with another command: same user, environment, limits, capabilities.
fn process(container: &Container, command: Vec<String>) -> Result<Process, Error> {
    let path = container.sandbox.bundle(&container.id).join("process.json");
    let mut process: Process = read_record(&path)?.ok_or_else(|| Error::State {
        kind: Kind::Container,
        id: container.id.clone(),
        state: "without its process description".into(),
        wanted: "running",
    })?;
    process.set_args(Some(command));
    process.set_terminal(Some(false));
    Ok(process)
}

async fn run(
    monitor: &Monitor,
    container: &Container,
    process: &Process,
    limit: Option<Duration>,
    drain: Duration,
) -> Result<ExecSyncResponse, Error> {
    let pipes = || {
        let (sender, receiver) = pipe::pipe()?;
        Ok((sender.into_blocking_fd()?, receiver))
    };
    let broken = |source| Error::System { tried: "make a pipe".into(), source };
    let (out_end, out) = pipes().map_err(broken)?;
    let (err_end, err) = pipes().map_err(broken)?;
    let stdio = ExecStdio { stdin: None, stdout: Some(out_end.as_fd()), stderr: Some(err_end.as_fd()) };
    let mut execution = monitor.exec(&container.id, process, stdio).await?;
    // Ours would keep the pipes open after the command has ended.
    drop((out_end, err_end));
    let (mut stdout, mut stderr) = (Captured::default(), Captured::default());
    let work = follow(&mut execution, (out, &mut stdout), (err, &mut stderr), drain);
    let Some(limit) = limit else {
        let code = work.await?;
        return Ok(ExecSyncResponse { stdout: stdout.bytes, stderr: stderr.bytes, exit_code: code });
    };
    let Ok(code) = tokio::time::timeout(limit, work).await else {
        monitor.kill_exec(execution.exec).await?;
        let what = format!("command {:?}", process.args().as_deref().unwrap_or_default());
        return Err(Error::Timeout { what, limit_s: limit.as_secs() });
    };
    Ok(ExecSyncResponse { stdout: stdout.bytes, stderr: stderr.bytes, exit_code: code? })
}

/// Reads both streams until the command has ended and they are closed. A child left behind may keep them open: they
/// are read for `drain` more, no longer.
async fn follow(
    execution: &mut Execution,
    (out, stdout): (pipe::Receiver, &mut Captured),
    (err, stderr): (pipe::Receiver, &mut Captured),
    drain: Duration,
) -> Result<i32, Error> {
    let mut streams = std::pin::pin!(async { tokio::join!(stdout.fill(out), stderr.fill(err)) });
    let exit = tokio::select! {
        exit = execution.exited() => exit?,
        _ = &mut streams => return Ok(execution.exited().await?.code),
    };
    let _ = tokio::time::timeout(drain, streams).await;
    Ok(exit.code)
}

#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
}

impl Captured {
    async fn fill(&mut self, mut pipe: pipe::Receiver) {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
            let room = STREAM_LIMIT_BYTES - self.bytes.len();
            self.bytes.extend_from_slice(&chunk[..count.min(room)]);
        }
    }
}
