//! The monitor is the runtime: nothing in a container may reach its program on the host (CVE-2019-5736).

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;

use corten_monitor::protocol::Request;
use serde_json::{Value, json};

use crate::pod::{Pod, eventually, lives, read_all, run, shell};

/// What is opened for reading while it runs is opened again for writing once it has ended, by the host's root.
fn assert_unwritable(executable: &File) {
    let path = format!("/proc/self/fd/{}", executable.as_raw_fd());
    let written = OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(b"x"));
    assert!(written.is_err(), "the executable can be written to");
}

fn open_executable(pid: u32) -> File {
    File::open(format!("/proc/{pid}/exe")).unwrap()
}

/// Changes the configuration of a container that [`Pod::request`] has written.
fn reconfigure(pod: &Pod, id: &str, change: impl FnOnce(&mut Value)) {
    let path = pod.bundle(id).join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
}

fn strong(config: &mut Value) {
    let capabilities =
        json!(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER"]);
    config["process"]["capabilities"] =
        json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
}

#[test]
fn cve_2019_5736_no_process_of_a_pod_leads_to_the_program_of_the_monitor() {
    let (mut pod, program) = Pod::of_copy();
    let before = fs::read(&program).unwrap();
    let mut held = vec![open_executable(pod.monitor.id())];
    // The first process of a container, as far as its gate, is the monitor's program still.
    held.push(open_executable(pod.create("created", &run(&["/bin/sleep", "300"])).unwrap() as u32));
    pod.run("c", &run(&["/bin/sleep", "300"])).unwrap();
    let (exec, out, err) = pod.exec("c", &["/proc/self/exe", "--version"]).unwrap();
    assert!(read_all(out).starts_with("corten-monitor "), "{}", read_all(err));
    assert_eq!(pod.client.exit_of_exec(exec).code, 0);
    pod.client.call(Request::StartContainer { id: "created".into() }).unwrap();
    pod.kill_monitor();
    held.iter().for_each(assert_unwritable);
    assert!(fs::read(&program).unwrap() == before, "the monitor's program was changed");
}

#[test]
fn cve_2019_5736_a_container_that_sees_the_monitor_cannot_overwrite_it() {
    let (mut pod, program) = Pod::of_copy();
    let before = fs::read(&program).unwrap();
    let victim = pod.create("victim", &run(&["/bin/sleep", "300"])).unwrap();
    let shared = pod.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let script = format!(
        "exec 2>/dev/null 8</proc/{}/exe 9</proc/{victim}/exe && echo ok > /shared/open
         until [ -e /shared/go ]; do sleep 0.01; done
         for fd in 8 9; do echo x >> /proc/self/fd/$fd && echo $fd >> /shared/written; done
         echo > /shared/done; sleep 300",
        pod.monitor.id()
    );
    let wanted = crate::pod::Wanted {
        own_pid_namespace: false,
        mounts: vec![
            json!({"destination": "/shared", "type": "bind", "source": shared, "options": ["bind"]}),
        ],
        ..shell(&script)
    };
    let request = pod.request("attacker", &wanted);
    reconfigure(&pod, "attacker", strong);
    pod.client.call(Request::CreateContainer(request)).unwrap();
    pod.client.call(Request::StartContainer { id: "attacker".into() }).unwrap();
    let there = |name: &str| shared.join(name).exists();
    eventually("the attacker has the executables", || there("open"));
    pod.client.call(Request::StartContainer { id: "victim".into() }).unwrap();
    pod.kill_monitor();
    assert!(lives(victim));
    fs::write(shared.join("go"), "").unwrap();
    eventually("the attack", || there("done"));
    assert!(!there("written"), "an executable was written to");
    assert!(fs::read(&program).unwrap() == before, "the monitor's program was changed");
}
