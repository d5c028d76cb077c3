//! Processes started in a running container.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use corten_monitor::protocol::{Answer, Exec, FailureKind, Request, TerminalSize};
use corten_monitor::socket;

use crate::pod::{Pod, process, read_all, run};

fn running() -> Pod {
    let mut pod = Pod::start();
    pod.run("c", &run(&["/bin/sleep", "300"])).unwrap();
    pod
}

#[test]
fn an_exec_has_its_own_streams_and_exit_code() {
    let mut pod = running();
    let (exec, out, err) = pod.exec("c", &["/bin/sh", "-c", "echo out; echo err >&2; exit 9"]).unwrap();
    assert_eq!((read_all(out).as_str(), read_all(err).as_str()), ("out\n", "err\n"));
    let exit = pod.client.exit_of_exec(exec);
    assert_eq!((exit.code, exit.signal), (9, None));
    assert_eq!(pod.log("c"), "", "nothing of it in the container's log");
    assert!(pod.client.list().execs.is_empty());
}

#[test]
fn a_program_that_is_missing_is_told_at_once() {
    let mut pod = running();
    let failure = pod.exec("c", &["/bin/nope"]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::CommandNotFound, "{failure}");
}

#[test]
fn killing_an_exec_kills_what_it_started_and_frees_its_pipes() {
    let mut pod = running();
    let (exec, out, err) = pod.exec("c", &["/bin/sh", "-c", "sleep 300 & echo up; sleep 300"]).unwrap();
    let mut out = std::fs::File::from(out);
    let mut up = [0; 3];
    out.read_exact(&mut up).unwrap();
    let asked = Instant::now();
    pod.client.call(Request::KillExec { exec }).unwrap();
    assert_eq!(pod.client.exit_of_exec(exec).signal, Some(9));
    assert_eq!((read_all(out.into()).as_str(), read_all(err).as_str()), ("", ""));
    assert!(asked.elapsed() < Duration::from_secs(10));
    pod.client.call(Request::KillExec { exec }).unwrap();
    pod.client.call(Request::KillExec { exec: 4711 }).unwrap();
}

#[test]
fn an_exec_with_a_terminal_hands_out_its_master() {
    let mut pod = running();
    let arguments: Vec<String> = ["/bin/sh", "-c", "read x; stty size; echo got $x"].map(String::from).into();
    let spec = socket::attach_json(&process(&arguments, true)).unwrap();
    let exec = Exec {
        container: "c".into(),
        tty: true,
        terminal_size: Some(TerminalSize { columns: 90, rows: 20 }),
        stdin: false,
        stdout: false,
        stderr: false,
    };
    let (answer, mut fds) = pod.client.call_with(Request::Exec(exec), &[spec.as_fd()]).unwrap();
    let Answer::Executed { exec, .. } = answer else { panic!("{answer:?}") };
    let mut master = std::fs::File::from(fds.remove(0));
    std::io::Write::write_all(&mut master, b"word\n").unwrap();
    assert_eq!(pod.client.exit_of_exec(exec).code, 0);
    let (mut text, mut buffer) = (Vec::new(), [0; 256]);
    // EIO: the last one that had the terminal open is gone.
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with("20 90\r\ngot word\r\n"), "{text:?}");
}

#[test]
fn a_hundred_execs_in_flight_are_all_answered() {
    let mut pod = running();
    let calls: Vec<_> = (0..100)
        .map(|n| (n, pod.send_exec("c", &["/bin/sh", "-c", &format!("echo {n}; exit {n}")])))
        .collect();
    for (n, (id, out, _err)) in calls {
        let (answer, _) = pod.client.reply(id).unwrap();
        let Answer::Executed { exec, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(read_all(out), format!("{n}\n"));
        // Ends come in any order: each is looked for from the start.
        pod.client.expect_exec_exit(exec, n);
    }
}

#[test]
fn a_malformed_process_spec_is_refused() {
    let mut pod = running();
    let exec = Exec {
        container: "c".into(),
        tty: false,
        terminal_size: None,
        stdin: false,
        stdout: true,
        stderr: false,
    };
    let without = pod.client.call(Request::Exec(exec.clone())).unwrap_err();
    assert_eq!(without.kind, FailureKind::Invalid);
    let spec = socket::attach_json(&"no process").unwrap();
    let wrong = pod.client.call_with(Request::Exec(exec.clone()), &[spec.as_fd()]).unwrap_err();
    assert_eq!(wrong.kind, FailureKind::Invalid);
    let spec = socket::attach_json(&process(&["/bin/true".into()], false)).unwrap();
    let no_stream = pod.client.call_with(Request::Exec(exec), &[spec.as_fd()]).unwrap_err();
    assert_eq!(no_stream.kind, FailureKind::Invalid);
}
