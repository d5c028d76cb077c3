//! A private node: own network and mount namespace, own directories, own cgroup, own daemons.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::artifacts::{self, Missing};
use crate::wait;

/// A node of one test. The test's thread lives in its namespaces from [`Node::new`] on, with all it starts.
pub struct Node {
    dir: TempDir,
    programs: PathBuf,
    /// Name of its cgroup below the root of each hierarchy.
    pub cgroup: String,
    cri: Option<Child>,
    /// `corten up` ran: `corten down` has to run.
    up: bool,
}

static NODES: AtomicU32 = AtomicU32::new(0);

impl Node {
    /// Moves the calling thread into fresh namespaces.
    pub fn new() -> Result<Self, Missing> {
        artifacts::root()?;
        for tool in ["ip", "nft"] {
            artifacts::tool(tool)?;
        }
        let programs = artifacts::programs()?;
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("new network and mount namespaces");
        let none: Option<&str> = None;
        // Nothing reaches the machine; inside, mounts are shared, as systemd leaves them on a node and the kubelet
        // wants them.
        for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
            mount(none, "/", none, MsFlags::MS_REC | propagation, none).expect("a mount table of its own");
        }
        let node = Self {
            dir: tempfile::Builder::new().prefix("corten-node-").tempdir().expect("a directory for the node"),
            programs,
            cgroup: format!("corten-test-{}-{}", std::process::id(), NODES.fetch_add(1, Ordering::Relaxed)),
            cri: None,
            up: false,
        };
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        fs::create_dir_all(node.config().join("certs.d")).expect("make the configuration directory");
        Ok(node)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
    pub fn root(&self) -> PathBuf {
        self.dir().join("root")
    }
    pub fn state(&self) -> PathBuf {
        self.dir().join("state")
    }
    pub fn config(&self) -> PathBuf {
        self.dir().join("config")
    }
    pub fn socket(&self) -> PathBuf {
        self.state().join("cri.sock")
    }
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Names `registry` as the mirror of `hosts`, by hosts.toml over plain HTTP.
    pub fn mirror(&self, hosts: &[&str], registry: &str) {
        for host in hosts {
            let dir = self.config().join("certs.d").join(host);
            fs::create_dir_all(&dir).expect("make the registry's directory");
            let text = format!(
                "server = \"https://{host}\"\n\n[host.\"http://{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
            );
            fs::write(dir.join("hosts.toml"), text).expect("write hosts.toml");
        }
    }

    /// `corten` with the places of this node.
    pub fn corten(&mut self, args: &[&str]) -> Output {
        self.up |= args.first() == Some(&"up");
        let mut command = Command::new(self.program("corten"));
        command.args(args.iter().take_while(|arg| **arg != "--"));
        for (flag, dir) in [("--root", self.root()), ("--state", self.state()), ("--config", self.config())] {
            command.arg(flag).arg(dir);
        }
        if args.first() == Some(&"up") {
            command.arg("--cgroup-parent").arg(format!("/{}", self.cgroup));
        }
        command.args(args.iter().skip_while(|arg| **arg != "--"));
        command.stdin(Stdio::null()).output().expect("start corten")
    }

