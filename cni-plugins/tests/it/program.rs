//! The command line around the plugins.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

const PLUGINS: [&str; 7] = ["bridge", "firewall", "flannel", "host-local", "loopback", "portmap", "tuning"];
const PROGRAM: &str = env!("CARGO_BIN_EXE_corten-cni");

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_teaches_and_unknown_arguments_are_refused() {
    let (code, stdout, _) = output(Command::new(PROGRAM).arg("--help"));
    assert_eq!(code, Some(0));
    for word in [
        "install",
        "bridge",
        "firewall",
        "flannel",
        "host-local",
        "loopback",
        "portmap",
        "tuning",
        "CORTEN_NETNS_DOOMED",
        "1.1.0",
    ] {
        assert!(stdout.contains(word), "{word}");
    }
    let (code, _, stderr) = output(Command::new(PROGRAM).arg("dhcp"));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("dhcp"));
}

#[test]
fn install_makes_every_plugin_a_name_of_one_file_and_may_be_repeated() {
    let dir = tempfile::tempdir().expect("a directory");
    let bin = dir.path().join("opt/cni/bin");
    for _ in 0..2 {
        let (code, stdout, stderr) = output(Command::new(PROGRAM).arg("install").arg("--dir").arg(&bin));
        assert_eq!((code, stdout.lines().count()), (Some(0), PLUGINS.len() + 1), "{stderr}");
        let inode = |name: &str| std::fs::metadata(bin.join(name)).expect(name).ino();
        for name in PLUGINS {
            assert_eq!(inode(name), inode("corten-cni"));
            let (code, stdout, _) = output(Command::new(bin.join(name)).env("CNI_COMMAND", "VERSION"));
            assert_eq!(code, Some(0));
            assert!(stdout.contains(r#""supportedVersions":["0.1.0""#), "{stdout}");
        }
        assert_eq!(
            std::fs::read_dir(&bin).expect("listed").count(),
            PLUGINS.len() + 1,
            "nothing temporary is left"
        );
    }
}

#[test]
fn without_a_command_a_plugin_says_what_it_is() {
    let (code, stdout, stderr) = output(Command::new(PROGRAM).arg("bridge").env_remove("CNI_COMMAND"));
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert!(stderr.contains("CNI plugin bridge") && stderr.contains("1.1.0"), "{stderr}");
}

#[test]
fn an_error_is_json_on_stdout() {
    let (code, stdout, stderr) = output(Command::new(PROGRAM).arg("bridge").env("CNI_COMMAND", "ADD"));
    let error: serde_json::Value = serde_json::from_str(&stdout).expect("json");
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    assert_eq!(error["code"], 4);
    assert!(error["msg"].as_str().expect("text").contains("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"));
}
