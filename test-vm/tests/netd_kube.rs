//! corten-netd with its nodes from a stock kube-apiserver (and Debian's etcd behind it), with the permissions that
//! flannel's manifest gives and no more. Run by `cargo xtask conformance netd-kube`, which builds the server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use corten_test_vm::artifacts::{Missing, program, stock, tool};
use corten_test_vm::cluster::Place;
use corten_test_vm::wait::{until, until_true};
use serde_json::{Value, json};

const API: &str = "https://127.0.0.1:6443";
const PREFIX: &str = "flannel.alpha.coreos.com";

/// Killed with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control plane and one node, in one network namespace.
struct World {
    netd: Option<Process>,
    server: Option<Process>,
    _etcd: Process,
    place: Place,
    _wire: Place,
    server_program: PathBuf,
    netd_program: PathBuf,
    dir: tempfile::TempDir,
}

/// `None` (after saying why) where the lane cannot run.
fn world() -> Option<World> {
    let needed = || -> Result<_, Missing> {
        tool("etcd")?;
        tool("openssl")?;
        tool("curl")?;
        Ok((stock("kube-apiserver")?, program("corten-netd")?))
    };
    let (server_program, netd_program) = match needed() {
        Ok(programs) => programs,
        Err(missing) => {
            println!("SKIP: {missing}");
            return None;
        }
    };
    let dir = tempfile::Builder::new().prefix("corten-netd-kube-").tempdir().expect("temporary directory");
    let (place, wire) = (Place::network().expect("namespace"), Place::network().expect("namespace"));
    let uplink = format!("link add eth0 type veth peer name wire netns {}", wire.network_path());
    place
        .ip(&["link set lo up", &uplink, "addr add 192.0.2.1/24 dev eth0", "link set eth0 up"])
        .expect("uplink");
    wire.ip(&["link set wire up"]).expect("uplink");
    let etcd = start(
        &place,
        &dir.path().join("etcd.log"),
        "etcd",
        &[
            &format!("--data-dir={}", dir.path().join("etcd").display()),
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--unsafe-no-fsync",
        ],
        &[],
    );
    let key = dir.path().join("sa.key");
    place.run("openssl", &["genrsa", "-out", &key.display().to_string(), "2048"]).expect("a key");
    std::fs::write(dir.path().join("tokens.csv"), "admin,admin,1,system:masters\nflannel,flannel,2\n")
        .expect("tokens");
    let mut world = World {
        netd: None,
        server: None,
        _etcd: etcd,
        place,
        _wire: wire,
        server_program,
        netd_program,
        dir,
    };
    world.start_server();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": API,
            "certificate-authority": world.path("cert/apiserver.crt") } }],
        "users": [{ "name": "u", "user": { "token": "flannel" } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    });
    std::fs::write(world.path("kubeconfig"), kubeconfig.to_string()).expect("kubeconfig");
    let conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
    std::fs::write(world.path("net-conf.json"), conf).expect("net-conf");
    Some(world)
}

