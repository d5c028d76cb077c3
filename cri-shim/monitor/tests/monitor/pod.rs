//! A pod of a test: its own directories, cgroup and monitor, all of which go with it.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use corten_monitor::layout::Layout;
use corten_monitor::protocol::{
    Answer, CreateContainer, Exec, Exit, Failure, Handler, Overlay, Request, StartSandbox, TerminalSize,
};
use corten_monitor::{pause, socket};
use serde_json::{Value, json};

use crate::client::{Client, PATIENCE};

pub const MONITOR: &str = env!("CARGO_BIN_EXE_corten-monitor");
const APPLETS: [&str; 14] = [
    "sh", "cat", "echo", "sleep", "true", "false", "printf", "kill", "dd", "seq", "stty", "ps", "head", "yes",
];

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Pod {
    pub dir: tempfile::TempDir,
    pub sandbox: String,
    pub monitor: Child,
    pub client: Client,
    pub handler: Handler,
    /// Below every hierarchy; removed with the pod.
    pub cgroup: String,
}

/// What a container of a test is; every other thing is as simple as can be.
pub struct Wanted {
    pub arguments: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    pub logged: bool,
    pub log_path: Option<PathBuf>,
    pub terminal_size: Option<TerminalSize>,
    pub own_pid_namespace: bool,
    pub pid_namespace: Option<String>,
    pub memory_limit_bytes: Option<i64>,
    pub mounts: Vec<Value>,
}

/// A container that runs a shell script.
pub fn shell(script: &str) -> Wanted {
    run(&["/bin/sh", "-c", script])
}

pub fn run(arguments: &[&str]) -> Wanted {
    Wanted {
        arguments: arguments.iter().map(ToString::to_string).collect(),
        tty: false,
        stdin: false,
        stdin_once: false,
        logged: true,
        log_path: None,
        terminal_size: None,
        own_pid_namespace: true,
        pid_namespace: None,
        memory_limit_bytes: None,
        mounts: Vec::new(),
    }
}

impl Pod {
    pub fn start() -> Self {
        Self::with(Handler::BuiltIn)
    }

