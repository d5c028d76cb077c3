//! Real cgroups, below a parent of our own that goes with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;

use super::*;

/// A cgroup in every hierarchy, below a parent of its own; all of it is removed at the end, panic or not.
struct Scene {
    hierarchies: Hierarchies,
    parent: PathBuf,
    children: Vec<Child>,
}

impl Scene {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let hierarchies = Hierarchies::detect().expect("detect");
        if !nix::unistd::geteuid().is_root() || hierarchies.is_unified() {
            println!("SKIP: needs root and cgroup v1 hierarchies");
            return None;
        }
        let parent = format!("/corten-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Some(Self { hierarchies, parent: parent.into(), children: Vec::new() })
    }

    fn cgroup(&self, id: &str, resources: &LinuxResources) -> Cgroup {
        Cgroup::locate(&self.hierarchies, None, id, Some(&self.parent), Some(resources)).expect("locate")
    }

    /// `id`, created and limited.
    fn limited(&self, id: &str, resources: &str) -> Result<Cgroup, CgroupError> {
        let resources = of(resources);
        let cgroup = self.cgroup(id, &resources);
        let created = cgroup.create()?;
        cgroup.apply(&resources)?;
        cgroup.apply_devices(resources.devices().as_deref().unwrap_or_default())?;
        created.keep();
        Ok(cgroup)
    }

    /// Run a shell command as a process that joined `cgroup`.
    fn spawn(&mut self, cgroup: &Cgroup, script: &str) -> i32 {
        let join = cgroup.members().iter().fold(String::new(), |join, member| {
            format!("{join}echo 0 > {} && ", member.path.join("cgroup.procs").display())
        });
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{join}{script}"))
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let pid = child.id() as i32;
        self.children.push(child);
        eventually("the child joins", || cgroup.pids().unwrap().contains(&pid));
        pid
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let whole = Cgroup::locate(
            &self.hierarchies,
            Some(&self.parent),
            "",
            None,
            Some(&of(r#"{"unified":{"a.b":"c"}}"#)),
        )
        .unwrap();
        let _ = whole.thaw();
        let _ = whole.kill_all();
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let removed = whole.remove();
        if !std::thread::panicking() {
            removed.expect("the test's cgroups can be removed");
        }
    }
}

fn of(json: &str) -> LinuxResources {
    serde_json::from_str(json).expect("resources")
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn content(cgroup: &Cgroup, controller: Controller, file: &str) -> String {
    files::read(&cgroup.path_of(controller).expect("controller").join(file)).unwrap().trim().to_owned()
}

#[test]
fn limits_are_in_the_kernel_and_an_update_changes_them() {
    let Some(scene) = Scene::new() else { return };
    let cgroup = scene
        .limited(
            "c",
            r#"{"cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0","mems":"0"},
                "memory":{"limit":67108864,"reservation":33554432,"swap":67108864,"swappiness":10},
                "pids":{"limit":99}}"#,
        )
        .unwrap();
    for (controller, file, value) in [
        (Controller::Cpu, "cpu.shares", "512"),
        (Controller::Cpu, "cpu.cfs_quota_us", "50000"),
        (Controller::Cpuset, "cpuset.cpus", "0"),
        (Controller::Memory, "memory.limit_in_bytes", "67108864"),
        (Controller::Memory, "memory.memsw.limit_in_bytes", "67108864"),
        (Controller::Memory, "memory.soft_limit_in_bytes", "33554432"),
        (Controller::Memory, "memory.swappiness", "10"),
        (Controller::Pids, "pids.max", "99"),
    ] {
        assert_eq!(content(&cgroup, controller, file), value, "{file}");
    }
    // Both limits grow past each other's old value, then shrink again.
    for (limit, swap) in [(134_217_728, 268_435_456), (33_554_432, 50_331_648)] {
        cgroup
            .apply(&of(&format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}},"pids":{{"limit":-1}}}}"#)))
            .unwrap();
        assert_eq!(content(&cgroup, Controller::Memory, "memory.limit_in_bytes"), limit.to_string());
        assert_eq!(content(&cgroup, Controller::Memory, "memory.memsw.limit_in_bytes"), swap.to_string());
    }
    assert_eq!(content(&cgroup, Controller::Pids, "pids.max"), "max");
    assert_eq!(content(&cgroup, Controller::Cpu, "cpu.shares"), "512", "an update leaves the rest");
}

#[test]
fn a_new_cpuset_is_never_empty() {
    let Some(scene) = Scene::new() else { return };
    let cgroup = scene.limited("c", "{}").unwrap();
    assert_ne!(content(&cgroup, Controller::Cpuset, "cpuset.cpus"), "");
    assert_ne!(content(&cgroup, Controller::Cpuset, "cpuset.mems"), "");
}

