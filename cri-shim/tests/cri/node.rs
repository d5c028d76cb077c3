//! A node of one test: what the daemon calls its host is a network namespace and a few directories. Dropped, it leaves
//! nothing.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use corten_cri_api::corten_v1::ImportRequest;
use corten_cri_api::corten_v1::images_client::ImagesClient;
use corten_cri_api::v1;
use corten_cri_api::v1::image_service_client::ImageServiceClient;
use corten_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use corten_images::Reference;
use corten_images::archive::{ImageFile, RunConfig, write_oci_archive};
use corten_sys::ns;
use tonic::transport::{Channel, Endpoint};

pub const IMAGE: &str = "corten.test/busybox:1";
/// Nothing a test waits for takes longer on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub struct Node {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
    number: u32,
}

pub type Runtime = RuntimeServiceClient<Channel>;

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_corten-cri")).with_file_name(name)
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|p| p.is_file())
}

/// Why tests cannot run here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".into());
    }
    if busybox().is_none() {
        return Some("no static busybox (Debian: busybox-static)".into());
    }
    let absent = ["corten-monitor", "corten-cni"].into_iter().find(|name| !program(name).is_file());
    absent.map(|name| format!("{name} is not built (cargo build --workspace)"))
}

impl Node {
    /// A node with its daemon running and the image in place. `None`, with the reason printed, where that cannot be.
    pub async fn start() -> Option<Self> {
        let mut node = Self::prepare()?;
        node.launch().await;
        node.import().await;
        Some(node)
    }

