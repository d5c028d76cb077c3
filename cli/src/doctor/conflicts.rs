//! Other programs that manage containers on this machine. They can live beside Corten; the user should know of them.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use super::Finding;

/// Sockets of daemons that also make cgroups, links and rules.
const DAEMONS: [(&str, &str); 4] = [
    ("containerd", "/run/containerd/containerd.sock"),
    ("CRI-O", "/run/crio/crio.sock"),
    ("Docker", "/run/docker.sock"),
    ("cri-dockerd", "/run/cri-dockerd.sock"),
];

/// Ports of a kubelet: its API and its health check.
const KUBELET_PORTS: [u16; 2] = [10250, 10248];

pub fn check() -> Vec<Finding> {
    let daemons: Vec<&str> = DAEMONS
        .iter()
        .filter(|(_, socket)| UnixStream::connect(socket).is_ok())
        .map(|(name, _)| *name)
        .collect();
    let ports: Vec<u16> = KUBELET_PORTS.into_iter().filter(|port| is_taken(*port)).collect();
    judge(&daemons, &ports)
}

fn is_taken(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse)
}

fn judge(daemons: &[&str], ports: &[u16]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !daemons.is_empty() {
        findings.push(Finding::warning(
            "other daemons",
            format!("{} answers on this machine", daemons.join(" and ")),
            "they can live beside each other; keep host ports, subnets and CNI directories apart",
        ));
    }
    if !ports.is_empty() {
        let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" and ");
        findings.push(Finding::warning(
            "other kubelet",
            format!("port {list} of this machine is taken: another kubelet runs"),
            "Corten's kubelet listens on no port; make sure the other one does not watch the same manifests",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("other daemons", "none"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Level, worst};

    #[test]
    fn others_are_named_and_stop_nothing() {
        assert_eq!(worst(&judge(&[], &[])), Level::Ok);
        let findings = judge(&["containerd"], &[10250]);
        assert_eq!((findings.len(), worst(&findings)), (2, Level::Warning));
        assert!(findings[0].found.contains("containerd") && findings[1].found.contains("10250"));
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(is_taken(listener.local_addr().unwrap().port()));
    }
}
