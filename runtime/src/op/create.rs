//! `create`: from a bundle to a process that waits at its gate.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use corten_sys::Context;
use corten_sys::process;
use oci_spec::runtime::Spec;

use super::{Console, Runtime, connect_console, host_proc, keyring_name, listen_environment, send_pidfd};
use crate::bundle;
use crate::cgroup::{Cgroup, Hierarchies};
use crate::error::{ConfigError, Error};
use crate::hooks;
use crate::init::child::{self, Common, ConsoleTo, Create, Stdio};
use crate::init::{parent, protocol};
use crate::plan::Plan;
use crate::seccomp::{Filter, send_listener};
use crate::state::{self, Directory, ProcessId, Record, State, Status};

#[derive(Debug)]
pub struct CreateRequest {
    pub id: String,
    /// Directory with config.json.
    pub bundle: PathBuf,
    pub stdio: Stdio,
    pub console: Console,
    pub pid_file: Option<PathBuf>,
    /// A listening unix socket that gets the process's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// This many inherited descriptors from 3 on stay open in the program, `listen_fds` included.
    pub preserve_fds: u32,
    /// The first of them are activated sockets, told to the program in LISTEN_FDS.
    pub listen_fds: u32,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
}

impl CreateRequest {
    pub fn new(id: impl Into<String>, bundle: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            bundle: bundle.into(),
            stdio: Stdio::Inherit,
            console: Console::None,
            pid_file: None,
            pidfd_socket: None,
            preserve_fds: 0,
            listen_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
        }
    }
}

/// A container that waits for `start`. Its process is a child of the caller, who reaps it.
#[derive(Debug)]
pub struct Created {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
    /// What was not done as the configuration says, and why.
    pub warnings: Vec<String>,
}

impl Runtime {
    /// Creates a container. On an error nothing is left behind.
    pub fn create(&self, request: &CreateRequest) -> Result<Created, Error> {
        let directory = self.directory(&request.id)?;
        let bundle =
            request.bundle.canonicalize().tried(|| format!("open bundle {}", request.bundle.display()))?;
        let config = bundle.join("config.json");
        let in_config = |source| Error::Config { config: config.clone(), source };
        let loaded = bundle::load_spec(&config).map_err(in_config)?;
        let plan = Plan::new(&loaded.value, &bundle).map_err(in_config)?;
        let filter = plan.seccomp.as_ref().map(Filter::new).transpose()?;
        let console = connect_console(&request.console, &plan.process)?;
        let hierarchies = Hierarchies::detect()?;
        let cgroup = Cgroup::locate(
            &hierarchies,
            plan.cgroups_path.as_deref(),
            &request.id,
            None,
            plan.resources.as_ref(),
        )?;
        let mut record = new_record(request, &loaded.value, &plan, bundle, cgroup)?;

        directory.reserve(&request.id)?;
        let mut undo = Undo { directory: Some(&directory), record: None };
        // Only a cgroup that is ours may be named by a record: an undo, or `delete --force` after a crash, kills what is
        // in it.
        record.cgroup.refuse_in_use()?;
        directory.write(&record)?;
        record.cgroup.create()?.keep();
        undo.record = Some(record.clone());
        let created =
            set_up(request, &plan, filter.as_ref(), &console, &directory, &mut record, loaded.warnings)?;
        undo.directory = None;
        Ok(created)
    }
}

