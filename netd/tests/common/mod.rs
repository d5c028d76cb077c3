//! Nodes and pods as network namespaces of one test, gone with it.
//!
//! A [`Stage`] gives the test's thread mount and network namespaces of its own; what it starts inherits them. So names
//! of namespaces, pins and files of different tests never meet, and nothing is left when the thread ends.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod echo;
pub mod nodes;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The Go plugins of Debian's containernetworking-plugins.
pub const GO_PLUGINS: &str = "/usr/lib/cni";

pub struct Stage {
    directory: tempfile::TempDir,
}

impl Stage {
    /// Needs root.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("namespaces of our own, as root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none).expect("a tmpfs");
        std::fs::create_dir(path.join("bpf")).expect("a directory");
        mount(Some("bpf"), &path.join("bpf"), Some("bpf"), MsFlags::empty(), none)
            .expect("a bpf file system");
        let stage = Self { directory };
        stage.sh("ip link set lo up");
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A network namespace of this name, lo up, forwarding on.
    pub fn netns(&self, name: &str) -> Netns {
        let path = self.path(name);
        std::fs::write(&path, "").expect("a file");
        let text = path.display();
        self.sh(&format!("unshare --net={text} true"));
        let netns = Netns { path };
        netns.sh("ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        netns
    }

    #[expect(clippy::unused_self, reason = "runs in the stage's namespaces, which are the thread's")]
    pub fn sh(&self, script: &str) -> String {
        run(Command::new("sh").args(["-ec", script]))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The mounts end with the namespace; the directory below must be empty to be removed.
        let _ = nix::mount::umount2(self.directory.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[derive(Debug, Clone)]
pub struct Netns {
    pub path: PathBuf,
}

impl Netns {
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg(program);
        command
    }

    /// Must succeed; its output.
    pub fn sh(&self, script: &str) -> String {
        run(self.command("sh").args(["-ec", script]))
    }

    /// Does it succeed?
    pub fn try_sh(&self, script: &str) -> bool {
        let output = self.command("sh").args(["-ec", script]).output().expect("sh");
        output.status.success()
    }

    /// Of a link.
    pub fn mac(&self, link: &str) -> String {
        let links: serde_json::Value =
            serde_json::from_str(&self.sh(&format!("ip -j link show {link}"))).expect("JSON");
        links[0]["address"].as_str().expect("a MAC").to_owned()
    }

    /// Of a link.
    pub fn index(&self, link: &str) -> u32 {
        let links: serde_json::Value =
            serde_json::from_str(&self.sh(&format!("ip -j link show {link}"))).expect("JSON");
        links[0]["ifindex"].as_u64().expect("an index") as u32
    }

    /// In the background until the guard is dropped.
    pub fn spawn(&self, script: &str) -> Background {
        let mut command = self.command("sh");
        command.args(["-c", &format!("exec {script}")]).stdin(Stdio::null());
        Background(command.spawn().expect("sh"))
    }

    /// Runs inside, on this thread.
    pub fn within<T>(&self, inside: impl FnOnce() -> T) -> T {
        corten_sys::netns::NetNs::open(&self.path).expect("the namespace").run(inside).expect("entered")
    }
}

/// A process that ends with its guard.
pub struct Background(pub Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("started");
    checked(&format!("{command:?}"), &output)
}

fn checked(what: &str, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Until `condition` gives something.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A CNI plugin, run as containerd does.
pub fn cni(
    plugins: &Path,
    node: &Netns,
    verb: &str,
    id: &str,
    pod: &Netns,
    config: &serde_json::Value,
) -> String {
    let plugin = plugins.join(config["type"].as_str().expect("a type"));
    let mut command = node.command(plugin.to_str().expect("a path"));
    command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", &pod.path)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", plugins)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the plugin");
    child.stdin.take().expect("stdin").write_all(config.to_string().as_bytes()).expect("the configuration");
    let output = child.wait_with_output().expect("ended");
    checked(&format!("{verb} {id} by {}", plugin.display()), &output)
}

/// The program beside this test's own, if it was built.
pub fn built(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().expect("our path");
    let path = test.parent()?.parent()?.join(name);
    path.exists().then_some(path)
}

/// Our plugins as a CNI_PATH; `None`, said aloud, when they were not built.
pub fn our_plugins(stage: &Stage) -> Option<PathBuf> {
    let Some(program) = built("corten-cni") else {
        println!("SKIP: corten-cni is not built (cargo build -p corten-cni)");
        return None;
    };
    let directory = stage.path("plugins");
    std::fs::create_dir_all(&directory).expect("a directory");
    for name in ["bridge", "host-local", "loopback", "portmap", "firewall"] {
        let _ = std::os::unix::fs::symlink(&program, directory.join(name));
    }
    Some(directory)
}

/// Debian's Go plugins; `None`, said aloud, when they are not installed.
pub fn go_plugins() -> Option<PathBuf> {
    let directory = PathBuf::from(GO_PLUGINS);
    if directory.join("bridge").exists() {
        return Some(directory);
    }
    println!("SKIP: no Go plugins in {GO_PLUGINS} (apt-get install containernetworking-plugins)");
    None
}

/// A cgroup of threads that goes with its guard.
pub struct Cgroup {
    pub path: PathBuf,
    pub parent: PathBuf,
}

impl Cgroup {
    /// Of threads, below the one that the test is in.
    pub fn new() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read");
        let Some(mount) = mounts.lines().find(|line| line.contains(" - cgroup2 ")) else {
            println!("SKIP: no cgroup v2 hierarchy is mounted");
            return None;
        };
        let own = std::fs::read_to_string("/proc/self/cgroup").expect("read");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("a v2 cgroup").to_owned();
        let parent = PathBuf::from(mount.split(' ').nth(4).expect("a mount point")).join(own);
        let thread = nix::unistd::gettid();
        let path = parent.join(format!("corten-services-{}-{thread}", std::process::id()));
        std::fs::create_dir(&path).expect("a cgroup, as root");
        let cgroup = Self { path, parent };
        std::fs::write(cgroup.path.join("cgroup.type"), "threaded").expect("a threaded cgroup");
        Some(cgroup)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        move_to(&self.parent);
        std::fs::remove_dir(&self.path).expect("an empty cgroup");
    }
}

/// This thread.
pub fn move_to(cgroup: &Path) {
    std::fs::write(cgroup.join("cgroup.threads"), nix::unistd::gettid().to_string()).expect("moved");
}
