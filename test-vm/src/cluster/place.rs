//! Namespaces that processes run in: a network namespace alone (switch, host outside), a node's whole set, a pod's
//! network on its node.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::artifacts;

/// Clones are the same place.
#[derive(Clone)]
pub struct Place {
    network: Network,
    node: Option<Arc<NodeSpaces>>,
}

#[derive(Clone)]
enum Network {
    Held(Arc<File>),
    /// Pinned here, in the node's mount namespace: nothing of the lane keeps it alive.
    Pinned(String),
}

struct NodeSpaces {
    mounts: File,
    cgroups: File,
    /// Directory of the node's cgroup (v2), as the lane sees it.
    cgroup: PathBuf,
}

/// Where a node pins the network namespaces of its pods.
const PINS: &str = "/run/netns";

impl Place {
    /// A network namespace and nothing else.
    pub fn network() -> Result<Self> {
        let file = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("new network namespace")?;
            own("net")
        })?;
        Ok(Self { network: Network::Held(Arc::new(file)), node: None })
    }

    /// A node: network, mounts and cgroups of its own. `cgroup` is the name of its cgroup at the root of the v2
    /// hierarchy; it is made here and removed with the last clone.
    ///
    /// Inside, `/run`, `/var/lib`, `/sys` and the BPF file system are the node's alone, `/etc` is a copy, and the v2
    /// hierarchy at /sys/fs/cgroup begins at the node's cgroup: programs run with their default places.
    pub fn node(cgroup: &str) -> Result<Self> {
        let root = cgroup_root()?;
        let dir = root.join(cgroup);
        fs::create_dir_all(&dir).with_context(|| format!("make cgroup {}", dir.display()))?;
        let (network, mounts, cgroups) = {
            // The root of a new cgroup namespace is the cgroup of the process that makes it.
            let _member = Member::of(&root, &dir)?;
            on_a_thread(|| {
                let all = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
                unshare(all).context("new namespaces for a node")?;
                furnish()?;
                Ok((own("net")?, own("mnt")?, own("cgroup")?))
            })?
        };
        let node = Some(Arc::new(NodeSpaces { mounts, cgroups, cgroup: dir }));
        Ok(Self { network: Network::Held(Arc::new(network)), node })
    }

    /// A new network namespace on this node, pinned as a runtime would, and the path of the pin on the node.
    pub fn pod(&self, name: &str) -> Result<(Self, String)> {
        let node = self.node.as_ref().context("pods are on nodes")?;
        let pin = format!("{PINS}/{name}");
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_FS).context("file system context of its own")?;
            setns(&node.mounts, CloneFlags::CLONE_NEWNS).context("enter the node's mounts")?;
            unshare(CloneFlags::CLONE_NEWNET).context("new network namespace")?;
            File::create_new(&pin).with_context(|| format!("make {pin}"))?;
            bind("/proc/thread-self/ns/net", &pin)
        })?;
        Ok((Self { network: Network::Pinned(pin.clone()), node: self.node.clone() }, pin))
    }

    /// Undoes [`Place::pod`]; the namespace goes with the last process in it.
    pub fn unpin(&self) -> Result<()> {
        let (Some(node), Network::Pinned(pin)) = (&self.node, &self.network) else { return Ok(()) };
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_FS)?;
            setns(&node.mounts, CloneFlags::CLONE_NEWNS).context("enter the node's mounts")?;
            nix::mount::umount2(pin.as_str(), nix::mount::MntFlags::MNT_DETACH)
                .with_context(|| format!("unmount {pin}"))?;
            fs::remove_file(pin).with_context(|| format!("remove {pin}"))
        })
    }

    /// A path by which other processes of the lane open the network namespace.
    pub fn network_path(&self) -> String {
        match &self.network {
            Network::Held(file) => fd_path(file),
            Network::Pinned(pin) => pin.clone(),
        }
    }

    /// The node's cgroup directory, as the lane sees it.
    pub fn cgroup(&self) -> Option<&Path> {
        self.node.as_ref().map(|node| node.cgroup.as_path())
    }

    /// `program`, to be run here.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new(artifacts::net_probe().map_err(|missing| anyhow!("{missing}"))?);
        command.arg("enter");
        if let Some(node) = &self.node {
            command.arg("--cgroup").arg(&node.cgroup);
            command.arg("--cgroups").arg(fd_path(&node.cgroups)).arg("--mounts").arg(fd_path(&node.mounts));
        }
        command.arg("--network").arg(self.network_path()).arg("--").arg(program).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a program here to its end and returns what it printed.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        self.feed(program, args, &[], "")
    }

    /// The same with variables and standard input.
    pub fn feed(&self, program: &str, args: &[&str], vars: &[(&str, &str)], input: &str) -> Result<String> {
        let (output, ok) = self.try_feed(program, args, vars, input)?;
        ensure!(ok, "{program} {}: {output}", args.join(" "));
        Ok(output)
    }

    /// The same, without judging: what it printed (both streams when it failed) and whether it succeeded.
    pub fn try_feed(
        &self,
        program: &str,
        args: &[&str],
        vars: &[(&str, &str)],
        input: &str,
    ) -> Result<(String, bool)> {
        use std::io::Write;
        let mut command = self.command(program)?;
        command.args(args).envs(vars.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input is free to.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            text.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        Ok((text, output.status.success()))
    }

    /// Lines for `ip -batch`: what stands after `ip` on a command line.
    pub fn ip(&self, lines: &[&str]) -> Result<()> {
        self.feed("ip", &["-batch", "-"], &[], &lines.join("\n")).map(drop)
    }

    /// `net/ipv4/ip_forward`
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.write(&format!("/proc/sys/{key}"), value)
    }

    /// Writes a file of the node, with the directories on the way to it.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        self.feed("sh", &["-c", "mkdir -p \"$(dirname \"$1\")\" && cat > \"$1\"", "sh", path], &[], text)
            .map(drop)
    }

    /// Writes a file of the node beside it and renames it there, as who edits a watched file should.
    pub fn replace(&self, path: &str, text: &str) -> Result<()> {
        let new = format!("{path}.new");
        self.write(&new, text)?;
        self.run("mv", &[&new, path]).map(drop)
    }

    pub fn read(&self, path: &str) -> Result<String> {
        self.run("cat", &[path])
    }
}

