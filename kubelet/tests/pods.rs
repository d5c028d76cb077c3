//! Pods on a real runtime, by the real binary.

mod harness;

use std::time::{Duration, Instant};

use harness::{BUSYBOX, container, node, ready, until};
use rustix::process::Signal;
use serde_json::{Value, json};

fn sh(name: &str, script: &str) -> Value {
    // A shell as PID 1 gets no default signal handling: TERM must be taken.
    let script = format!("trap 'exit 0' TERM; {script}");
    json!({"name": name, "image": BUSYBOX, "command": ["sh", "-c", script]})
}

const FOREVER: &str = "while :; do sleep 0.05; done";

#[test]
fn a_pod_becomes_ready_and_leaves_no_trace() {
    let Some(node) = node() else { return };
    let mut web = sh("web", &format!("echo up; {FOREVER}"));
    web["resources"] = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
    let begun = Instant::now();
    node.write("hello", &json!({"terminationGracePeriodSeconds": 5, "containers": [web]}));
    let pod = node.wait_ready("hello");
    println!("manifest to Ready: {:?}", begun.elapsed());
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    assert!(pod["status"]["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.99.0.")), "{pod}");
    assert_eq!(container(&pod, "web")["restartCount"], 0);
    assert_eq!(until("log", || Some(node.log(&pod, "web", 0)).filter(|l| !l.is_empty())), "up\n");
    let uid = pod["metadata"]["uid"].as_str().expect("uid").to_owned();
    let cgroup = std::path::Path::new("/sys/fs/cgroup/memory").join(node.cgroup_root());
    let of_pod = cgroup.join(format!("kubepods/pod{uid}"));
    if cgroup.exists() {
        let limit = std::fs::read_to_string(of_pod.join("memory.limit_in_bytes")).expect("limit");
        assert_eq!(limit.trim(), (64 << 20).to_string());
    }
    assert!(node.path("kubelet/pods").join(&uid).join("etc-hosts").exists());
    node.remove("hello");
    node.wait_gone("hello");
    assert!(!cgroup.exists(), "cgroups are gone");
    for left in ["kubelet/pods", "logs"] {
        assert_eq!(std::fs::read_dir(node.path(left)).map_or(0, Iterator::count), 0, "{left} is empty");
    }
}

