//! Create, start, end, delete: results, records, refusals.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use corten_monitor::protocol::{Answer, CreateContainer, Event, FailureKind, Overlay, Request};
use corten_monitor::record::{self, ExitRecord};

use crate::pod::{Pod, Wanted, eventually, lives, run, shell};

fn delete(pod: &mut Pod, id: &str) {
    pod.client.call(Request::DeleteContainer { id: id.into() }).unwrap();
}

#[test]
fn exit_codes_and_signals_are_told_as_they_are() {
    let mut pod = Pod::start();
    let exit = pod.run_to_end("coded", &shell("exit 42"));
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (42, None, false));
    pod.run("killed", &run(&["/bin/sleep", "60"])).unwrap();
    pod.client.call(Request::Signal { id: "killed".into(), signal: 9, all: false }).unwrap();
    let exit = pod.client.exit_of("killed");
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    let again = pod.client.call(Request::Signal { id: "killed".into(), signal: 9, all: false }).unwrap_err();
    assert_eq!(again.kind, FailureKind::NotRunning);
}

#[test]
fn a_handler_of_its_own_decides_what_a_signal_does() {
    let mut pod = Pod::start();
    pod.run("c", &shell("trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.01; done"))
        .unwrap();
    let path = pod.log_path("c");
    eventually("the trap is set", || fs::read_to_string(&path).unwrap().contains("ready"));
    pod.client.call(Request::Signal { id: "c".into(), signal: 15, all: false }).unwrap();
    assert_eq!(pod.client.exit_of("c").code, 7);
    assert_eq!(pod.log("c"), "stdout F ready\nstdout F caught\n");
}

#[test]
fn the_exit_record_is_on_disk_before_anybody_is_told() {
    let mut pod = Pod::start();
    let exit = pod.run_to_end("c", &shell("exit 5"));
    let record: ExitRecord = record::read(&pod.layout().exit_record("c")).unwrap();
    assert_eq!((record.id.as_str(), record.exit), ("c", exit));
    let state = pod.client.list();
    assert_eq!(state.containers[0].exit, Some(exit));
}

#[test]
fn states_refuse_what_they_do_not_allow() {
    let mut pod = Pod::start();
    pod.create("c", &run(&["/bin/sleep", "60"])).unwrap();
    let exec = pod.exec("c", &["/bin/true"]).unwrap_err();
    assert_eq!(exec.kind, FailureKind::NotRunning, "{exec}");
    assert_eq!(pod.create("c", &run(&["/bin/true"])).unwrap_err().kind, FailureKind::AlreadyExists);
    pod.client.call(Request::StartContainer { id: "c".into() }).unwrap();
    let twice = pod.client.call(Request::StartContainer { id: "c".into() }).unwrap_err();
    assert_eq!(twice.kind, FailureKind::WrongState);
    let unknown = pod.client.call(Request::StartContainer { id: "x".into() }).unwrap_err();
    assert_eq!(unknown.kind, FailureKind::NotFound);
    let busy = pod.client.call(Request::Shutdown).unwrap_err();
    assert!(busy.kind == FailureKind::Busy && busy.message.contains('c'), "{busy}");
}

#[test]
fn a_deleted_container_leaves_nothing_and_its_end_is_told_first() {
    let mut pod = Pod::start();
    let pid = pod.run("c", &shell("sleep 60 & sleep 60")).unwrap();
    assert!(!pod.cgroups().is_empty());
    delete(&mut pod, "c");
    assert!(
        matches!(pod.client.event(), Event::ContainerExited { id, exit } if id == "c" && exit.code == 137)
    );
    assert!(!lives(pid));
    assert!(pod.cgroups().is_empty());
    let layout = pod.layout();
    assert!(!layout.container_record("c").exists() && !layout.exit_record("c").exists());
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", pod.monitor.id())).unwrap();
    assert!(!mounts.contains(pod.bundle("c").to_str().unwrap()), "{mounts}");
    delete(&mut pod, "c");
    fs::remove_dir_all(pod.dir.path().join("layers")).unwrap();
    pod.run_to_end("c", &run(&["/bin/true"]));
}

#[test]
fn mounts_of_a_pod_stay_out_of_the_hosts_table() {
    let mut pod = Pod::start();
    pod.run("c", &run(&["/bin/sleep", "60"])).unwrap();
    let table = |pid: &str| fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let rootfs = pod.bundle("c").join("rootfs");
    assert!(table(&pod.monitor.id().to_string()).contains(rootfs.to_str().unwrap()));
    assert!(!table("self").contains(rootfs.to_str().unwrap()));
}

#[test]
fn a_missing_program_is_said_so_and_nothing_is_left() {
    let mut pod = Pod::start();
    let failure = pod.run("c", &run(&["/bin/nope"])).unwrap_err();
    assert_eq!(failure.kind, FailureKind::CommandNotFound, "{failure}");
    assert!(failure.message.contains("/bin/nope"), "{failure}");
    let failure = pod.run("d", &run(&["/etc"])).unwrap_err();
    assert_eq!(failure.kind, FailureKind::CommandNotExecutable, "{failure}");
    delete(&mut pod, "c");
    delete(&mut pod, "d");
    assert!(pod.cgroups().is_empty());
    assert!(pod.client.list().containers.is_empty());
}