#[test]
fn a_period_that_needs_its_quota_first_is_accepted() {
    let Some(scene) = Scene::new() else { return };
    scene.limited("p", r#"{"cpu":{"quota":50000,"period":100000}}"#).unwrap();
    let child = scene.cgroup("p/c", &of("{}"));
    child.create().unwrap().keep();
    child.apply(&of(r#"{"cpu":{"quota":40000,"period":100000}}"#)).unwrap();
    // 40000/50000 is more than the parent's half; with the quota of 5000 it is a tenth.
    child.apply(&of(r#"{"cpu":{"quota":5000,"period":50000}}"#)).unwrap();
    assert_eq!(content(&child, Controller::Cpu, "cpu.cfs_period_us"), "50000");
    assert_eq!(content(&child, Controller::Cpu, "cpu.cfs_quota_us"), "5000");
}

#[test]
fn devices_are_an_allow_list_and_the_process_feels_it() {
    let Some(mut scene) = Scene::new() else { return };
    let cgroup = scene.limited("c", r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#).unwrap();
    let list = content(&cgroup, Controller::Devices, "devices.list");
    assert!(
        list.lines().any(|line| line == "c 10:229 rw") && list.lines().any(|line| line == "c 1:3 rwm"),
        "{list}"
    );
    let out = tempfile::tempdir().unwrap();
    let result = out.path().join("result");
    // /dev/null stays; /dev/kmsg (1:11) and /dev/mem (1:1) are not on the list.
    scene.spawn(&cgroup, &format!("{{ echo x > /dev/null && echo null; cat /dev/kmsg 2>&1 | grep -o 'not permitted'; }} > {}.tmp; mv {0}.tmp {0}; sleep 100", result.display()));
    eventually("the script ends", || result.exists());
    assert_eq!(std::fs::read_to_string(&result).unwrap(), "null\nnot permitted\n");
}

#[test]
fn a_cgroup_with_processes_is_refused_at_create() {
    let Some(mut scene) = Scene::new() else { return };
    let cgroup = scene.limited("c", "{}").unwrap();
    drop(cgroup.create().expect("an empty one that is there already is taken"));
    assert!(cgroup.exists(), "what create did not make, its undo leaves");
    scene.spawn(&cgroup, "exec sleep 100");
    assert!(matches!(cgroup.create().unwrap_err(), CgroupError::NotEmpty { count: 1, .. }));
}

#[test]
fn a_frozen_cgroup_is_refused_at_create() {
    let Some(scene) = Scene::new() else { return };
    let cgroup = scene.limited("c", "{}").unwrap();
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen().unwrap());
    assert!(matches!(cgroup.create().unwrap_err(), CgroupError::Frozen { .. }));
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
}

#[test]
fn an_undone_create_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    let cgroup = scene.cgroup("deep/er/c", &of("{}"));
    drop(cgroup.create().unwrap());
    for member in cgroup.members() {
        let parent = member.mount.join(scene.parent.strip_prefix("/").unwrap());
        assert!(!parent.exists(), "{}", parent.display());
    }
}

#[test]
fn kill_all_reaches_forking_and_nested_processes_and_remove_takes_the_tree() {
    let Some(mut scene) = Scene::new() else { return };
    let cgroup = scene.limited("c", r#"{"pids":{"limit":40}}"#).unwrap();
    for member in cgroup.members() {
        std::fs::create_dir_all(member.path.join("inner/most")).unwrap();
    }
    let inner = scene.cgroup("c/inner/most", &of("{}"));
    for file in ["cpuset.cpus", "cpuset.mems"] {
        for dir in ["inner", "inner/most"] {
            let cpuset = cgroup.path_of(Controller::Cpuset).unwrap();
            files::write(&cpuset.join(dir).join(file), "0").unwrap();
        }
    }
    scene.spawn(&inner, "sleep 100");
    scene.spawn(&cgroup, "while :; do sleep 0.01 & done");
    eventually("it forks", || cgroup.pids().unwrap().len() > 5);
    cgroup.kill_all().unwrap();
    eventually("all are dead", || cgroup.pids().unwrap().is_empty());
    cgroup.remove().unwrap();
    assert!(cgroup.members().iter().all(|member| !member.path.exists()));
    cgroup.remove().expect("removing twice is no error");
    cgroup.kill_all().expect("killing nobody is no error");
}

#[test]
fn remove_says_who_is_still_there() {
    let Some(mut scene) = Scene::new() else { return };
    let cgroup = scene.limited("c", "{}").unwrap();
    scene.spawn(&cgroup, "exec sleep 100");
    let error = cgroup.remove().unwrap_err().to_string();
    assert!(error.contains("still holds 1 processes"), "{error}");
}

#[test]
fn remove_does_not_follow_links_out_of_the_tree() {
    let outside = tempfile::tempdir().unwrap();
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(outside.path().join("keep")).unwrap();
    std::os::unix::fs::symlink(outside.path(), tree.path().join("link")).unwrap();
    assert!(files::children(tree.path()).unwrap().is_empty());
    assert!(outside.path().join("keep").exists());
}

#[test]
fn running_out_of_memory_is_told_and_counted() {
    let Some(mut scene) = Scene::new() else { return };
    let cgroup = scene.limited("c", r#"{"memory":{"limit":16777216,"swap":16777216}}"#).unwrap();
    let events = cgroup.oom_events().unwrap();
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
    scene.spawn(&cgroup, "sleep 0.05; head -c 64M /dev/zero | tail > /dev/null; sleep 100");
    let mut poll = [rustix::event::PollFd::new(&events, rustix::event::PollFlags::IN)];
    let wait = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&wait)).unwrap(), 1, "no event within 10 s");
    eventually("the kill is counted", || cgroup.oom_kills().unwrap() > 0);
    events.drain();
}

#[test]
fn stats_count_what_runs() {
    let Some(mut scene) = Scene::new() else { return };
    let cgroup = scene.limited("c", "{}").unwrap();
    scene.spawn(&cgroup, "while :; do :; done");
    eventually("CPU time and memory are counted", || {
        let stats = cgroup.stats().unwrap();
        stats.cpu_usage_ns > Some(1_000_000) && stats.memory_usage > Some(0) && stats.pids == Some(1)
    });
}

#[test]
fn hybrid_takes_hugetlb_from_v2() {
    let Some(scene) = Scene::new() else { return };
    let on_v2 = scene
        .hierarchies
        .iter()
        .any(|h| h.version == Version::V2 && h.controllers.iter().any(|c| c == "hugetlb"));
    if !on_v2 || !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        println!("SKIP: no hugetlb controller on v2");
        return;
    }
    assert!(scene.cgroup("plain", &of("{}")).v2().is_none(), "v2 is not joined without need");
    let cgroup = scene.limited("c", r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#).unwrap();
    assert_eq!(content(&cgroup, Controller::Hugetlb, "hugetlb.2MB.max"), "4194304");
}

#[test]
fn what_the_host_lacks_is_named() {
    let Some(scene) = Scene::new() else { return };
    let error = scene.limited("c", r#"{"network":{"classID":5}}"#).unwrap_err().to_string();
    if scene.hierarchies.iter().any(|h| h.controllers.iter().any(|c| c == "net_cls")) {
        println!("SKIP: this host has net_cls");
        return;
    }
    assert!(
        error.contains("net_cls is not available") && error.contains("remove linux.resources.network"),
        "{error}"
    );
    let error = scene.limited("d", r#"{"cpu":{"cpus":"4000"}}"#).unwrap_err().to_string();
    assert!(error.contains("cpuset.cpus") && error.contains("subset"), "{error}");
    assert!(!scene.cgroup("d", &of("{}")).exists(), "a failed create leaves nothing");
}

#[test]
fn the_root_is_nobodys_cgroup() {
    let hierarchies = Hierarchies::detect().unwrap();
    assert!(Cgroup::locate(&hierarchies, Some(Path::new("/")), "x", None, None).is_err());
}

#[test]
fn a_child_joins_by_itself() {
    let Some(scene) = Scene::new() else { return };
    let cgroup = scene.limited("c", "{}").unwrap();
    let join = cgroup.join().unwrap();
    // The test runner has threads: only this one moves, which is what `tasks` does.
    let handle = std::thread::spawn(move || {
        join.enter_v1().unwrap();
        std::fs::read_to_string("/proc/thread-self/cgroup").unwrap()
    });
    let own = handle.join().unwrap();
    let expected = format!("{}/c", scene.parent.display());
    assert_eq!(own.lines().filter(|line| line.ends_with(&expected)).count(), cgroup.members().len(), "{own}");
}

#[test]
fn the_v2_device_program_decides_and_is_replaced() {
    let Some(mut scene) = Scene::new() else { return };
    let Some(member) = scene.cgroup("c", &of(r#"{"unified":{"a.b":"c"}}"#)).v2().cloned() else {
        println!("SKIP: no cgroup v2 mount");
        return;
    };
    let cgroup = Cgroup { members: vec![member] };
    cgroup.create().unwrap().keep();
    let dir = &cgroup.members[0].path;
    let tried = tempfile::tempdir().unwrap();
    let kmsg_opens = |scene: &mut Scene, name: &str| {
        let result = tried.path().join(name);
        let script = format!(
            ": > /dev/null && (exec 3< /dev/kmsg) 2> /dev/null && echo yes > {0}.tmp || echo no > {0}.tmp; mv {0}.tmp {0}; exec sleep 100",
            result.display()
        );
        scene.spawn(&cgroup, &script);
        eventually("the script ends", || result.exists());
        std::fs::read_to_string(&result).unwrap().trim() == "yes"
    };
    assert!(kmsg_opens(&mut scene, "before"));
    devices::v2::apply(dir, &devices::target(&[]).unwrap()).unwrap();
    assert!(!kmsg_opens(&mut scene, "denied"));
    devices::v2::apply(dir, &devices::Policy::ALLOW_ALL).unwrap();
    assert!(kmsg_opens(&mut scene, "allowed"), "the first program is gone");
}