    /// The same without a daemon.
    pub fn prepare() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Some(why) = missing() {
            println!("SKIP: {why}");
            return None;
        }
        let node = Self {
            dir: tempfile::Builder::new().prefix("corten-cri-").tempdir().unwrap(),
            daemon: None,
            number: NEXT.fetch_add(1, Ordering::SeqCst),
        };
        ns::pin_new_network(&node.path("net")).unwrap();
        node.in_network(|| corten_sys::net::loopback_up().unwrap());
        fs::create_dir(node.path("bin")).unwrap();
        fs::create_dir(node.path("conf")).unwrap();
        for plugin in ["bridge", "host-local", "portmap", "loopback"] {
            symlink(program("corten-cni"), node.path("bin").join(plugin)).unwrap();
        }
        node.plugin("test", TEST_PLUGIN);
        node.network(r#"{"type":"portmap","capabilities":{"portMappings":true}}"#);
        fs::write(node.path("config.toml"), node.config()).unwrap();
        Some(node)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> String {
        let dir = self.dir.path().display();
        format!(
            "root = \"{dir}/root\"\nstate = \"{dir}/state\"\ncgroup_parent = \"/{}\"\nmonitor = \"{}\"\n\
             [cni]\nbin_dirs = [\"{dir}/bin\"]\nconf_dir = \"{dir}/conf\"\nplugin_timeout_s = 3\nteardown_retry_s = 1\n\
             [exec]\ndrain_timeout_s = 1\n",
            self.cgroup(),
            program("corten-monitor").display(),
        )
    }

    pub fn cgroup(&self) -> String {
        format!("corten-cri-test-{}-{}", std::process::id(), self.number)
    }

    /// The pod network: our bridge and one more plugin.
    pub fn network(&self, second: &str) {
        let text = format!(
            r#"{{"cniVersion":"1.0.0","name":"pods","plugins":[
            {{"type":"bridge","bridge":"br0","isGateway":true,"ipam":{{"type":"host-local","dataDir":"{}",
            "ranges":[[{{"subnet":"10.99.0.0/24"}}]]}}}},{second}]}}"#,
            self.path("ipam").display()
        );
        fs::write(self.path("conf/10-pods.conflist"), text).unwrap();
    }

    /// A plugin that is a shell script.
    pub fn plugin(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs `work` in what the daemon takes for the host's network.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let fd = ns::open(self.path("net"), ns::Kind::Network).unwrap();
        ns::in_network(fd, work).unwrap()
    }

    /// Starts the program with `arguments`, in the node's network.
    pub fn command(&self, arguments: &[&str]) -> Child {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let config = self.path("config.toml");
        self.in_network(|| {
            Command::new(env!("CARGO_BIN_EXE_corten-cri"))
                .arg("--config")
                .arg(config)
                .args(["--log-level", "info,corten_cri=debug"])
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap()
        })
    }

    pub async fn launch(&mut self) {
        self.daemon = Some(self.command(&[]));
        let deadline = Instant::now() + PATIENCE;
        while self.try_connect().await.is_none() {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no daemon: {ended:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL, as a crash would.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// SIGTERM, as a service manager would.
    pub async fn terminate(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let pid = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = tokio::task::spawn_blocking(move || daemon.wait().unwrap()).await.unwrap();
        assert!(status.success(), "{status}");
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::try_from(format!("unix://{}", self.path("state/cri.sock").display())).unwrap()
    }

    async fn try_connect(&self) -> Option<()> {
        let channel = self.endpoint().connect().await.ok()?;
        RuntimeServiceClient::new(channel).version(v1::VersionRequest::default()).await.ok().map(drop)
    }

    pub async fn runtime(&self) -> Runtime {
        let limit = 64 << 20;
        RuntimeServiceClient::new(self.endpoint().connect().await.unwrap()).max_decoding_message_size(limit)
    }

    pub async fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.endpoint().connect().await.unwrap())
    }

    async fn import(&self) {
        let archive = self.path("image.tar");
        let mut program = Vec::new();
        fs::File::open(busybox().unwrap()).unwrap().read_to_end(&mut program).unwrap();
        let file = |path, mode, content| ImageFile { path, mode, content };
        let files = [
            file("bin/busybox", 0o755, &program[..]),
            file("bin/sh", 0o755, b"#!/bin/busybox sh\n"),
            file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n"),
            file("etc/group", 0o644, b"root:x:0:\nweb:x:34:\nextra:x:50000:web\n"),
            file("tmp/keep", 0o644, b""),
        ];
        let run = RunConfig { cmd: vec!["/bin/busybox".into()], ..RunConfig::default() };
        write_oci_archive(&archive, &Reference::parse(IMAGE).unwrap(), &files, &run).unwrap();
        let mut client = ImagesClient::new(self.endpoint().connect().await.unwrap());
        let request = ImportRequest { path: archive.display().to_string(), ..ImportRequest::default() };
        let imported = client.import(request).await.unwrap().into_inner();
        assert_eq!(imported.images[0].names, [IMAGE]);
    }

    /// Runs a pod and answers with its id.
    pub async fn pod(&self, name: &str) -> String {
        self.pod_with(name, |_| {}).await
    }

    pub async fn pod_with(&self, name: &str, change: impl FnOnce(&mut v1::PodSandboxConfig)) -> String {
        self.try_pod(name, change).await.unwrap_or_else(|e| panic!("{e}\n{}", self.log()))
    }

    pub async fn try_pod(
        &self,
        name: &str,
        change: impl FnOnce(&mut v1::PodSandboxConfig),
    ) -> Result<String, tonic::Status> {
        let mut config = self.pod_config(name);
        change(&mut config);
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        Box::pin(async { self.runtime().await.run_pod_sandbox(request).await })
            .await
            .map(|r| r.into_inner().pod_sandbox_id)
    }

    pub fn pod_config(&self, name: &str) -> v1::PodSandboxConfig {
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.path("logs").join(name).display().to_string(),
            dns_config: Some(v1::DnsConfig { servers: vec!["10.0.0.10".into()], ..Default::default() }),
            linux: Some(v1::LinuxPodSandboxConfig::default()),
            ..v1::PodSandboxConfig::default()
        }
    }

    /// Creates and starts a container that runs a shell script.
    pub async fn container(&self, pod: &str, name: &str, script: &str) -> String {
        self.container_with(pod, name, script, |_| {}).await
    }

    pub async fn container_with(
        &self,
        pod: &str,
        name: &str,
        script: &str,
        change: impl FnOnce(&mut v1::ContainerConfig),
    ) -> String {
        let id = self
            .try_create(pod, name, script, change)
            .await
            .unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
        let request = v1::StartContainerRequest { container_id: id.clone() };
        let started = Box::pin(async { self.runtime().await.start_container(request).await }).await;
        started.unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
        id
    }

    pub async fn try_create(
        &self,
        pod: &str,
        name: &str,
        script: &str,
        change: impl FnOnce(&mut v1::ContainerConfig),
    ) -> Result<String, tonic::Status> {
        let mut config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: ["/bin/busybox", "sh", "-c", script].map(String::from).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(v1::LinuxContainerConfig::default()),
            ..v1::ContainerConfig::default()
        };
        change(&mut config);
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config),
            sandbox_config: None,
        };
        Box::pin(async { self.runtime().await.create_container(request).await })
            .await
            .map(|r| r.into_inner().container_id)
    }

    pub async fn status(&self, container: &str) -> v1::ContainerStatus {
        let request = v1::ContainerStatusRequest { container_id: container.into(), verbose: false };
        self.runtime().await.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    pub async fn pod_status(&self, pod: &str) -> v1::PodSandboxStatus {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
        self.runtime().await.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// Waits for its end.
    pub async fn exited(&self, container: &str) -> v1::ContainerStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(container).await;
            if status.state() == v1::ContainerState::ContainerExited {
                return status;
            }
            assert!(Instant::now() < deadline, "{container} does not end: {status:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a shell script in a container: what it printed, and its code.
    pub async fn exec(&self, container: &str, script: &str) -> (String, i32) {
        let answer =
            self.try_exec(container, script, 20).await.unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
        (String::from_utf8_lossy(&answer.stdout).into_owned(), answer.exit_code)
    }

    pub async fn try_exec(
        &self,
        container: &str,
        script: &str,
        timeout: i64,
    ) -> Result<v1::ExecSyncResponse, tonic::Status> {
        let cmd = ["/bin/busybox", "sh", "-c", script].map(String::from).to_vec();
        let request = v1::ExecSyncRequest { container_id: container.into(), cmd, timeout };
        Box::pin(async { self.runtime().await.exec_sync(request).await })
            .await
            .map(tonic::Response::into_inner)
    }

    pub fn read_log(&self, pod: &str, container: &str) -> String {
        fs::read_to_string(self.path("logs").join(pod).join(format!("{container}.log"))).unwrap_or_default()
    }

    pub async fn stop_pod(&self, pod: &str) -> Result<(), tonic::Status> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod.into() };
        self.runtime().await.stop_pod_sandbox(request).await.map(drop)
    }

    pub async fn remove_pod(&self, pod: &str) -> Result<(), tonic::Status> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.into() };
        self.runtime().await.remove_pod_sandbox(request).await.map(drop)
    }

    /// Names in a directory of the node.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Addresses that IPAM has given out.
    pub fn addresses(&self) -> Vec<String> {
        let parse = |name: &String| name.parse::<std::net::IpAddr>().is_ok();
        self.names("ipam/pods").into_iter().filter(parse).collect()
    }

    /// Nothing of any pod is left but the image.
    pub fn assert_clean(&self) {
        for dir in ["state/pods", "state/netns", "state/oci", "root/pods", "root/images/snapshots"] {
            assert_eq!(self.names(dir), [""; 0], "{dir}\n{}", self.log());
        }
        assert_eq!(self.addresses(), [""; 0], "addresses leaked\n{}", self.log());
    }

    /// Waits until `what` holds.
    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self).await {
            assert!(Instant::now() < deadline, "never: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The pid of a pod's monitor.
    pub fn monitor_pid(&self, pod: &str) -> i32 {
        let text = fs::read_to_string(self.path("state/pods").join(pod).join("monitor.json")).unwrap();
        let record: corten_monitor::record::MonitorRecord = serde_json::from_str(&text).unwrap();
        record.pid
    }
}

/// SIGKILL to one process that a test knows.
pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.kill_daemon();
        for pod in self.names("state/pods") {
            let dir = self.path("state/pods").join(&pod);
            let record = fs::read_to_string(dir.join("monitor.json")).ok();
            let record =
                record.and_then(|t| serde_json::from_str::<corten_monitor::record::MonitorRecord>(&t).ok());
            if let Some(pid) = record.and_then(|r| rustix::process::Pid::from_raw(r.pid)) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                let deadline = Instant::now() + Duration::from_secs(5);
                while rustix::process::test_kill_process(pid).is_ok() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            let _ = Command::new(program("corten-monitor")).arg("sweep").arg("--dir").arg(&dir).output();
        }
        for name in self.names("state/netns") {
            let _ = ns::unpin(&self.path("state/netns").join(name));
        }
        let _ = ns::unpin(&self.path("net"));
        remove_cgroups(&self.cgroup());
    }
}