impl Drop for NodeSpaces {
    fn drop(&mut self) {
        super::sealed::remove(&self.cgroup);
    }
}

/// While it lives, the process is in another cgroup of the v2 hierarchy.
struct Member {
    home: PathBuf,
    _turn: std::sync::MutexGuard<'static, ()>,
}

static MEMBER: std::sync::Mutex<()> = std::sync::Mutex::new(());

impl Member {
    fn of(root: &Path, dir: &Path) -> Result<Self> {
        let turn = MEMBER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let table = fs::read_to_string("/proc/self/cgroup").context("read the own cgroup")?;
        let home =
            table.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2 membership")?;
        let member = Self { home: root.join(home), _turn: turn };
        fs::write(dir.join("cgroup.procs"), "0").with_context(|| format!("join cgroup {}", dir.display()))?;
        Ok(member)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = fs::write(self.home.join("cgroup.procs"), "0");
    }
}

/// Where the v2 hierarchy is mounted.
pub fn cgroup_root() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    let point =
        table.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    point.map(PathBuf::from).context("cgroup v2 is not mounted")
}

/// The mounts of a node, in the calling thread's new mount namespace.
fn furnish() -> Result<()> {
    private_mounts()?;
    fresh("tmpfs", "/run", "mode=755")?;
    fresh("tmpfs", "/var/lib", "mode=755")?;
    for dir in [PINS, "/run/etc/upper", "/run/etc/work"] {
        fs::create_dir_all(dir).with_context(|| format!("make {dir}"))?;
    }
    fresh("overlay", "/etc", "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work")?;
    // What lies there goes, not under: programs look for cgroup v2 in the mount table.
    nix::mount::umount2("/sys", nix::mount::MntFlags::MNT_DETACH).context("unmount /sys")?;
    fresh("sysfs", "/sys", "")?;
    fresh("bpf", "/sys/fs/bpf", "mode=700")?;
    fresh("cgroup2", "/sys/fs/cgroup", "")
}

/// Nothing that is mounted from here on reaches the machine.
pub fn private_mounts() -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("a mount table of its own")
}

pub fn fresh(kind: &str, at: &str, options: &str) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mount {kind} at {at}"))
}

fn bind(from: &str, to: &str) -> Result<()> {
    let none: Option<&str> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND, none).with_context(|| format!("bind {from} to {to}"))
}

fn own(kind: &str) -> Result<File> {
    File::open(format!("/proc/thread-self/ns/{kind}"))
        .with_context(|| format!("open the new {kind} namespace"))
}

fn fd_path(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// Runs `work` on a thread that ends with it, so that the caller stays where it is.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join().map_err(|_| anyhow!("a thread of the lane panicked"))?)
}
