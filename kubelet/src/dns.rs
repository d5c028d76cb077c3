//! /etc/resolv.conf of a Pod from its dnsPolicy and dnsConfig. Pure; rules are upstream's (`network/dns/dns.go`).

use corten_cri_api::v1::DnsConfig;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfigOption};

use crate::pod::{namespace, spec};

/// What the C library reads of a resolv.conf.
pub const MAX_SERVERS: usize = 3;
pub const MAX_SEARCHES: usize = 32;
/// All search domains with a space between them.
pub const MAX_SEARCH_CHARS: usize = 2048;

/// DNS of the cluster this node stands for; without a server, ClusterFirst means the node's own DNS.
#[derive(Debug, Clone, Default)]
pub struct ClusterDns {
    pub servers: Vec<String>,
    pub domain: String,
}

/// DNS of a pod: `host` is the text of the node's resolv.conf.
pub fn of_pod(pod: &Pod, cluster: &ClusterDns, host: &str) -> DnsConfig {
    let spec = spec(pod);
    let mut config = match policy(spec.dns_policy.as_deref(), spec.host_network == Some(true), cluster) {
        Policy::None => DnsConfig::default(),
        Policy::Default => parse(host),
        Policy::Cluster => of_cluster(namespace(pod), cluster, &parse(host)),
    };
    if let Some(own) = &spec.dns_config {
        extend(&mut config.servers, own.nameservers.iter().flatten());
        extend(&mut config.searches, own.searches.iter().flatten());
        config.options = merge(config.options, own.options.iter().flatten());
    }
    fit(config)
}

#[derive(Debug, PartialEq)]
enum Policy {
    None,
    Default,
    Cluster,
}

/// ClusterFirst on the host network is the host's DNS, and so it is without a cluster DNS server.
fn policy(name: Option<&str>, host_network: bool, cluster: &ClusterDns) -> Policy {
    match name {
        Some("None") => Policy::None,
        Some("ClusterFirst") if !host_network && !cluster.servers.is_empty() => Policy::Cluster,
        Some("ClusterFirstWithHostNet") if !cluster.servers.is_empty() => Policy::Cluster,
        _ => Policy::Default,
    }
}

fn of_cluster(namespace: &str, cluster: &ClusterDns, host: &DnsConfig) -> DnsConfig {
    let domain = &cluster.domain;
    let mut searches = match domain.as_str() {
        "" => vec![],
        _ => vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()],
    };
    extend(&mut searches, host.searches.iter());
    DnsConfig { servers: cluster.servers.clone(), searches, options: vec!["ndots:5".into()] }
}

/// Reads a resolv.conf; of several `search` or `options` lines the last counts, as in the C library.
fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default();
        let rest = words.take_while(|w| !w.starts_with(['#', ';'])).map(str::to_owned);
        match keyword {
            "nameserver" => config.servers.extend(rest.take(1)),
            "search" | "domain" => {
                config.searches =
                    rest.map(|s| if s == "." { s } else { s.trim_end_matches('.').to_owned() }).collect();
            }
            "options" => config.options = rest.collect(),
            _ => {}
        }
    }
    config
}

fn extend<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// The pod's options replace those of the same name.
fn merge<'a>(mut options: Vec<String>, own: impl Iterator<Item = &'a PodDNSConfigOption>) -> Vec<String> {
    for option in own {
        let name = option.name.as_deref().unwrap_or_default();
        options.retain(|o| o.split(':').next() != Some(name));
        options.push(match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.to_owned(),
        });
    }
    options
}

/// What exceeds the C library's limits is left out, from the end.
fn fit(mut config: DnsConfig) -> DnsConfig {
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARS {
        config.searches.pop();
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HOST: &str = "# by hand\nnameserver 192.0.2.53 # first\nnameserver 192.0.2.54\nsearch example.com. lan\noptions timeout:1 rotate\n";

    fn resolve(patch: &Value, cluster: &[&str]) -> String {
        let mut spec = json!({"containers": [], "dnsPolicy": "ClusterFirst"});
        patch.as_object().expect("object").iter().for_each(|(k, v)| spec[k] = v.clone());
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"namespace": "ns"}, "spec": spec})).expect("pod");
        let cluster =
            ClusterDns { servers: cluster.iter().map(ToString::to_string).collect(), domain: "c.l".into() };
        let c = of_pod(&pod, &cluster, HOST);
        format!("{}|{}|{}", c.servers.join(" "), c.searches.join(" "), c.options.join(" "))
    }

    #[test]
    fn policies() {
        let host = "192.0.2.53 192.0.2.54|example.com lan|timeout:1 rotate";
        let cluster = "10.96.0.10|ns.svc.c.l svc.c.l c.l example.com lan|ndots:5";
        let dns = &["10.96.0.10"][..];
        for (patch, servers, expected) in [
            (json!({}), dns, cluster),
            (json!({}), &[][..], host),
            (json!({"hostNetwork": true}), dns, host),
            (json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), dns, cluster),
            (json!({"dnsPolicy": "Default"}), dns, host),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a"]}}),
                dns,
                "1.1.1.1|a|",
            ),
            (
                json!({"dnsConfig": {"nameservers": ["1.1.1.1", "10.96.0.10"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                dns,
                "10.96.0.10 1.1.1.1|ns.svc.c.l svc.c.l c.l example.com lan|ndots:2 edns0",
            ),
        ] {
            assert_eq!(resolve(&patch, servers), expected, "{patch}");
        }
    }

    #[test]
    fn what_the_c_library_would_not_read_is_left_out() {
        let patch = json!({"dnsPolicy": "Default", "dnsConfig": {"nameservers": ["1.1.1.1", "2.2.2.2"],
            "searches": (0..40).map(|i| format!("s{i}")).collect::<Vec<_>>()}});
        let resolved = resolve(&patch, &[]);
        let parts: Vec<&str> = resolved.split('|').collect();
        assert_eq!(parts[0], "192.0.2.53 192.0.2.54 1.1.1.1");
        assert_eq!(parts[1].split(' ').count(), MAX_SEARCHES);
        let long = (0..32).map(|i| format!("{i}{}", "x".repeat(100))).collect::<Vec<_>>();
        let resolved = resolve(&json!({"dnsPolicy": "None", "dnsConfig": {"searches": long}}), &[]);
        assert!(resolved.len() <= MAX_SEARCH_CHARS + 2);
    }
}