fn set_up(
    request: &CreateRequest,
    plan: &Plan,
    filter: Option<&Filter>,
    console: &ConsoleTo,
    directory: &Directory,
    record: &mut Record,
    mut warnings: Vec<String>,
) -> Result<Created, Error> {
    let gate = directory.create_gate()?;
    if let Some(resources) = &plan.resources {
        record.cgroup.apply(resources)?;
    }
    let devices = plan.resources.as_ref().and_then(|resources| resources.devices().as_deref());
    record.cgroup.apply_devices(devices.unwrap_or_default())?;
    let join = record.cgroup.join()?;
    let namespaces = parent::open_namespaces(&plan.namespaces)?;
    let keyring = (!request.no_new_keyring).then(|| keyring_name(&request.id));
    let environment = listen_environment(request.listen_fds);
    let in_stage = plan.namespaces.joins(corten_sys::ns::Kind::User).is_some();
    let into_cgroup = join.clone_into().filter(|_| !in_stage);

    let spec = Create {
        common: Common {
            process: &plan.process,
            stdio: &request.stdio,
            console,
            join: &join,
            cloned_into_v2: into_cgroup.is_some(),
            namespaces: &namespaces,
            seccomp: filter,
            preserve_fds: request.preserve_fds,
            keyring: keyring.as_ref(),
            extra_environment: &environment,
        },
        plan,
        cgroup: &record.cgroup,
        gate: gate.as_fd(),
        parent_hooks: parent_hooks(plan).next().is_some(),
        no_pivot: request.no_pivot,
        state: State::new(record, Status::Creating, 0),
    };
    let pair = protocol::pair().tried(|| "make a socket pair for init".into())?;
    let init = parent::clone(&plan.namespaces, into_cgroup, pair, |socket, inherited| {
        child::create(&spec, socket, inherited)
    })?;
    let pid = init.pid();
    let init = init.write_id_maps(&plan.namespaces)?;
    warnings.extend(init.apply_limits(&plan.process)?);
    let creating = State::new(record, Status::Creating, pid);
    let run_hooks = || parent_hooks(plan).try_for_each(|(kind, list)| Ok(hooks::run(kind, list, &creating)?));
    let hand_over = |fd: OwnedFd| hand_over_listener(plan, filter, &fd, pid, &creating);
    let init = init.wait_ready(&mut warnings, run_hooks, hand_over)?;

    record.init = Some(ProcessId::of(&host_proc()?, pid).tried(|| format!("read the start time of {pid}"))?);
    directory.write(record)?;
    if let Some(path) = &request.pid_file {
        parent::write_pid_file(path, pid)?;
    }
    if let Some(path) = &request.pidfd_socket {
        send_pidfd(path, &init.pidfd().try_clone_to_owned().tried(|| "dup".into())?)?;
    }
    let (process, console) = init.go()?;
    Ok(Created { pid, pidfd: process.pidfd, console, warnings })
}

/// prestart, then createRuntime: both run in the host's namespaces once the container's mounts are done.
fn parent_hooks(plan: &Plan) -> impl Iterator<Item = (&'static str, &[oci_spec::runtime::Hook])> {
    let lists = [("prestart", plan.hooks.prestart()), ("createRuntime", plan.hooks.create_runtime())];
    lists
        .into_iter()
        .map(|(kind, list)| (kind, list.as_deref().unwrap_or_default()))
        .filter(|(_, list)| !list.is_empty())
}

pub(super) fn hand_over_listener(
    plan: &Plan,
    filter: Option<&Filter>,
    fd: &OwnedFd,
    pid: i32,
    state: &State,
) -> Result<(), Error> {
    let Some(path) = filter.and_then(Filter::listener) else { return Ok(()) };
    let metadata = plan.seccomp.as_ref().and_then(|seccomp| seccomp.listener_metadata().as_deref());
    Ok(send_listener(path, fd.as_fd(), &state.oci_version, pid, metadata, state)?)
}

fn new_record(
    request: &CreateRequest,
    spec: &Spec,
    plan: &Plan,
    bundle: PathBuf,
    cgroup: Cgroup,
) -> Result<Record, Error> {
    let proc = host_proc()?;
    let creator = ProcessId::of(&proc, process::own_pid()).tried(|| "read our own start time".into())?;
    Ok(Record {
        version: state::VERSION,
        oci_version: spec.version().clone(),
        id: request.id.clone(),
        rootfs: plan.rootfs.path.clone(),
        bundle,
        created: state::now(),
        creator,
        init: None,
        namespaces: plan.namespaces.flags(),
        cgroup,
        annotations: plan.annotations.clone(),
        poststart: plan.hooks.poststart().clone().unwrap_or_default(),
        poststop: plan.hooks.poststop().clone().unwrap_or_default(),
    })
}

/// Takes back what a failed create has made, in reverse, and never stops: what cannot be undone now, `delete --force`
/// finds by the record, which then stays. init itself is killed and reaped by its own guard, before.
struct Undo<'a> {
    directory: Option<&'a Directory>,
    record: Option<Record>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Some(directory) = self.directory else { return };
        if let Some(record) = &self.record {
            let _ = record.cgroup.kill_all();
            let removed = record.cgroup.remove();
            let _ = hooks::run("poststop", &record.poststop, &State::new(record, Status::Stopped, 0));
            if removed.is_err() {
                return;
            }
        }
        let _ = directory.remove();
    }
}

/// Reads the configuration again for what a further process needs.
pub(super) fn plan_of(bundle: &Path) -> Result<Plan, Error> {
    let config = bundle.join("config.json");
    let in_config = |source: ConfigError| Error::Config { config: config.clone(), source };
    let loaded = bundle::load_spec(&config).map_err(in_config)?;
    Plan::new(&loaded.value, bundle).map_err(in_config)
}