    pub fn with(handler: Handler) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), handler)
    }

    /// With a tmpfs of 64 KiB at `small`.
    pub fn on_small_disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let small = dir.path().join("small");
        fs::create_dir(&small).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&small).status();
        assert!(mounted.unwrap().success());
        Self::in_directory(dir, Handler::BuiltIn)
    }

    /// Whose monitor runs from a copy of the program, which may be attacked.
    pub fn of_copy() -> (Self, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("corten-monitor");
        fs::copy(MONITOR, &program).unwrap();
        (Self::of_program(&program, dir, Handler::BuiltIn), program)
    }

    fn in_directory(dir: tempfile::TempDir, handler: Handler) -> Self {
        Self::of_program(Path::new(MONITOR), dir, handler)
    }

    fn of_program(program: &Path, dir: tempfile::TempDir, handler: Handler) -> Self {
        let sandbox = format!("pod-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let state = dir.path().join("pod");
        fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
        fs::create_dir_all(dir.path().join("logs")).unwrap();
        make_rootfs(&dir.path().join("image"));
        let (client, monitor) = spawn(program, dir.path(), &sandbox);
        let cgroup = format!("/corten-test-{sandbox}");
        Self { dir, sandbox, monitor, client, handler, cgroup }
    }

    pub fn layout(&self) -> Layout {
        Layout::new(self.dir.path().join("pod"))
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.dir.path().join("logs").join(format!("{id}.log"))
    }

    /// The log without its time stamps, which are checked for their form.
    pub fn log(&self, id: &str) -> String {
        let text = fs::read_to_string(self.log_path(id)).unwrap();
        let lines = text.split_inclusive('\n').map(|line| {
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && time.ends_with('Z'), "{line:?}");
            rest
        });
        lines.collect()
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dir.path().join("bundles").join(id)
    }

    pub fn create(&mut self, id: &str, wanted: &Wanted) -> Result<i32, Failure> {
        let request = self.request(id, wanted);
        match self.client.call(Request::CreateContainer(request))? {
            Answer::Created { pid, .. } => Ok(pid),
            other => panic!("{other:?}"),
        }
    }

    /// Writes the bundle and says what the daemon would.
    pub fn request(&self, id: &str, wanted: &Wanted) -> CreateContainer {
        let bundle = self.bundle(id);
        fs::create_dir_all(&bundle).unwrap();
        let config = self.config(id, wanted);
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        let layer = |name: &str| {
            let path = self.dir.path().join("layers").join(id).join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (upper, work) = (layer("upper"), layer("work"));
        CreateContainer {
            id: id.into(),
            bundle,
            rootfs: Some(Overlay { lower: vec![self.dir.path().join("image")], upper, work, volatile: true }),
            log_path: wanted.logged.then(|| wanted.log_path.clone().unwrap_or_else(|| self.log_path(id))),
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdin_once: wanted.stdin_once,
            terminal_size: wanted.terminal_size,
            handler: self.handler.clone(),
        }
    }

    fn config(&self, id: &str, wanted: &Wanted) -> Value {
        let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "ipc"}), json!({"type": "uts"})];
        if wanted.own_pid_namespace {
            namespaces.push(json!({"type": "pid"}));
        } else if let Some(path) = &wanted.pid_namespace {
            namespaces.push(json!({"type": "pid", "path": path}));
        }
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755", "size=65536k"]}),
            json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                   "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}),
        ];
        mounts.extend(wanted.mounts.iter().cloned());
        let resources =
            wanted.memory_limit_bytes.map_or(json!({}), |limit| json!({"memory": {"limit": limit}}));
        json!({
            "ociVersion": "1.0.2",
            "process": process(&wanted.arguments, wanted.tty),
            "root": {"path": "rootfs"},
            "hostname": "test",
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces,
                "cgroupsPath": format!("{}/{id}", self.cgroup),
                "resources": resources,
            },
        })
    }

    pub fn run(&mut self, id: &str, wanted: &Wanted) -> Result<i32, Failure> {
        let pid = self.create(id, wanted)?;
        self.client.call(Request::StartContainer { id: id.into() })?;
        Ok(pid)
    }

    /// Runs to the end.
    pub fn run_to_end(&mut self, id: &str, wanted: &Wanted) -> Exit {
        self.run(id, wanted).unwrap();
        self.client.exit_of(id)
    }

    pub fn start_sandbox(&mut self) -> i32 {
        let rootfs = self.dir.path().join("pause");
        pause::install_rootfs(&rootfs, Path::new(MONITOR)).unwrap();
        let bundle = self.bundle(&self.sandbox);
        fs::create_dir_all(&bundle).unwrap();
        let mut config = self.config(&self.sandbox, &run(&["/pause"]));
        config["root"] = json!({"path": rootfs, "readonly": true});
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        let request =
            StartSandbox { id: self.sandbox.clone(), bundle, shm: None, handler: self.handler.clone() };
        match self.client.call(Request::StartSandbox(request)).unwrap() {
            Answer::Started { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Starts an exec with stdout and stderr on pipes: its number, and where to read.
    pub fn exec(&mut self, container: &str, arguments: &[&str]) -> Result<(u64, OwnedFd, OwnedFd), Failure> {
        let (id, out, err) = self.send_exec(container, arguments);
        match self.client.reply(id)?.0 {
            Answer::Executed { exec, .. } => Ok((exec, out, err)),
            other => panic!("{other:?}"),
        }
    }

    pub fn send_exec(&mut self, container: &str, arguments: &[&str]) -> (u64, OwnedFd, OwnedFd) {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let spec = socket::attach_json(&process(&arguments, false)).unwrap();
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let ((out, stdout), (err, stderr)) = (pipe(), pipe());
        let exec = Exec {
            container: container.into(),
            tty: false,
            terminal_size: None,
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let id = self.client.send(Request::Exec(exec), &[spec.as_fd(), stdout.as_fd(), stderr.as_fd()]);
        (id, out, err)
    }

    /// Kills the monitor and waits until it is gone.
    pub fn kill_monitor(&mut self) {
        self.monitor.kill().unwrap();
        self.monitor.wait().unwrap();
    }

    pub fn sweep(&self) -> Result<(), String> {
        let dir = self.layout().dir().to_owned();
        let output = Command::new(MONITOR).arg("sweep").arg("--dir").arg(dir).output().unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Every cgroup directory of the pod that is there, in all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        let top = hierarchies.map(|hierarchy| hierarchy.join(&self.cgroup[1..])).filter(|path| path.is_dir());
        top.flat_map(|top| {
            let below = fs::read_dir(top).into_iter().flatten().map(|entry| entry.unwrap().path());
            below.filter(|path| path.is_dir()).collect::<Vec<_>>()
        })
        .collect()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
        let swept = self.sweep();
        let small = self.dir.path().join("small");
        if small.exists() {
            let _ = Command::new("umount").arg(small).status();
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let _ = fs::remove_dir(hierarchy.unwrap().path().join(&self.cgroup[1..]));
        }
        if let Err(error) = swept
            && !std::thread::panicking()
        {
            panic!("sweep: {error}");
        }
    }
}

pub fn spawn(program: &Path, root: &Path, sandbox: &str) -> (Client, Child) {
    let (ours, theirs) = socket::pair().unwrap();
    let monitor = Command::new(program)
        .args(["serve", "--sandbox", sandbox, "--dir"])
        .arg(root.join("pod"))
        .arg("--oci-root")
        .arg(root.join("oci"))
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (Client::over(ours), monitor)
}

pub fn process(arguments: &[String], tty: bool) -> Value {
    json!({
        "terminal": tty,
        "user": {"uid": 0, "gid": 0},
        "args": arguments,
        "env": ["PATH=/bin"],
        "cwd": "/",
        "noNewPrivileges": true,
        "capabilities": {
            "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]
        },
    })
}

fn make_rootfs(image: &Path) {
    for dir in ["bin", "proc", "dev", "etc", "tmp"] {
        fs::create_dir_all(image.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
}

/// Reads to the end, which comes when nobody has the other end open.
pub fn read_all(fd: OwnedFd) -> String {
    let mut text = String::new();
    fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process exists that is no zombie.
pub fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