/// The pods' parent in every hierarchy, empty by now.
fn remove_cgroups(name: &str) {
    let mut hierarchies = vec![PathBuf::from("/sys/fs/cgroup")];
    hierarchies
        .extend(fs::read_dir("/sys/fs/cgroup").into_iter().flatten().filter_map(|e| Some(e.ok()?.path())));
    for hierarchy in hierarchies {
        let _ = fs::remove_dir(hierarchy.join(name));
    }
}

/// A plugin that does what its configuration says: `"ADD":"fail"`, `"DEL":"hang"`, ... It notes each call in `calls`
/// beside `bin`, and passes the result on.
const TEST_PLUGIN: &str = r#"#!/bin/sh
dir=$(dirname "$(dirname "$0")")
conf=$(cat)
echo "$CNI_COMMAND $conf" >> "$dir/calls"
case "$conf" in
  *"\"$CNI_COMMAND\":\"fail\""*) echo '{"code":100,"msg":"told to fail"}'; exit 1;;
  *"\"$CNI_COMMAND\":\"hang\""*) sleep 20;;
  *"\"$CNI_COMMAND\":\"flag\""*) [ -e "$dir/flag" ] || { echo '{"code":100,"msg":"no flag"}'; exit 1; };;
esac
[ "$CNI_COMMAND" = ADD ] && printf '%s' "$conf" | sed 's/.*"prevResult"://; s/,"type":"test"}$//'
exit 0
"#;