#[test]
fn a_rootfs_that_cannot_be_mounted_names_the_cause_and_is_undone() {
    let mut pod = Pod::start();
    let mut request = pod.request("c", &run(&["/bin/true"]));
    let lower = vec![pod.dir.path().join("no-such-layer")];
    request.rootfs = request.rootfs.map(|overlay| Overlay { lower, ..overlay });
    let failure = pod.client.call(Request::CreateContainer(request)).unwrap_err();
    assert!(failure.message.contains("mount overlay") && failure.message.contains("ENOENT"), "{failure}");
    assert!(!pod.layout().container_record("c").exists());
    pod.run_to_end("c", &run(&["/bin/true"]));
}

#[test]
fn ids_that_would_leave_the_directory_are_refused() {
    let mut pod = Pod::start();
    let request = pod.request("c", &run(&["/bin/true"]));
    for id in ["../x", "", "a/b", "--root"] {
        let request = CreateContainer { id: id.into(), ..request.clone() };
        let failure = pod.client.call(Request::CreateContainer(request)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid, "{id:?}");
        pod.client.call(Request::DeleteContainer { id: id.into() }).unwrap();
    }
}

#[test]
fn a_container_that_exceeds_its_memory_is_reported_oom_killed() {
    let mut pod = Pod::start();
    let limit = Some(16 << 20);
    let script = "dd if=/dev/zero of=/dev/null bs=200M count=1";
    let exit = pod.run_to_end(
        "init",
        &Wanted { memory_limit_bytes: limit, ..run(&["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M"]) },
    );
    assert!(exit.oom_killed && exit.signal == Some(9), "{exit:?}");
    pod.run("child", &Wanted { memory_limit_bytes: limit, ..shell(&format!("{script}; sleep 60")) }).unwrap();
    loop {
        if let Event::OomKilled { id } = pod.client.event()
            && id == "child"
        {
            break;
        }
    }
    assert!(pod.client.list().containers.iter().any(|c| c.id == "child" && c.exit.is_none()), "it lives on");
}

#[test]
fn pause_reaps_orphans_of_a_shared_pid_namespace_and_ends_by_sigterm() {
    let mut pod = Pod::start();
    let pause = pod.start_sandbox();
    let shared = Some(format!("/proc/{pause}/ns/pid"));
    let orphan = "(sleep 0.05 & echo gone) ; sleep 60";
    pod.run("c", &Wanted { own_pid_namespace: false, pid_namespace: shared, ..shell(orphan) }).unwrap();
    let children = format!("/proc/{pause}/task/{pause}/children");
    eventually("the orphan came to pause and was reaped", || {
        fs::read_to_string(pod.log_path("c")).is_ok_and(|log| log.contains("gone"))
            && fs::read_to_string(&children).unwrap().trim().is_empty()
    });
    let exe = fs::read_link(format!("/proc/{pause}/exe")).unwrap();
    assert!(exe.ends_with("pause"), "no program of the host behind /proc/PID/exe (CVE-2019-5736): {exe:?}");
    let sandbox = pod.sandbox.clone();
    pod.client.call(Request::Signal { id: sandbox.clone(), signal: 15, all: false }).unwrap();
    assert_eq!(pod.client.exit_of(&sandbox).code, 0);
}

#[test]
fn the_end_of_a_container_in_a_shared_pid_namespace_ends_all_its_processes() {
    let mut pod = Pod::start();
    let pause = pod.start_sandbox();
    let shared = Some(format!("/proc/{pause}/ns/pid"));
    let script = "sleep 300 & echo $! ; exit 0";
    pod.run("c", &Wanted { own_pid_namespace: false, pid_namespace: shared, ..shell(script) }).unwrap();
    assert_eq!(pod.client.exit_of("c").code, 0);
    eventually("its cgroup is empty", || {
        pod.cgroups()
            .iter()
            .filter(|dir| dir.ends_with("c"))
            .all(|dir| fs::read_to_string(dir.join("cgroup.procs")).unwrap().trim().is_empty())
    });
    assert!(lives(pause));
}

#[test]
fn the_directory_and_its_socket_are_the_owners_alone() {
    let mut pod = Pod::start();
    pod.client.list();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let layout = pod.layout();
    assert_eq!(mode(&layout.socket()), 0o600);
    assert_eq!(mode(&layout.monitor_record()), 0o600);
    assert_eq!(mode(&layout.containers()), 0o700);
    assert_eq!(mode(&layout.exits()), 0o700);
}

#[test]
fn shut_down_ends_the_monitor_and_takes_its_record_along() {
    let mut pod = Pod::start();
    pod.start_sandbox();
    let sandbox = pod.sandbox.clone();
    delete(&mut pod, &sandbox);
    assert_eq!(pod.client.call(Request::Shutdown).unwrap(), Answer::Done);
    assert!(pod.client.is_closed() || pod.client.is_closed());
    assert!(pod.monitor.wait().unwrap().success());
    assert!(!pod.layout().monitor_record().exists() && !pod.layout().socket().exists());
}
