//! cpuset: the same two files in both versions.

use oci_spec::runtime::LinuxCpu;

use crate::cgroup::{Controller, Write};

fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

pub fn wanted(cpu: &LinuxCpu) -> bool {
    given(cpu.cpus().as_ref()).is_some() || given(cpu.mems().as_ref()).is_some()
}

pub fn writes(cpu: &LinuxCpu) -> Vec<Write> {
    let cpus = given(cpu.cpus().as_ref()).map(|cpus| Write::new(Controller::Cpuset, "cpuset.cpus", cpus));
    let mems = given(cpu.mems().as_ref()).map(|mems| Write::new(Controller::Cpuset, "cpuset.mems", mems));
    cpus.into_iter().chain(mems).collect()
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn empty_text_is_not_set() {
        let mut cpu = LinuxCpu::default();
        cpu.set_cpus(Some(String::new())).set_mems(Some("0".into()));
        assert_eq!(shown(&writes(&cpu)), ["cpuset.mems=0"]);
    }
}
