//! A kubelet (the real binary) on a real runtime, both on temporary paths. Which runtime is one implementation of
//! [`Runtime`].

#![allow(dead_code)]

pub mod containerd;
pub mod image;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use image::{BUSYBOX, PAUSE};
use serde_json::Value;

/// A condition not met within this has failed.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// A running runtime and the place (namespaces) it runs in.
pub trait Runtime {
    /// `unix://PATH`
    fn endpoint(&self) -> String;
    /// A command that will run where the runtime runs.
    fn command(&self, argv: &[&str]) -> Command;
    /// Argv of its own client (`ctr`).
    fn client(&self) -> Vec<String>;
    /// The process of a child started by [`Self::command`], seen from here.
    fn process(&self, child: &Child) -> u32;
}

/// Waits for a condition.
pub fn until<T>(what: &str, condition: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "no {what} within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub struct Node {
    // Dropped in this order: the kubelet, the runtime with all that runs, then the files.
    kubelet: Option<Child>,
    runtime: Box<dyn Runtime>,
    cgroup_root: CgroupRoot,
    dir: tempfile::TempDir,
}

/// `None` (after saying why) where the test cannot run.
pub fn node() -> Option<Node> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: not root");
        return None;
    }
    if let Some(missing) = containerd::missing() {
        println!("SKIP: {missing} is not installed");
        return None;
    }
    let dir = tempfile::Builder::new().prefix("corten-kubelet-").tempdir().expect("temporary directory");
    let runtime = Box::new(containerd::Containerd::start(dir.path()));
    let name = dir.path().file_name().and_then(|n| n.to_str()).expect("name").to_owned();
    let mut node = Node { kubelet: None, runtime, cgroup_root: CgroupRoot(name), dir };
    node.start_kubelet();
    Some(node)
}

impl Node {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub fn cgroup_root(&self) -> &str {
        &self.cgroup_root.0
    }

    pub fn start_kubelet(&mut self) {
        let path = |name: &str| self.path(name).display().to_string();
        let log =
            std::fs::File::options().create(true).append(true).open(self.path("kubelet.log")).expect("log");
        let endpoint = self.runtime.endpoint();
        let argv = [
            env!("CARGO_BIN_EXE_corten-kubelet"),
            "--manifests",
            &path("manifests"),
            "--runtime-endpoint",
            &endpoint,
            "--root-dir",
            &path("kubelet"),
            "--log-dir",
            &path("logs"),
            "--state",
            &path("kubelet-state"),
            "--cgroup-root",
            &self.cgroup_root.0,
            "--node-name",
            "n1",
            "--log-level",
            "info",
        ];
        let mut command = self.runtime.command(&argv);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("start kubelet");
        self.kubelet = Some(child);
        until("healthy kubelet", || (self.get("/healthz")? == "ok").then_some(()));
    }

    /// Argv of the runtime's own client.
    pub fn client(&self) -> Vec<String> {
        self.runtime.client()
    }
    /// Runs a program where the runtime runs.
    pub fn run(&self, argv: &[String]) -> std::process::Output {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        self.runtime.command(&argv).output().expect("run")
    }

    /// Ends the kubelet by a signal; its pods stay.
    pub fn end_kubelet(&mut self, signal: rustix::process::Signal) {
        let mut child = self.kubelet.take().expect("a kubelet");
        let pid = self.runtime.process(&child);
        let pid = rustix::process::Pid::from_raw(pid as i32).expect("pid");
        rustix::process::kill_process(pid, signal).expect("kill");
        child.wait().expect("wait");
    }

    pub fn get(&self, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.path("kubelet-state/kubelet.sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: kubelet\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        // Only `/events` is chunked, and its lines do not mind what is between them.
        let _ = head;
        Some(body.to_owned())
    }

    pub fn pods(&self) -> Vec<Value> {
        let list: Value = self.get("/pods").and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }
    pub fn pod(&self, name: &str) -> Option<Value> {
        self.pods().into_iter().find(|p| p["metadata"]["name"] == format!("{name}-n1"))
    }
    pub fn manifests(&self) -> Vec<Value> {
        let list: Value =
            self.get("/manifests").and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }
    /// `REASON MESSAGE` of every event.
    pub fn events(&self) -> Vec<String> {
        let text = self.get("/events").unwrap_or_default();
        let events = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        events
            .filter(Value::is_object)
            .map(|e| format!("{} {}", word(&e["reason"]), word(&e["message"])))
            .collect()
    }

    /// Writes a manifest of `spec` in place, as an editor does.
    pub fn write(&self, name: &str, spec: &Value) {
        let pod =
            serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        self.write_text(&format!("{name}.json"), &pod.to_string());
    }
    pub fn write_text(&self, file: &str, text: &str) {
        std::fs::write(self.path("manifests").join(file), text).expect("write manifest");
    }
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path("manifests").join(format!("{name}.json"))).expect("remove manifest");
    }

    /// Waits until the pod is as `is` says.
    pub fn wait(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let pod = self.pod(name);
            if let Some(pod) = pod.as_ref().filter(|p| is(p)) {
                return pod.clone();
            }
            if Instant::now() > end {
                let log = std::fs::read_to_string(self.path("kubelet.log")).unwrap_or_default();
                panic!("pod {name} is not {what} within {DEADLINE:?}: {pod:#?}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    pub fn wait_ready(&self, name: &str) -> Value {
        self.wait(name, "Ready", ready)
    }
    pub fn wait_gone(&self, name: &str) {
        let end = Instant::now() + DEADLINE;
        while let Some(pod) = self.pod(name) {
            if Instant::now() > end {
                let log = std::fs::read_to_string(self.path("kubelet.log")).unwrap_or_default();
                panic!("pod {name} is not gone: {pod:#?}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The text of a container's log, without stamps.
    pub fn log(&self, pod: &Value, container: &str, attempt: u32) -> String {
        let meta = &pod["metadata"];
        let word = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
        let dir = format!("{}_{}_{}", word("namespace"), word("name"), word("uid"));
        let file = self.path("logs").join(dir).join(container).join(format!("{attempt}.log"));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|l| l.splitn(4, ' ').nth(3)).flat_map(|l| [l, "\n"]).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.kubelet.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Status of a container by name.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let list = |key: &str| pod["status"][key].as_array().into_iter().flatten();
    list("containerStatuses")
        .chain(list("initContainerStatuses"))
        .find(|c| c["name"] == name)
        .unwrap_or(&Value::Null)
}

/// Cgroups of one test, removed with whatever a killed runtime left in them.
struct CgroupRoot(String);

impl Drop for CgroupRoot {
    fn drop(&mut self) {
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_tree(&hierarchy.path().join(&self.0));
        }
    }
}

fn remove_tree(dir: &Path) {
    for child in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&child.path());
        }
    }
    let end = Instant::now() + Duration::from_secs(5);
    while dir.exists() && std::fs::remove_dir(dir).is_err() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}
