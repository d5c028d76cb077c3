//! The monitor outlives daemons, and a pod whose monitor died is swept whole.

use std::fs;
use std::process::Command;

use corten_monitor::process::open_recorded;
use corten_monitor::protocol::{Answer, Failure, FailureKind, Handler, MAX_MESSAGE_BYTES, Request};
use corten_monitor::record::{self, ContainerRecord, ExitRecord, MonitorRecord};
use corten_monitor::socket;

use crate::client::Client;
use crate::pod::{Pod, Wanted, eventually, lives, read_all, run, shell};

#[test]
fn a_daemon_that_dies_changes_nothing_and_the_next_one_learns_everything() {
    let mut pod = Pod::start();
    let pause = pod.start_sandbox();
    let fifo =
        "mkfifo 2>/dev/null; echo before; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo after; sleep 300";
    let pid = pod.run("c", &shell(fifo)).unwrap();
    pod.run("short", &shell("while [ ! -e /tmp/go ]; do sleep 0.01; done; exit 6")).unwrap();
    let (other_end, _unused) = socket::pair().unwrap();
    drop(std::mem::replace(&mut pod.client, Client::over(other_end)));
    for id in ["c", "short"] {
        fs::create_dir_all(pod.dir.path().join("layers").join(id).join("upper/tmp")).unwrap();
        let rootfs =
            format!("/proc/{}/root{}", pod.monitor.id(), pod.bundle(id).join("rootfs/tmp/go").display());
        fs::write(rootfs, "").unwrap();
    }
    let exit_record = pod.layout().exit_record("short");
    eventually("the exit record is written", || exit_record.exists());
    eventually("the log goes on", || pod.log("c").ends_with("stdout F after\n"));
    pod.client = Client::over(socket::connect(&pod.layout().socket()).unwrap());
    let state = pod.client.list();
    assert_eq!(state.sandbox.unwrap().pid, pause);
    let c = state.containers.iter().find(|c| c.id == "c").unwrap();
    assert!(c.pid == pid && c.exit.is_none() && c.started_at_unix_nanos >= Some(c.created_at_unix_nanos));
    let short = state.containers.iter().find(|c| c.id == "short").unwrap();
    assert_eq!(short.exit.unwrap().code, 6);
    pod.client.call(Request::Signal { id: "c".into(), signal: 9, all: true }).unwrap();
    assert_eq!(pod.client.exit_of("c").code, 137);
}

#[test]
fn an_exec_goes_on_without_the_daemon_that_asked() {
    let mut pod = Pod::start();
    pod.run("c", &run(&["/bin/sleep", "300"])).unwrap();
    let (_, out, _err) = pod.exec("c", &["/bin/sh", "-c", "sleep 0.2; echo done"]).unwrap();
    pod.client = Client::over(socket::connect(&pod.layout().socket()).unwrap());
    assert_eq!(read_all(out), "done\n");
}

#[test]
fn a_monitor_that_was_given_nothing_ends_with_its_daemon() {
    let mut pod = Pod::start();
    pod.client.list();
    let (unconnected, _) = socket::pair().unwrap();
    drop(std::mem::replace(&mut pod.client, Client::over(unconnected)));
    assert!(pod.monitor.wait().unwrap().success());
    assert!(!pod.layout().monitor_record().exists());
}

#[test]
fn after_kill_9_of_the_monitor_a_sweep_leaves_no_process_mount_or_cgroup() {
    let mut pod = Pod::start();
    let pause = pod.start_sandbox();
    let shared = Some(format!("/proc/{pause}/ns/pid"));
    let own = pod.run("own", &shell("sleep 300 & sleep 300")).unwrap();
    let joined = Wanted { own_pid_namespace: false, pid_namespace: shared, ..shell("sleep 300 & sleep 300") };
    let shared = pod.run("shared", &joined).unwrap();
    pod.create("waiting", &run(&["/bin/true"])).unwrap();
    pod.run_to_end("ended", &shell("exit 3"));
    let refused = pod.sweep().unwrap_err();
    assert!(refused.contains("lives"), "{refused}");
    pod.kill_monitor();
    pod.sweep().unwrap();
    for pid in [pause, own, shared] {
        eventually("its processes are dead", || !lives(pid));
    }
    assert_eq!(pod.cgroups(), Vec::<std::path::PathBuf>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(pod.dir.path().to_str().unwrap()), "{mounts}");
    let exit = |id: &str| record::read::<ExitRecord>(&pod.layout().exit_record(id)).unwrap().exit;
    assert_eq!((exit("own").code, exit("own").signal), (137, Some(9)));
    assert_eq!(exit("ended").code, 3);
    assert!(record::read_all::<ContainerRecord>(&pod.layout().containers()).unwrap().is_empty());
    assert!(!pod.layout().monitor_record().exists());
    pod.sweep().unwrap();
}

