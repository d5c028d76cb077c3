//! Stock kubectl: exec, cp, logs, port-forward, over WebSocket (its default) and SPDY, with kubelets of both kinds.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

use crate::cluster::Cluster;

const LIMIT: Duration = Duration::from_mins(1);

/// `None` once it is said that there is none.
fn kubectl() -> Option<PathBuf> {
    let named = std::env::var_os("CORTEN_KUBECTL").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/xtask/bin/kubectl");
    let mut places =
        named.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join("kubectl"))).chain([cache]);
    let found = places.find(|file| file.is_file());
    if found.is_none() {
        println!("SKIP: there is no kubectl in PATH, nor where CORTEN_KUBECTL says");
    }
    found
}

/// How a kubectl and a kubelet may speak with each other through us.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// WebSocket; SPDY otherwise.
    client: bool,
    kubelet: bool,
}

const WAYS: [Way; 3] = [
    Way { client: true, kubelet: false },
    Way { client: false, kubelet: false },
    Way { client: true, kubelet: true },
];

struct Kubectl {
    program: PathBuf,
    cluster: Cluster,
    home: tempfile::TempDir,
    websockets: bool,
}

impl Kubectl {
    async fn new(program: &Path, way: Way) -> Self {
        let cluster = Cluster::start(way.kubelet).await;
        let home = tempfile::tempdir().expect("a directory");
        let config = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {{server: 'https://{}', \
             insecure-skip-tls-verify: true}}\nusers:\n- name: u\n  user: {{token: secret}}\ncontexts:\n- name: c\n  \
             context: {{cluster: c, user: u}}\ncurrent-context: c\n",
            cluster.address
        );
        std::fs::write(home.path().join("config"), config).expect("written");
        Self { program: program.to_owned(), cluster, home, websockets: way.client }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).env_clear().env("HOME", self.home.path()).env("PATH", "/usr/bin:/bin");
        command.env("KUBECONFIG", self.home.path().join("config"));
        for name in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
            command.env(name, self.websockets.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, words: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(words).stdin(Stdio::piped()).spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        tokio::spawn(async move {
            let _ = stdin.write_all(&input).await;
        });
        timeout(LIMIT, child.wait_with_output()).await.expect("in time").expect("it ends")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_gives_output_errors_and_the_exit_code() {
    let Some(program) = kubectl() else { return };
    for way in WAYS {
        let kubectl = Kubectl::new(&program, way).await;
        let output =
            kubectl.run(&["exec", "a", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], b"").await;
        let said = (text(&output.stdout), text(&output.stderr), output.status.code());
        assert_eq!((&*said.0, said.2), ("out\n", Some(3)), "{way:?}: {}", said.1);
        assert_eq!(said.1, "err\ncommand terminated with exit code 3\n", "{way:?}");
        let method = if way.client && way.kubelet { "GET" } else { "POST" };
        let asked = kubectl.cluster.kubelet.asked();
        let words = "command=sh&command=-c&command=echo+out%3B+echo+err+%3E%262%3B+exit+3&error=1&output=1";
        assert_eq!(asked, [format!("{method} /exec/default/a/main?{words}")], "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_passes_input_to_its_end_however_much_it_is() {
    let Some(program) = kubectl() else { return };
    for way in WAYS {
        let kubectl = Kubectl::new(&program, way).await;
        let input: Vec<u8> = (0..3 << 20).map(|at: u32| (at / 251) as u8).collect();
        let output = kubectl.run(&["exec", "-i", "a", "--", "cat"], &input).await;
        let length = output.stdout.len();
        assert!(
            output.stdout == input,
            "{way:?}: {length} of {} bytes: {}",
            input.len(),
            text(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(0), "{way:?}");
        let output = kubectl.run(&["attach", "-i", "a"], b"attached\n").await;
        assert!(text(&output.stdout).ends_with("attached\n"), "{way:?}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_not_there_and_a_pod_that_is_gone_are_said() {
    let Some(program) = kubectl() else { return };
    for way in WAYS {
        let kubectl = Kubectl::new(&program, way).await;
        let output = kubectl.run(&["exec", "a", "--", "/no/such/program"], b"").await;
        assert_eq!(output.status.code(), Some(1), "{way:?}");
        assert!(text(&output.stderr).contains("cannot run"), "{way:?}: {}", text(&output.stderr));
        let output = kubectl.run(&["exec", "gone", "--", "true"], b"").await;
        assert_eq!(output.status.code(), Some(1), "{way:?}");
        assert!(text(&output.stderr).contains("pod does not exist"), "{way:?}: {}", text(&output.stderr));
        let output = kubectl.run(&["exec", "two", "-c", "none", "--", "true"], b"").await;
        let said = "container none is not valid for pod two";
        assert!(text(&output.stderr).contains(said), "{way:?}: {}", text(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_brings_a_file_there_and_back() {
    let Some(program) = kubectl() else { return };
    for way in WAYS {
        let kubectl = Kubectl::new(&program, way).await;
        let path = |name: &str| kubectl.home.path().join(name).to_str().expect("a path").to_owned();
        let content: Vec<u8> = (0..300_000_u32).map(|at| (at % 253) as u8).collect();
        std::fs::write(path("from"), &content).expect("written");
        let output = kubectl.run(&["cp", &path("from"), &format!("a:{}", path("there"))], b"").await;
        assert!(output.status.success(), "{way:?}: {}", text(&output.stderr));
        let output = kubectl.run(&["cp", &format!("a:{}", path("there")), &path("back")], b"").await;
        assert!(output.status.success(), "{way:?}: {}", text(&output.stderr));
        assert!(std::fs::read(path("back")).expect("it came back") == content, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_with_the_options_that_were_asked_for() {
    let Some(program) = kubectl() else { return };
    let kubectl = Kubectl::new(&program, WAYS[0]).await;
    let output =
        kubectl.run(&["logs", "a", "--tail=2", "--timestamps", "--since=10s", "--limit-bytes=99"], b"").await;
    assert_eq!(
        text(&output.stdout),
        "default/a/main line 18\ndefault/a/main line 19\n",
        "{}",
        text(&output.stderr)
    );
    let asked = "GET /containerLogs/default/a/main?limitBytes=99&sinceSeconds=10&tailLines=2&timestamps=true";
    assert_eq!(kubectl.cluster.kubelet.asked(), [asked]);
    let output = kubectl.run(&["logs", "two", "-c", "other", "--follow"], b"").await;
    assert_eq!(text(&output.stdout).lines().count(), 20, "{}", text(&output.stderr));
    let output = kubectl.run(&["logs", "waiting"], b"").await;
    let said = "Error from server (BadRequest): container \"main\" in pod \"waiting\" is waiting to start: ContainerCreating\n";
    assert_eq!((text(&output.stderr), output.status.code()), (said.to_owned(), Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn port_forward_carries_many_connections_at_once() {
    let Some(program) = kubectl() else { return };
    for way in WAYS {
        let kubectl = Kubectl::new(&program, way).await;
        let port = echo().await;
        let mut child =
            kubectl.command(&["port-forward", "pod/a", &format!(":{port}")]).spawn().expect("kubectl starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = timeout(LIMIT, lines.next_line()).await.expect("in time").expect("read");
        let Some(line) = line else {
            let output = child.wait_with_output().await.expect("it ends");
            panic!("{way:?}: {}", text(&output.stderr));
        };
        let local = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
        let local: u16 = local.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        let connections = (0..8_u8).map(|number| async move {
            let mut socket = TcpStream::connect(("127.0.0.1", local)).await.expect("connected");
            let sent = vec![number; 400_000];
            let (mut read, mut write) = socket.split();
            let writing = async {
                write.write_all(&sent).await.expect("written");
                write.shutdown().await.expect("finished");
            };
            let mut received = Vec::new();
            let (read, ()) = tokio::join!(read.read_to_end(&mut received), writing);
            read.expect("read");
            assert!(received == sent, "{way:?}: {} bytes came back", received.len());
        });
        timeout(LIMIT, futures::future::join_all(connections)).await.expect("in time");
        child.kill().await.expect("it was there");
    }
}

/// Repeats what comes until the other side has finished.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    port
}
