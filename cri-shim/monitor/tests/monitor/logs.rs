//! The CRI log, byte for byte.

use std::fs;
use std::io::Write;

use corten_monitor::protocol::{Answer, FailureKind, Request, TerminalSize};

use crate::pod::{Pod, Wanted, eventually, run, shell};

#[test]
fn both_streams_are_logged_line_by_line_and_an_unfinished_line_counts() {
    let mut pod = Pod::start();
    pod.run_to_end("c", &shell("echo one; echo two >&2; sleep 0.2; printf 'three\\n\\nfour'"));
    let log = pod.log("c");
    let stdout: Vec<&str> = log.lines().filter(|line| line.starts_with("stdout")).collect();
    assert_eq!(stdout, ["stdout F one", "stdout F three", "stdout F ", "stdout F four"]);
    assert!(log.contains("stderr F two\n"));
    assert!(log.ends_with("stdout F four\n"));
}

#[test]
fn a_huge_line_is_cut_into_partial_ones() {
    let mut pod = Pod::start();
    pod.run_to_end("c", &shell("dd if=/dev/zero bs=40000 count=1 2>/dev/null; echo end"));
    let zeros = |count: usize| "\0".repeat(count);
    let expected = format!(
        "stdout P {}\nstdout P {}\nstdout F {}end\n",
        zeros(16384),
        zeros(16384),
        zeros(40000 - 2 * 16384)
    );
    assert_eq!(pod.log("c"), expected);
}

#[test]
fn all_output_is_in_the_log_before_the_end_is_told() {
    let mut pod = Pod::start();
    pod.run_to_end("c", &shell("seq 1 20000"));
    let log = pod.log("c");
    let mut lines = log.lines();
    for n in 1..=20000 {
        assert_eq!(
            lines.next().and_then(|line| line.strip_prefix("stdout F ")),
            Some(n.to_string().as_str())
        );
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn a_terminals_output_is_stdout_as_it_comes() {
    let mut pod = Pod::start();
    let size = Some(TerminalSize { columns: 100, rows: 30 });
    let exit = pod.run_to_end(
        "c",
        &Wanted { tty: true, terminal_size: size, ..shell("stty size; echo error >&2; exit 4") },
    );
    assert_eq!(exit.code, 4);
    assert_eq!(pod.log("c"), "stdout F 30 100\r\nstdout F error\r\n");
}

#[test]
fn a_terminal_is_resized_and_typed_into() {
    let mut pod = Pod::start();
    pod.run("c", &Wanted { tty: true, ..shell("read go; stty size") }).unwrap();
    let size = TerminalSize { columns: 77, rows: 11 };
    pod.client.call(Request::ResizePty { id: "c".into(), size }).unwrap();
    let (answer, mut fds) = pod.client.call_with(Request::OpenStdin { id: "c".into() }, &[]).unwrap();
    assert_eq!(answer, Answer::Opened);
    fs::File::from(fds.remove(0)).write_all(b"go\n").unwrap();
    assert_eq!(pod.client.exit_of("c").code, 0);
    assert!(pod.log("c").ends_with("stdout F 11 77\r\n"), "{:?}", pod.log("c"));
}

#[test]
fn after_a_rotation_the_log_goes_on_in_a_new_file() {
    let mut pod = Pod::start();
    pod.run("c", &Wanted { stdin: true, ..run(&["/bin/cat"]) }).unwrap();
    let (_, mut fds) = pod.client.call_with(Request::OpenStdin { id: "c".into() }, &[]).unwrap();
    let mut stdin = fs::File::from(fds.remove(0));
    let (path, rotated) = (pod.log_path("c"), pod.log_path("c.1"));
    stdin.write_all(b"old\n").unwrap();
    eventually("the first line is logged", || fs::read(&path).unwrap().ends_with(b"old\n"));
    fs::rename(&path, &rotated).unwrap();
    pod.client.call(Request::ReopenLog { id: "c".into() }).unwrap();
    stdin.write_all(b"new\n").unwrap();
    eventually("the second line is logged", || fs::read(&path).is_ok_and(|log| log.ends_with(b"new\n")));
    assert!(fs::read(&rotated).unwrap().ends_with(b"old\n"));
    assert_eq!(
        pod.client.call(Request::ReopenLog { id: "nobody".into() }).unwrap_err().kind,
        FailureKind::NotFound
    );
}

#[test]
fn stdin_that_is_attached_once_ends_with_its_holder() {
    let mut pod = Pod::start();
    pod.run("c", &Wanted { stdin: true, stdin_once: true, ..run(&["/bin/cat"]) }).unwrap();
    let (_, mut fds) = pod.client.call_with(Request::OpenStdin { id: "c".into() }, &[]).unwrap();
    let again = pod.client.call(Request::OpenStdin { id: "c".into() }).unwrap_err();
    assert_eq!(again.kind, FailureKind::WrongState);
    fs::File::from(fds.remove(0)).write_all(b"typed").unwrap();
    assert_eq!(pod.client.exit_of("c").code, 0);
    assert_eq!(pod.log("c"), "stdout F typed\n");
}

#[test]
fn without_stdin_a_container_reads_end_of_file_and_without_log_it_writes_to_null() {
    let mut pod = Pod::start();
    let exit = pod.run_to_end("c", &Wanted { logged: false, ..shell("cat; echo lost") });
    assert_eq!(exit.code, 0);
    assert!(!pod.log_path("c").exists());
}

#[test]
fn a_full_disk_costs_log_lines_and_nothing_else() {
    let mut pod = Pod::on_small_disk();
    let log_path = pod.dir.path().join("small/c.log");
    let wanted = Wanted { log_path: Some(log_path.clone()), ..shell("seq 1 40000; exit 3") };
    assert_eq!(pod.run_to_end("c", &wanted).code, 3);
    let log = fs::read_to_string(log_path).unwrap();
    assert!(log.ends_with('\n') && log.lines().all(|line| line.contains(" stdout F ")), "no torn line");
    let dropped = pod.client.list().containers[0].log_dropped_bytes;
    assert!(dropped > 0 && log.len() as u64 + dropped > 40000 * 30, "{} kept, {dropped} dropped", log.len());
}
