//! /etc/hosts of a Pod, byte for byte as upstream writes it (`kubelet_pods.go`). Pure.

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::pod::{hostname, hostname_and_domain, spec};

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

/// The file of a pod: `host` is the node's /etc/hosts, used by pods on the host network.
pub fn of_pod(pod: &Pod, pod_ips: &[String], cluster_domain: &str, host: &str) -> String {
    let spec = spec(pod);
    let aliases = aliases(spec.host_aliases.as_deref().unwrap_or_default());
    if spec.host_network == Some(true) {
        return format!("{HEADER_HOST_NETWORK}{host}{aliases}");
    }
    let (short, domain) = hostname_and_domain(pod, cluster_domain);
    let names = match domain {
        Some(domain) => format!("{short}.{domain}\t{short}"),
        None => hostname(pod),
    };
    let own = pod_ips.iter().map(|ip| format!("{ip}\t{names}\n")).collect::<Vec<_>>().concat();
    format!("{HEADER}{LOOPBACK}{own}{aliases}")
}

fn aliases(list: &[HostAlias]) -> String {
    if list.is_empty() {
        return String::new();
    }
    let lines = list.iter().map(|alias| {
        format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"))
    });
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "called with json! literals")]
    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-n", "namespace": "ns"}, "spec": spec}))
            .expect("pod")
    }

    #[test]
    fn a_pod_finds_itself_and_its_aliases() {
        let pod = pod(json!({"containers": [], "hostAliases": [
            {"ip": "192.0.2.9", "hostnames": ["db", "db.lan"]}, {"ip": "192.0.2.10", "hostnames": ["x"]}]}));
        assert_eq!(
            of_pod(&pod, &["10.0.0.2".into(), "fd::2".into()], "c.l", "ignored"),
            format!(
                "{HEADER}{LOOPBACK}10.0.0.2\tweb-n\nfd::2\tweb-n\n\n# Entries added by HostAliases.\n192.0.2.9\tdb\tdb.lan\n192.0.2.10\tx\n"
            )
        );
    }

    #[test]
    fn a_subdomain_gives_a_full_name() {
        let pod = pod(json!({"containers": [], "hostname": "a", "subdomain": "sub"}));
        assert!(of_pod(&pod, &["10.0.0.2".into()], "c.l", "").ends_with("10.0.0.2\ta.sub.ns.svc.c.l\ta\n"));
    }

    #[test]
    fn on_the_host_network_the_file_is_the_hosts() {
        let pod = pod(
            json!({"containers": [], "hostNetwork": true, "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["db"]}]}),
        );
        assert_eq!(
            of_pod(&pod, &[], "", "127.0.0.1 localhost\n"),
            format!(
                "{HEADER_HOST_NETWORK}127.0.0.1 localhost\n\n# Entries added by HostAliases.\n192.0.2.9\tdb\n"
            )
        );
    }
}