fn start(place: &Place, log: &Path, program: &str, args: &[&str], vars: &[(&str, &str)]) -> Process {
    let log = std::fs::File::options().create(true).append(true).open(log).expect("log");
    let mut command: Command = place.command(program).expect("a command");
    command.args(args).envs(vars.iter().copied()).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("log")).stderr(log);
    Process(command.spawn().unwrap_or_else(|error| panic!("start {program}: {error}")))
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start_server(&mut self) {
        let file = |name: &str| self.path(name).display().to_string();
        let server = start(
            &self.place,
            &self.path("server.log"),
            &self.server_program.display().to_string(),
            &[
                "--etcd-servers=http://127.0.0.1:2379",
                "--secure-port=6443",
                "--bind-address=127.0.0.1",
                "--advertise-address=192.0.2.1",
                &format!("--cert-dir={}", file("cert")),
                &format!("--token-auth-file={}", file("tokens.csv")),
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
                &format!("--service-account-key-file={}", file("sa.key")),
                &format!("--service-account-signing-key-file={}", file("sa.key")),
                "--service-account-issuer=https://kubernetes.default.svc",
                "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
            ],
            &[],
        );
        self.server = Some(server);
        let ready = || {
            let (text, ok) = self.curl("GET", "/readyz", None);
            if ok && text == "ok" { Ok(()) } else { Err(text) }
        };
        until("kube-apiserver", ready);
    }

    fn curl(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> (String, bool) {
        let url = format!("{API}{path}");
        let mut args =
            vec!["-sS", "--cacert", "CA", "-H", "Authorization: Bearer admin", "-X", method, url.as_str()];
        let ca = self.path("cert/apiserver.crt").display().to_string();
        args[2] = &ca;
        let kind = body.map(|(kind, _)| format!("Content-Type: application/{kind}"));
        if let Some(kind) = &kind {
            args.extend(["-H", kind, "--data-binary", "@-"]);
        }
        let input = body.map(|(_, value)| value.to_string()).unwrap_or_default();
        self.place.try_feed("curl", &args, &[], &input).unwrap_or_else(|error| (error.to_string(), false))
    }

    /// Panics when the server refuses.
    fn api(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Value {
        let (text, ok) = self.curl(method, path, body);
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {text}"));
        assert!(ok && value["status"] != "Failure", "{method} {path}: {value}");
        value
    }

    fn create(&self, path: &str, object: Value) {
        self.api("POST", path, Some(("json", &object)));
    }

    fn create_node(&self, name: &str, annotations: Value, pod_cidr: Option<&str>) {
        let mut node = json!({ "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "annotations": annotations }, "spec": {} });
        if let Some(cidr) = pod_cidr {
            node["spec"] = json!({ "podCIDR": cidr, "podCIDRs": [cidr] });
        }
        self.create("/api/v1/nodes", node);
    }

    /// Another node, where flanneld runs.
    fn create_peer(&self, name: &str, last: u8) {
        let annotations = json!({
            format!("{PREFIX}/backend-data"): format!("{{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:0{last}\"}}"),
            format!("{PREFIX}/backend-type"): "vxlan",
            format!("{PREFIX}/kube-subnet-manager"): "true",
            format!("{PREFIX}/public-ip"): format!("192.0.2.{last}"),
        });
        self.create_node(name, annotations, Some(&format!("10.244.{last}.0/24")));
    }

    fn node(&self, name: &str) -> Value {
        self.api("GET", &format!("/api/v1/nodes/{name}"), None)
    }

    fn delete_node(&self, name: &str) {
        self.api("DELETE", &format!("/api/v1/nodes/{name}"), None);
    }

    /// The ClusterRole of flannel's manifest, for the user of the kubeconfig.
    fn grant(&self) {
        const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
        let rule = |resource: &str, verbs: &[&str]| json!({ "apiGroups": [""], "resources": [resource], "verbs": verbs });
        self.create(
            &format!("{RBAC}/clusterroles"),
            json!({ "metadata": { "name": "flannel" }, "rules": [
                rule("pods", &["get"]), rule("nodes", &["get", "list", "watch"]), rule("nodes/status", &["patch"]) ] }),
        );
        self.create(
            &format!("{RBAC}/clusterrolebindings"),
            json!({ "metadata": { "name": "flannel" },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel" },
                "subjects": [{ "kind": "User", "name": "flannel", "apiGroup": "rbac.authorization.k8s.io" }] }),
        );
    }

    fn start_netd(&mut self, vars: &[(&str, &str)]) {
        let file = |name: &str| self.path(name).display().to_string();
        let netd = start(
            &self.place,
            &self.path("netd.log"),
            &self.netd_program.display().to_string(),
            &[
                "--kube-subnet-mgr",
                "--ip-masq",
                "--fastpath=off",
                "--iface=eth0",
                &format!("--kubeconfig-file={}", file("kubeconfig")),
                &format!("--net-config-path={}", file("net-conf.json")),
                &format!("--subnet-file={}", file("subnet.env")),
                &format!("--state-dir={}", file("state")),
                &format!("--bpf-dir={}", file("bpf")),
            ],
            vars,
        );
        self.netd = Some(netd);
    }

    fn status(&self) -> Result<Value, String> {
        let output = Command::new(&self.netd_program)
            .args(["status", "-o", "json", "--state-dir"])
            .arg(self.path("state"))
            .output()
            .map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout)
            .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn until_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            let status = self.status()?;
            if wanted(&status) { Ok(status) } else { Err(status.to_string()) }
        })
    }

    fn ready(&self) -> Value {
        self.until_status("ready", |status| status["ready"] == true)
    }

    fn has_route(&self, cidr: &str) -> bool {
        self.place.run("ip", &["route"]).expect("routes").contains(&format!("{cidr} via "))
    }
}

fn annotation<'a>(node: &'a Value, name: &str) -> &'a str {
    node["metadata"]["annotations"][format!("{PREFIX}/{name}")].as_str().unwrap_or_default()
}

fn network_is_up(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions
        .iter()
        .any(|c| c["type"] == "NetworkUnavailable" && c["status"] == "False" && c["reason"] == "FlannelIsUp")
}