#[test]
fn the_record_names_the_monitor_and_only_while_it_lives() {
    let mut pod = Pod::start();
    pod.start_sandbox();
    let record: MonitorRecord = record::read(&pod.layout().monitor_record()).unwrap();
    assert_eq!((record.pid, record.sandbox.as_str()), (pod.monitor.id() as i32, pod.sandbox.as_str()));
    assert!(open_recorded(&record).unwrap().is_some());
    pod.kill_monitor();
    assert!(open_recorded(&record).unwrap().is_none());
}

#[test]
fn a_client_that_talks_nonsense_is_refused_and_the_others_go_on() {
    let mut pod = Pod::start();
    pod.client.list();
    let mut rude = Client::over(socket::connect(&pod.layout().socket()).unwrap());
    for packet in [b"nonsense".to_vec(), b"{\"id\":1}".to_vec(), vec![b' '; MAX_MESSAGE_BYTES + 1]] {
        rude.send_raw(&packet, &[]);
        let Failure { kind, message } = rude.reply(0).unwrap_err();
        assert_eq!(kind, FailureKind::Invalid, "{message}");
    }
    assert!(pod.client.list().containers.is_empty());
    assert!(rude.list().containers.is_empty());
}

#[test]
fn a_client_that_never_reads_holds_nobody_up() {
    let mut pod = Pod::start();
    pod.client.list();
    let mut deaf = Client::over(socket::connect(&pod.layout().socket()).unwrap());
    deaf.send(Request::List, &[]);
    for _ in 0..6000 {
        let id = pod.client.send(Request::DeleteContainer { id: "x".into() }, &[]);
        assert_eq!(pod.client.reply(id).unwrap().0, Answer::Done);
    }
    pod.run_to_end("c", &run(&["/bin/true"]));
}

#[test]
fn sigterm_does_not_end_a_monitor() {
    let mut pod = Pod::start();
    pod.client.list();
    let sent = Command::new("kill").arg(pod.monitor.id().to_string()).status().unwrap();
    assert!(sent.success());
    assert!(pod.client.list().containers.is_empty());
}

#[test]
fn another_runtime_is_driven_by_runcs_command_line() {
    for (name, program) in [("crun", "/usr/bin/crun"), ("runc", "/usr/sbin/runc")] {
        if !std::path::Path::new(program).exists() {
            println!("SKIP: {program} is not installed");
            continue;
        }
        let root = tempfile::tempdir().unwrap();
        let mut pod = Pod::with(Handler::External { program: program.into(), root: root.path().into() });
        if let Err(error) = pod.create("first", &run(&["/bin/true"]))
            && error.message.contains("hybrid mode not supported")
        {
            println!("SKIP: this {name} refuses a hybrid of cgroup v1 and v2");
            continue;
        }
        let exit = pod.run_to_end("ended", &shell("echo hello; exit 5"));
        assert_eq!((exit.code, pod.log("ended").as_str()), (5, "stdout F hello\n"), "{name}");
        let exit = pod.run_to_end("tty", &Wanted { tty: true, ..shell("echo hello") });
        assert_eq!((exit.code, pod.log("tty").as_str()), (0, "stdout F hello\r\n"), "{name}");
        pod.run("c", &run(&["/bin/sleep", "300"])).unwrap();
        let (exec, out, _err) = pod.exec("c", &["/bin/sh", "-c", "echo in; exit 4"]).unwrap();
        assert_eq!(read_all(out), "in\n");
        assert_eq!(pod.client.exit_of_exec(exec).code, 4, "{name}");
        let missing = pod.run("nope", &run(&["/bin/nope"])).unwrap_err();
        assert_eq!(missing.kind, FailureKind::CommandNotFound, "{name}: {missing}");
        pod.kill_monitor();
        pod.sweep().unwrap();
        assert!(pod.cgroups().is_empty(), "{name}: {:?}", pod.cgroups());
    }
}