#[test]
fn init_containers_run_in_order_and_share_an_empty_dir() {
    let Some(node) = node() else { return };
    let mount = |mut c: Value| {
        c["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        c
    };
    node.write("order", &json!({
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        "initContainers": [mount(sh("one", "echo one >> /v/f")), mount(sh("two", "echo two >> /v/f"))],
        "containers": [mount(sh("a", &format!("cat /v/f; {FOREVER}"))), mount(sh("b", &format!("echo three >> /v/f; {FOREVER}")))]}));
    let pod = node.wait_ready("order");
    assert_eq!(
        until("log", || Some(node.log(&pod, "a", 0)).filter(|l| l.lines().count() >= 2)).lines().next(),
        Some("one")
    );
    for name in ["one", "two"] {
        assert_eq!(container(&pod, name)["state"]["terminated"]["reason"], "Completed");
    }
    let uid = pod["metadata"]["uid"].as_str().expect("uid");
    let volume = node.path("kubelet/pods").join(uid);
    node.remove("order");
    node.wait_gone("order");
    assert!(!volume.exists(), "the volume is gone with its pod");
}

#[test]
fn an_exited_container_restarts_with_back_off() {
    let Some(node) = node() else { return };
    let mut crash = sh("crash", "echo last words > /dev/termination-log; exit 3");
    crash["env"] = json!([{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    node.write("crash", &json!({"containers": [crash, sh("calm", FOREVER)]}));
    let pod = node.wait("crash", "in back-off", |p| {
        container(p, "crash")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    assert_eq!(container(&pod, "crash")["restartCount"], 1, "the first restart is immediate");
    let last = &container(&pod, "crash")["lastState"]["terminated"];
    assert_eq!((last["exitCode"].as_i64(), last["message"].as_str()), (Some(3), Some("last words\n")));
    assert_eq!(container(&pod, "calm")["restartCount"], 0);
    let again = Instant::now();
    node.wait("crash", "restarted", |p| container(p, "crash")["restartCount"] == 2);
    assert!(
        again.elapsed() > Duration::from_secs(7),
        "after ten seconds, not at once: {:?}",
        again.elapsed()
    );
}

#[test]
fn restart_policies_decide_how_a_pod_ends() {
    let Some(node) = node() else { return };
    node.write("done", &json!({"restartPolicy": "Never", "containers": [sh("a", "exit 0")]}));
    node.write(
        "failed",
        &json!({"restartPolicy": "Never", "containers": [sh("a", "exit 2"), sh("b", "exit 0")]}),
    );
    node.write(
        "retried",
        &json!({"restartPolicy": "OnFailure", "volumes": [{"name": "v"}], "containers": [{
        "name": "a", "image": BUSYBOX, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "command": ["sh", "-c", "test -e /v/second && exit 0; touch /v/second; exit 1"]}]}),
    );
    node.wait("done", "Succeeded", |p| p["status"]["phase"] == "Succeeded");
    node.wait("failed", "Failed", |p| p["status"]["phase"] == "Failed");
    let pod = node.wait("retried", "Succeeded", |p| p["status"]["phase"] == "Succeeded");
    assert_eq!(container(&pod, "a")["restartCount"], 1);
}

#[test]
fn probes_gate_readiness_and_restart() {
    let Some(node) = node() else { return };
    let mut web = sh(
        "web",
        "touch /tmp/ok; echo hi > /tmp/index.html; httpd -p 8080 -h /tmp; while :; do sleep 0.05; done",
    );
    web["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    web["startupProbe"] = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 30});
    web["readinessProbe"] = json!({"httpGet": {"path": "/index.html", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1});
    web["livenessProbe"] = json!({"exec": {"command": ["test", "-e", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 1,
        "terminationGracePeriodSeconds": 1});
    node.write("probed", &json!({"containers": [web]}));
    let pod = node.wait_ready("probed");
    assert_eq!(container(&pod, "web")["started"], true);
    exec(&node, &pod, "web", "rm /tmp/index.html");
    node.wait("probed", "not ready", |p| !ready(p));
    assert_eq!(
        container(&node.pod("probed").expect("pod"), "web")["restartCount"],
        0,
        "readiness restarts nothing"
    );
    exec(&node, &pod, "web", "rm /tmp/ok");
    let pod =
        node.wait("probed", "restarted and ready", |p| container(p, "web")["restartCount"] == 1 && ready(p));
    assert_eq!(pod["status"]["phase"], "Running");
    let events = node.events();
    let has = |start: &str| events.iter().any(|e| e.starts_with(start));
    assert!(has("Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 404"), "{events:#?}");
    assert!(has("Killing Container web failed liveness probe, will be restarted"), "{events:#?}");
}

/// Runs a command in a container by the runtime's own client.
fn exec(node: &harness::Node, pod: &Value, name: &str, script: &str) {
    let id = container(pod, name)["containerID"]
        .as_str()
        .and_then(|id| id.strip_prefix("cri://"))
        .expect("id")
        .to_owned();
    let mut argv = node.client();
    argv.extend(["tasks", "exec", "--exec-id", "test", &id, "sh", "-c", script].map(str::to_owned));
    let done = node.run(&argv);
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn an_edited_manifest_replaces_its_pod() {
    let Some(node) = node() else { return };
    let spec = |word: &str| json!({"terminationGracePeriodSeconds": 3, "containers": [sh("a", &format!("echo {word}; {FOREVER}"))]});
    node.write("edit", &spec("old"));
    let old = node.wait_ready("edit");
    node.write("edit", &spec("new"));
    let new = node.wait("edit", "replaced", |p| ready(p) && p["metadata"]["uid"] != old["metadata"]["uid"]);
    assert_eq!(until("log", || Some(node.log(&new, "a", 0)).filter(|l| !l.is_empty())), "new\n");
    assert_eq!(node.pods().len(), 1, "the old pod is gone");
}

#[test]
fn a_removed_manifest_stops_gracefully_with_its_hooks() {
    let Some(node) = node() else { return };
    let host = node.path("shared");
    std::fs::create_dir(&host).expect("dir");
    let mut c = json!({"name": "a", "image": BUSYBOX, "command": ["sh", "-c",
        "trap 'echo term >> /h/log; exit 0' TERM; while :; do sleep 0.05; done"]});
    c["volumeMounts"] = json!([{"name": "h", "mountPath": "/h"}]);
    c["lifecycle"] = json!({"postStart": {"exec": {"command": ["sh", "-c", "echo start >> /h/log"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stop >> /h/log"]}}});
    node.write(
        "hooks",
        &json!({"terminationGracePeriodSeconds": 20, "containers": [c],
        "volumes": [{"name": "h", "hostPath": {"path": host, "type": "Directory"}}]}),
    );
    node.wait_ready("hooks");
    let begun = Instant::now();
    node.remove("hooks");
    node.wait_gone("hooks");
    assert!(begun.elapsed() < Duration::from_secs(15), "TERM was enough: {:?}", begun.elapsed());
    assert_eq!(std::fs::read_to_string(host.join("log")).expect("log"), "start\nstop\nterm\n");
}

#[test]
fn a_killed_kubelet_finds_its_pods_again() {
    let Some(mut node) = node() else { return };
    node.write("stay", &json!({"terminationGracePeriodSeconds": 2, "containers": [sh("a", FOREVER)]}));
    node.write("go", &json!({"terminationGracePeriodSeconds": 2, "containers": [sh("a", FOREVER)]}));
    let before = node.wait_ready("stay");
    node.wait_ready("go");
    node.end_kubelet(Signal::KILL);
    node.remove("go");
    node.start_kubelet();
    let after = node.wait_ready("stay");
    for key in ["containerID", "restartCount", "state"] {
        assert_eq!(container(&before, "a")[key], container(&after, "a")[key], "{key}");
    }
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    node.wait_gone("go");
    assert_eq!(
        std::fs::read_dir(node.path("kubelet/pods")).expect("pods").count(),
        1,
        "the orphan left nothing"
    );
    node.end_kubelet(Signal::TERM);
    node.start_kubelet();
    let third = node.wait_ready("stay");
    assert_eq!(
        container(&before, "a")["containerID"],
        container(&third, "a")["containerID"],
        "TERM leaves pods running"
    );
}

#[test]
fn bad_manifests_are_named_and_disturb_nobody() {
    let Some(node) = node() else { return };
    node.write("good", &json!({"containers": [sh("a", FOREVER)]}));
    node.write("affine", &json!({"affinity": {"podAffinity": {}}, "containers": [sh("a", FOREVER)]}));
    node.write("typo", &json!({"contaners": []}));
    node.write_text("half.yaml", "apiVersion: v1\nkind: Po");
    node.write_text("two.yaml", "apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Pod\n");
    node.wait_ready("good");
    for (file, part) in [
        ("affine.json", "spec.affinity: not supported in standalone mode"),
        ("typo.json", "spec.contaners: unknown field"),
        ("half.yaml", "is not a v1 Pod"),
        ("two.yaml", "2 documents"),
    ] {
        until(file, || {
            let named = |m: &Value| {
                m["file"].as_str().is_some_and(|f| f.ends_with(file))
                    && m["error"].as_str().is_some_and(|e| e.contains(part))
            };
            node.manifests().iter().any(named).then_some(())
        });
    }
    assert_eq!(node.pods().len(), 1);
    assert!(node.events().iter().any(|e| e.starts_with("InvalidManifest ") && e.contains("spec.affinity")));
    // A bad edit of a running pod keeps it.
    let before = node.pod("good").expect("pod");
    node.write_text("good.json", "{");
    until("named", || {
        node.manifests().iter().any(|m| m["pod"] == "default/good-n1" && m["error"].is_string()).then_some(())
    });
    assert_eq!(node.wait_ready("good")["metadata"]["uid"], before["metadata"]["uid"]);
}

#[test]
fn hosts_names_and_users_are_as_the_manifest_says() {
    let Some(node) = node() else { return };
    let mut c = sh(
        "a",
        &format!("cat /etc/hosts; hostname; id -u; id -G; echo $WHERE; echo $CPU; ls /v/sub; {FOREVER}"),
    );
    c["env"] = json!([{"name": "WHERE", "value": "$(IP)!"}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}]);
    c["resources"] = json!({"limits": {"cpu": "250m"}});
    c["volumeMounts"] = json!([{"name": "v", "mountPath": "/v/sub", "subPath": "deep/er"}]);
    let mut fill = sh("fill", "touch /all/deep/er/file");
    fill["volumeMounts"] =
        json!([{"name": "v", "mountPath": "/all"}, {"name": "v", "mountPath": "/x", "subPath": "deep/er"}]);
    node.write("named", &json!({"hostname": "box", "subdomain": "sub", "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["db", "db.lan"]}],
        "securityContext": {"runAsUser": 1234, "runAsGroup": 77, "fsGroup": 555}, "volumes": [{"name": "v"}],
        "initContainers": [fill], "containers": [c]}));
    let pod = node.wait_ready("named");
    let ip = pod["status"]["podIP"].as_str().expect("ip");
    let log = until("log", || Some(node.log(&pod, "a", 0)).filter(|l| l.ends_with("file\n")));
    assert!(log.contains(&format!("{ip}\tbox.sub.default.svc.cluster.local\tbox\n")), "{log}");
    assert!(log.contains("# Entries added by HostAliases.\n192.0.2.7\tdb\tdb.lan\n"), "{log}");
    assert!(log.ends_with("box\n1234\n77 555\n$(IP)!\n250\nfile\n"), "{log}");
}

#[test]
fn an_absent_image_is_never_pulled_or_backs_off() {
    let Some(node) = node() else { return };
    let absent = |policy: &str| json!({"containers": [{"name": "a", "image": "localhost:1/none:1", "imagePullPolicy": policy}]});
    node.write("never", &absent("Never"));
    node.write("pull", &absent("IfNotPresent"));
    let reason =
        |p: &Value| container(p, "a")["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned();
    node.wait("never", "ErrImageNeverPull", |p| reason(p) == "ErrImageNeverPull");
    let pod = node.wait("pull", "in pull back-off", |p| reason(p) == "ImagePullBackOff");
    assert_eq!(pod["status"]["phase"], "Pending");
    let message = container(&pod, "a")["state"]["waiting"]["message"].as_str().expect("message").to_owned();
    assert!(message.contains("localhost:1/none:1") && message.contains("ErrImagePull"), "{message}");
}

#[test]
fn containers_of_a_pod_share_what_it_says() {
    let Some(node) = node() else { return };
    let server =
        sh("server", "echo shared > /tmp/index.html; httpd -p 8080 -h /tmp; while :; do sleep 0.05; done");
    let client = sh(
        "client",
        &format!(
            "until printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc 127.0.0.1 8080 | cat; do sleep 0.1; done; ls -d /proc/[0-9]* | cat; {FOREVER}"
        ),
    );
    node.write("shared", &json!({"shareProcessNamespace": true, "containers": [server, client]}));
    let pod = node.wait_ready("shared");
    let log = until("log", || Some(node.log(&pod, "client", 0)).filter(|l| l.contains("/proc/1\n")));
    assert!(log.contains("shared\n"), "one network: {log}");
    assert!(log.lines().filter(|l| l.starts_with("/proc/")).count() >= 4, "one process table: {log}");
}

#[test]
fn a_second_kubelet_on_the_same_state_is_refused() {
    let Some(node) = node() else { return };
    let path = |name: &str| node.path(name).display().to_string();
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_corten-kubelet"))
        .args([
            "--manifests",
            &path("m2"),
            "--runtime-endpoint",
            "unix:///nowhere",
            "--root-dir",
            &path("r2"),
        ])
        .args(["--log-dir", &path("l2"), "--state", &path("kubelet-state")])
        .output()
        .expect("run");
    assert!(!done.status.success());
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(error.contains("another kubelet uses the state directory"), "{error}");
}