#[test]
fn a_node_tells_what_flannel_tells_and_tells_it_again_when_it_is_lost() {
    let Some(mut world) = world() else { return };
    world.grant();
    world.create_node("a", json!({}), Some("10.244.1.0/24"));
    world.start_netd(&[("NODE_NAME", "a")]);
    world.ready();
    let node =
        until("the condition", || Some(world.node("a")).filter(network_is_up).ok_or("not there".into()));
    let data: Value = serde_json::from_str(annotation(&node, "backend-data")).expect("JSON");
    let link = world.place.run("ip", &["link", "show", "flannel.1"]).expect("flannel.1");
    assert!(link.contains(data["VtepMAC"].as_str().expect("a MAC")), "{data} {link}");
    assert_eq!(data["VNI"], 1);
    assert_eq!(annotation(&node, "backend-type"), "vxlan");
    assert_eq!(annotation(&node, "public-ip"), "192.0.2.1");
    assert_eq!(annotation(&node, "kube-subnet-manager"), "true");
    let env = std::fs::read_to_string(world.path("subnet.env")).expect("subnet.env");
    assert!(env.contains("FLANNEL_SUBNET=10.244.1.1/24"), "{env}");

    let lost = json!({ "metadata": { "annotations": { format!("{PREFIX}/public-ip"): null } } });
    world.api("PATCH", "/api/v1/nodes/a", Some(("merge-patch+json", &lost)));
    until_true("the annotation again", || annotation(&world.node("a"), "public-ip") == "192.0.2.1");
    let other =
        json!({ "metadata": { "annotations": { format!("{PREFIX}/public-ip-overwrite"): "203.0.113.9" } } });
    world.api("PATCH", "/api/v1/nodes/a", Some(("merge-patch+json", &other)));
    until_true("the address that counts more", || annotation(&world.node("a"), "public-ip") == "203.0.113.9");

    let told = data.to_string();
    world.delete_node("a");
    world.until_status("that this node is missing", |status| {
        status["nodes"]["fault"].as_str().is_some_and(|fault| fault.contains("node a is not in Kubernetes"))
    });
    assert!(world.place.run("ip", &["link", "show", "flannel.1"]).is_ok(), "the network stays");
    world.create_node("a", json!({}), Some("10.244.1.0/24"));
    until_true("condition and annotations on the new object", || {
        let node = world.node("a");
        network_is_up(&node) && annotation(&node, "backend-data") == told
    });

    // A daemon that starts again keeps the MAC that the others know, also when its device is gone.
    world.netd = None;
    world.place.ip(&["link del flannel.1"]).expect("delete");
    world.start_netd(&[("NODE_NAME", "a")]);
    world.ready();
    assert_eq!(annotation(&world.node("a"), "backend-data"), told);
}

#[test]
fn peers_come_and_go_with_their_nodes_and_a_restart_of_the_server_loses_none() {
    let Some(mut world) = world() else { return };
    world.grant();
    world.create_node("a", json!({}), Some("10.244.1.0/24"));
    world.create_peer("b", 2);
    world.create_node("bare", json!({}), Some("10.244.9.0/24"));
    world.start_netd(&[("NODE_NAME", "a")]);
    world.ready();
    assert!(world.has_route("10.244.2.0/24"));
    assert!(!world.has_route("10.244.9.0/24"), "flannel does not run there");
    world.create_peer("c", 3);
    until_true("a route to c", || world.has_route("10.244.3.0/24"));
    world.delete_node("b");
    until_true("no route to b", || !world.has_route("10.244.2.0/24"));

    world.server = None;
    let status = world.until_status("that the server is gone", |status| status["nodes"]["fault"].is_string());
    assert!(status["nodes"]["fault"].as_str().unwrap().contains("the last list stays"), "{status}");
    assert!(world.has_route("10.244.3.0/24"), "what was known stays");
    world.start_server();
    world.create_peer("d", 4);
    world.delete_node("c");
    until_true("a route to d and none to c", || {
        world.has_route("10.244.4.0/24") && !world.has_route("10.244.3.0/24")
    });
    world.until_status("no fault", |status| status["nodes"]["fault"].is_null());
}

#[test]
fn a_missing_permission_is_named_and_waited_for() {
    let Some(mut world) = world() else { return };
    world.create_node("a", json!({}), Some("10.244.1.0/24"));
    world.start_netd(&[("NODE_NAME", "a")]);
    let status = world.until_status("that it waits", |status| status["waiting"].is_string());
    let waiting = status["waiting"].as_str().unwrap_or_default();
    assert!(waiting.contains("get node a"), "{waiting}");
    assert!(waiting.contains("nodes get list watch, nodes/status patch"), "{waiting}");
    world.grant();
    world.ready();
}

#[test]
fn a_pod_finds_its_node_and_waits_for_the_pod_cidr() {
    let Some(mut world) = world() else { return };
    world.grant();
    world.create_node("a", json!({}), None);
    world.create("/api/v1/namespaces", json!({ "metadata": { "name": "kube-flannel" } }));
    world.create(
        "/api/v1/namespaces/kube-flannel/pods",
        json!({ "metadata": { "name": "netd-x" },
            "spec": { "nodeName": "a", "containers": [{ "name": "netd", "image": "netd" }] } }),
    );
    world.start_netd(&[("POD_NAME", "netd-x"), ("POD_NAMESPACE", "kube-flannel")]);
    world.until_status("that it waits", |status| {
        status["waiting"]
            .as_str()
            .is_some_and(|waiting| waiting.contains("node a has no pod CIDR of IPv4 yet"))
    });
    assert!(!world.path("subnet.env").exists());
    let cidr = json!({ "spec": { "podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"] } });
    world.api("PATCH", "/api/v1/nodes/a", Some(("strategic-merge-patch+json", &cidr)));
    let status = world.ready();
    assert_eq!(status["nodes"]["local"]["pod_cidrs"][0], "10.244.7.0/24");
}