    /// Starts corten-cri alone, as a stock kubelet or crictl would use it, and waits until it answers.
    pub fn start_cri(&mut self) {
        let config = self.write_cri_config();
        let log =
            File::options().create(true).append(true).open(self.cri_log()).expect("open the daemon's log");
        let mut child = Command::new(self.program("corten-cri"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("start corten-cri");
        wait::until("corten-cri listens", || {
            if let Some(status) = child.try_wait().expect("look at corten-cri") {
                panic!("corten-cri ended ({status}):\n{}", self.cri_log_text());
            }
            std::os::unix::net::UnixStream::connect(self.socket()).map(drop).map_err(|e| e.to_string())
        });
        self.cri = Some(child);
    }

    /// The process of the corten-cri that runs.
    pub fn cri_pid(&self) -> Option<u32> {
        self.cri.as_ref().map(Child::id)
    }

    /// Ends corten-cri without a warning.
    pub fn kill_cri(&mut self) {
        if let Some(mut child) = self.cri.take() {
            child.kill().expect("kill corten-cri");
            child.wait().expect("wait for corten-cri");
        }
    }

    /// The configuration of a node with the bridge network `test0`.
    pub fn write_cri_config(&self) -> PathBuf {
        let (conf, bin) = (self.dir().join("cni/net.d"), self.dir().join("cni/bin"));
        for dir in [&conf, &bin, &self.state(), &self.root()] {
            fs::create_dir_all(dir).expect("make a directory of the node");
        }
        for plugin in ["bridge", "host-local", "loopback", "portmap"] {
            let link = bin.join(plugin);
            if !link.exists() {
                symlink(self.program("corten-cni"), link).expect("link a plugin");
            }
        }
        let conflist = serde_json::json!({
            "cniVersion": "1.0.0",
            "name": "test",
            "plugins": [
                { "type": "bridge", "bridge": "test0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                  "ipam": { "type": "host-local", "dataDir": self.dir().join("cni/networks"),
                            "ranges": [[{ "subnet": "10.99.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
                { "type": "portmap", "capabilities": { "portMappings": true } }
            ]
        });
        fs::write(conf.join("10-test.conflist"), conflist.to_string()).expect("write the conflist");
        let config = format!(
            "root = \"{}\"\nstate = \"{}\"\ncgroup_parent = \"/{}\"\n[cni]\nbin_dirs = [\"{}\"]\nconf_dir = \"{}\"\n\
             [registry]\ncerts_dirs = [\"{}\"]\n",
            self.root().display(),
            self.state().display(),
            self.cgroup,
            bin.display(),
            conf.display(),
            self.config().join("certs.d").display(),
        );
        let file = self.dir().join("corten-cri.toml");
        fs::write(&file, config).expect("write the daemon's configuration");
        file
    }

    fn cri_log(&self) -> PathBuf {
        self.dir().join("corten-cri.log")
    }

    /// What the daemon said, for the message of a test that fails.
    pub fn cri_log_text(&self) -> String {
        fs::read_to_string(self.cri_log()).unwrap_or_default()
    }

    /// Kills every process of the node and removes its cgroups; the namespaces go with the last of them.
    fn sweep(&mut self) {
        if self.up {
            let _ = self.corten(&["down", "--timeout", "5"]);
        }
        self.kill_cri();
        for pid in pids_of(self.dir()) {
            kill(pid);
        }
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        for hierarchy in table.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(4))
        {
            remove_cgroup(&Path::new(hierarchy).join(&self.cgroup));
        }
        let dir = self.dir().to_path_buf();
        let points =
            table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| Path::new(p).starts_with(&dir));
        for point in points.collect::<Vec<_>>().into_iter().rev() {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("corten-cri said:\n{}", self.cri_log_text());
            for daemon in ["corten-cri", "corten-kubelet"] {
                let log =
                    fs::read_to_string(self.root().join(format!("log/{daemon}.log"))).unwrap_or_default();
                println!("{daemon} said:\n{log}");
            }
        }
        self.sweep();
    }
}

/// Runs a command of the test's own preparation.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a program printed, and that it succeeded.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\nstdout:\n{out}\nstderr:\n{err}", output.status);
    out.into_owned()
}

/// What a program said as it failed.
#[track_caller]
pub fn failed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "it did not fail\nstdout:\n{out}\nstderr:\n{err}");
    format!("{out}{err}")
}

/// Processes whose command line names `dir`.
pub fn pids_of(dir: &Path) -> Vec<i32> {
    let dir = dir.display().to_string();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = std::process::id() as i32;
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|l| String::from_utf8_lossy(&l).contains(&dir))
        })
        .collect()
}

pub fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

fn remove_cgroup(dir: &Path) {
    for child in fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        remove_cgroup(&child.path());
    }
    for _ in 0..200 {
        if !dir.exists() {
            return;
        }
        for pid in
            fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines().flat_map(str::parse)
        {
            kill(pid);
        }
        let _ = fs::remove_dir(dir);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
