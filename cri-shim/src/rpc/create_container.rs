//! CreateContainer: record, snapshot, spec, then the monitor makes it, up to the moment before its program starts.

use std::path::PathBuf;
use std::sync::Arc;

use corten_cri_api::v1;
use corten_monitor::protocol::{CreateContainer, Overlay};

use crate::container::gather::{self, Gathered};
use crate::container::record::{ContainerName, ContainerRecord, VERSION};
use crate::container::remove;
use crate::container::state::Facts;
use crate::daemon::{Daemon, blocking, now_ns};
use crate::error::{Error, Kind};
use crate::files::{FileError, private_dir, write_record};
use crate::id;
use crate::oci_spec::ResolvedUser;
use crate::sandbox::record::SandboxRecord;
use crate::store::{Container, Sandbox};

pub async fn create_container(
    daemon: Arc<Daemon>,
    request: v1::CreateContainerRequest,
) -> Result<v1::CreateContainerResponse, Error> {
    let sandbox = daemon.store.sandbox(&request.pod_sandbox_id)?;
    let config = request.config.ok_or_else(|| Error::argument("config", "it is missing"))?;
    let metadata = config.metadata.as_ref().filter(|m| !m.name.is_empty());
    let metadata = metadata.ok_or_else(|| Error::argument("config.metadata.name", "a name is needed"))?;
    let name = ContainerName::new(&sandbox.id, metadata);
    let jobs = Arc::clone(&daemon.jobs);
    let job = remove::job_name(&name.0);
    let container_id = jobs.run(job, move || make(daemon, sandbox, name, config)).await?;
    Ok(v1::CreateContainerResponse { container_id })
}

async fn make(
    daemon: Arc<Daemon>,
    sandbox: Arc<Sandbox>,
    name: ContainerName,
    config: v1::ContainerConfig,
) -> Result<String, Error> {
    // Shared: containers of a pod are made side by side, but none while the pod is stopped.
    let _pod = sandbox.operation.read().await;
    let pod = ready(&sandbox)?;
    let gathered = gather::gather(&daemon, &sandbox, &config).await?;
    let container = reserve(&daemon, &sandbox, &pod, &name, config, &gathered)?;
    let _operation = container.operation.lock().await;
    match build(&daemon, &container, &pod, &gathered).await {
        Ok(()) => Ok(container.id.clone()),
        Err(error) => Err(undo(&daemon, &container, error).await),
    }
}

fn ready(sandbox: &Sandbox) -> Result<SandboxRecord, Error> {
    let record = sandbox.record();
    if record.phase.is_ready() {
        return Ok(record);
    }
    let reason = record.reason.map(|r| format!(" ({r})")).unwrap_or_default();
    Err(Error::State {
        kind: Kind::Sandbox,
        id: record.id,
        state: format!("{:?}{reason}", record.phase).to_lowercase(),
        wanted: "ready",
    })
}

fn reserve(
    daemon: &Daemon,
    sandbox: &Arc<Sandbox>,
    pod: &SandboxRecord,
    name: &ContainerName,
    config: v1::ContainerConfig,
    gathered: &Gathered,
) -> Result<Arc<Container>, Error> {
    let id = id::new().map_err(|source| Error::System { tried: "make an id".into(), source })?;
    daemon.store.reserve_container(name, &id)?;
    let record = ContainerRecord {
        version: VERSION,
        id: id.clone(),
        sandbox_id: sandbox.id.clone(),
        image_id: gathered.image.id.to_string(),
        created_at_ns: now_ns(),
        log_path: log_path(&pod.config, &config),
        user: ResolvedUser::default(),
        stop_signal: gathered.stop_signal(&config),
        pid: None,
        facts: Facts::default(),
        config,
    };
    let dir = sandbox.dir.container(&id);
    let written = private_dir(&dir).and_then(|()| record.write(&dir));
    if let Err(error) = written {
        let _ = crate::files::remove_tree(&dir);
        daemon.store.release_container(name);
        return Err(error.into());
    }
    let container = Arc::new(Container::new(record, Arc::clone(sandbox)));
    daemon.store.add_container(Arc::clone(&container));
    Ok(container)
}

/// Where the kubelet wants it, if it wants one.
fn log_path(pod: &v1::PodSandboxConfig, config: &v1::ContainerConfig) -> Option<PathBuf> {
    let wanted = !pod.log_directory.is_empty() && !config.log_path.is_empty();
    wanted.then(|| PathBuf::from(&pod.log_directory).join(&config.log_path))
}

async fn build(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    pod: &SandboxRecord,
    gathered: &Gathered,
) -> Result<(), Error> {
    let record = container.record();
    let (shared, id) = (Arc::clone(daemon), container.id.clone());
    let (image, request) = (gathered.image.id, gathered.user_request.clone());
    let (snapshot, user) = blocking(move || -> Result<_, Error> {
        let snapshot = shared.images.prepare_snapshot(image, &id)?;
        let user = shared.users.resolve(&image.to_string(), &request, snapshot.lower.clone())?;
        Ok((snapshot, user))
    })
    .await?;
    container.update(|r| r.user = user.clone())?;
    let bundle = container.sandbox.bundle(&container.id);
    let spec = gathered.spec(daemon, &container.id, pod, &record.config, &user, &bundle.join("rootfs"))?;
    private_dir(&bundle)?;
    write_record(&bundle.join("config.json"), &spec)?;
    // What ExecSync starts from; the whole spec is ten times as long.
    write_record(&bundle.join("process.json"), spec.process())?;
    if let Some(directory) = record.log_path.as_ref().and_then(|p| p.parent()) {
        std::fs::create_dir_all(directory).map_err(FileError::io("create log directory", directory))?;
    }
    let monitor = container.sandbox.monitor().ok_or_else(|| Error::State {
        kind: Kind::Sandbox,
        id: container.sandbox.id.clone(),
        state: "without a monitor".into(),
        wanted: "ready",
    })?;
    let overlay =
        Overlay { lower: snapshot.lower, upper: snapshot.upper, work: snapshot.work, volatile: true };
    let request = CreateContainer {
        id: container.id.clone(),
        bundle,
        rootfs: Some(overlay),
        log_path: record.log_path,
        tty: record.config.tty,
        stdin: record.config.stdin,
        stdin_once: record.config.stdin_once,
        terminal_size: None,
        handler: daemon.handler(&pod.runtime_handler)?,
    };
    let (pid, _) = monitor.create_container(request).await?;
    container.update(|r| {
        r.pid = Some(pid);
        r.facts.created = true;
    })?;
    Ok(())
}

async fn undo(daemon: &Daemon, container: &Arc<Container>, error: Error) -> Error {
    match remove::remove(daemon, container).await {
        Ok(()) => error,
        Err(second) => Error::Undo(Box::new(error), Box::new(second)),
    }
}
