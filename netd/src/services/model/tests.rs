//! Objects as YAML in, what the node answers out.

use super::*;

const NODE: &str = "n1";

fn place() -> Place {
    Place { node: NODE.into(), zone: Some("z1".into()) }
}

fn objects(yaml: &str) -> Objects {
    let mut objects = Objects::default();
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let value: serde_json::Value = serde::Deserialize::deserialize(document).expect("yaml");
        if value["kind"] == "Service" {
            objects.put_service(&serde_json::from_value(value).expect("a Service"));
        } else {
            objects.put_slice(&serde_json::from_value(value).expect("an EndpointSlice"));
        }
    }
    objects
}

/// `spec` and `endpoints` are YAML flow mappings; the port is http, 80 to 8080.
fn model(spec: &str, endpoints: &[&str]) -> Model {
    objects(&format!("{}---\n{}", service("web", spec), slice("web", "IPv4", endpoints))).model(&place())
}

fn service(name: &str, spec: &str) -> String {
    format!(
        "kind: Service\nmetadata: {{name: {name}, namespace: d}}\nspec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: 80, nodePort: 30080}}], {spec}}}\n"
    )
}

fn slice(service: &str, family: &str, endpoints: &[&str]) -> String {
    format!(
        "kind: EndpointSlice\nmetadata: {{name: {service}-{family}, namespace: d, labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: {family}\nports: [{{name: http, port: 8080}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

/// `1!`: the pod 10.0.0.1 on this node; `2`: on another. Anything after a space goes into the conditions.
fn pods(list: &[&str]) -> Vec<String> {
    let one = |text: &&str| {
        let (pod, conditions) = text.split_once(' ').unwrap_or((text, ""));
        let (number, node) = pod.strip_suffix('!').map_or((pod, "n2"), |number| (number, NODE));
        format!("{{addresses: [10.0.0.{number}], nodeName: {node}, conditions: {{{conditions}}}}}")
    };
    list.iter().map(one).collect()
}

/// The last parts of the backends' addresses, or the refusal.
fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Backends(backends) => {
            let last = |b: &Backend| match b.address.ip() {
                IpAddr::V4(v4) => format!("{}", v4.octets()[3]),
                IpAddr::V6(v6) => format!("{:x}", v6.segments()[7]),
            };
            backends.iter().map(last).collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    }
}

fn find(model: &Model, kind: FrontendKind) -> &Frontend {
    model.frontends().find(|(_, f)| f.kind == kind).unwrap_or_else(|| panic!("a {kind:?}")).1
}

#[test]
fn endpoints_by_policy_readiness_and_termination() {
    const LEAVING: &str = "ready: false, serving: true, terminating: true";
    const GONE: &str = "ready: false, serving: false, terminating: true";
    let table: &[(&str, Vec<String>, &str, &str, &str)] = &[
        // (spec, pods, ClusterIP, node port from outside, node port from inside)
        ("type: NodePort", pods(&["1!", "2"]), "1 2", "1 2", "1 2"),
        ("type: NodePort", pods(&["1!", "2 ready: false"]), "1", "1", "1"),
        ("type: NodePort", pods(&[]), "Refuse", "Refuse", "Refuse"),
        ("type: NodePort", pods(&["2 ready: false, serving: false"]), "Refuse", "Refuse", "Refuse"),
        ("type: NodePort", pods(&[&format!("1! {LEAVING}"), "2"]), "2", "2", "2"),
        ("type: NodePort", pods(&[&format!("1! {LEAVING}"), &format!("2 {GONE}")]), "1", "1", "1"),
        ("type: NodePort, externalTrafficPolicy: Local", pods(&["1!", "2"]), "1 2", "1", "1 2"),
        ("type: NodePort, externalTrafficPolicy: Local", pods(&["2"]), "2", "Drop", "2"),
        ("type: NodePort, externalTrafficPolicy: Local", pods(&[]), "Refuse", "Refuse", "Refuse"),
        (
            "type: NodePort, externalTrafficPolicy: Local",
            pods(&[&format!("1! {LEAVING}"), "2"]),
            "2",
            "1",
            "2",
        ),
        ("type: NodePort, internalTrafficPolicy: Local", pods(&["1!", "2"]), "1", "1 2", "1 2"),
        ("type: NodePort, internalTrafficPolicy: Local", pods(&["2"]), "Drop", "2", "2"),
        ("type: NodePort, publishNotReadyAddresses: true", pods(&["1! ready: false"]), "1", "1", "1"),
    ];
    for (spec, endpoints, cluster, outside, inside) in table {
        let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
        let model = model(spec, &endpoints);
        assert_eq!(model.refusals, [], "{spec}");
        let node = find(&model, FrontendKind::NodePort);
        let found =
            [shown(&find(&model, FrontendKind::ClusterIp).inside), shown(&node.outside), shown(&node.inside)];
        assert_eq!(found, [*cluster, *outside, *inside], "{spec} {endpoints:?}");
    }
}

#[test]
fn hints_keep_traffic_near_only_when_complete() {
    let pod = |number: u8, hints: &str| format!("{{addresses: [10.0.0.{number}], hints: {{{hints}}}}}");
    let table = [
        (vec![pod(1, "forZones: [{name: z1}]"), pod(2, "forZones: [{name: z2}]")], "1"),
        (vec![pod(1, "forZones: [{name: z1}]"), pod(2, "")], "1 2"),
        (vec![pod(1, "forZones: [{name: z2}]"), pod(2, "forZones: [{name: z3}]")], "1 2"),
        (
            vec![
                pod(1, "forZones: [{name: z1}], forNodes: [{name: n2}]"),
                pod(2, "forZones: [{name: z1}], forNodes: [{name: n1}]"),
            ],
            "2",
        ),
        (
            vec![
                pod(1, "forZones: [{name: z1}], forNodes: [{name: n2}]"),
                pod(2, "forZones: [{name: z2}], forNodes: [{name: n3}]"),
            ],
            "1",
        ),
    ];
    for (endpoints, wanted) in table {
        let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
        assert_eq!(
            shown(&find(&model("", &endpoints), FrontendKind::ClusterIp).inside),
            wanted,
            "{endpoints:?}"
        );
    }
}

#[test]
fn every_kind_of_frontend_in_both_families() {
    let objects = objects(&format!(
        "{}status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.1}}, {{ip: 203.0.113.2, ipMode: Proxy}}, {{hostname: lb}}]}}}}\n---\n{}---\n{}",
        service(
            "web",
            "clusterIPs: [10.96.0.1, 'fd00::1'], type: LoadBalancer, externalIPs: ['2001:db8::9'], loadBalancerSourceRanges: [198.51.100.0/24], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}",
        ),
        slice("web", "IPv4", &["{addresses: [10.0.0.1]}"]),
        slice("web", "IPv6", &["{addresses: ['fd01::a']}"]),
    ));
    let model = objects.model(&place());
    let shown: Vec<_> = model
        .frontends()
        .map(|(_, f)| {
            format!(
                "{:?} {} -> {} {:?} {:?}",
                f.kind,
                f.key,
                shown(&f.outside),
                f.source,
                f.allowed.is_some()
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "ClusterIp 10.96.0.1:80/Tcp -> 1 MasqueradeOffCluster false",
            "ClusterIp [fd00::1]:80/Tcp -> a MasqueradeOffCluster false",
            "NodePort 30080 of the node's IV4 addresses/Tcp -> 1 Masquerade false",
            "NodePort 30080 of the node's IV6 addresses/Tcp -> a Masquerade false",
            "LoadBalancer 203.0.113.1:80/Tcp -> 1 Masquerade true",
            "ExternalIp [2001:db8::9]:80/Tcp -> a Masquerade false",
        ]
    );
    assert_eq!(model.ports[0].affinity_s, Some(60));
    assert_eq!((model.service_count(), model.endpoint_count()), (1, 2));
}

#[test]
fn what_no_proxy_serves_is_not_in_the_model() {
    for spec in ["clusterIP: None", "clusterIP: ''", "type: ExternalName, externalName: example.org"] {
        let yaml = service("web", "").replace("clusterIP: 10.96.0.1", spec);
        assert_eq!(objects(&yaml).model(&place()), Model::default(), "{spec}");
    }
    let foreign = service("web", "")
        .replace("namespace: d}", "namespace: d, labels: {service.kubernetes.io/service-proxy-name: other}}");
    assert_eq!(objects(&foreign).model(&place()), Model::default());
    let headless = slice("web", "IPv4", &["{addresses: [10.0.0.1]}"])
        .replace("labels: {", "labels: {service.kubernetes.io/headless: '', ");
    let model = objects(&format!("{}---\n{headless}", service("web", ""))).model(&place());
    assert_eq!(shown(&find(&model, FrontendKind::ClusterIp).inside), "Refuse");
}

#[test]
fn ports_are_found_by_name_and_protocol_and_pods_in_two_slices_count_once() {
    let yaml = "kind: Service
metadata: {name: dns, namespace: d}
spec: {clusterIP: 10.96.0.10, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}, {name: sig, port: 9, protocol: SCTP}]}
---
kind: EndpointSlice
metadata: {name: a, namespace: d, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
ports: [{name: dns, port: 5353, protocol: UDP}, {name: dns-tcp, port: 5354}, {name: sig, port: 99, protocol: SCTP}]
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2], conditions: {ready: false}}]
---
kind: EndpointSlice
metadata: {name: b, namespace: d, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
ports: [{name: dns, port: 5353, protocol: UDP}]
endpoints: [{addresses: [10.0.0.2]}, {addresses: [10.0.0.1], conditions: {ready: false}}]
";
    let model = objects(yaml).model(&place());
    let found: Vec<_> = model
        .frontends()
        .map(|(port, f)| {
            format!(
                "{} {}",
                port.name,
                f.inside.backends().iter().map(|b| b.address.to_string()).collect::<Vec<_>>().join(" ")
            )
        })
        .collect();
    assert_eq!(found, ["dns 10.0.0.1:5353 10.0.0.2:5353", "dns-tcp 10.0.0.1:5354", "sig 10.0.0.1:99"]);
}

#[test]
fn an_external_ip_takes_no_other_services_cluster_ip_cve_2020_8554() {
    let yaml = format!(
        "{}---\n{}---\n{}",
        service("a-thief", "externalIPs: [10.96.0.2]").replace("10.96.0.1", "10.96.0.9"),
        service("victim", "").replace("10.96.0.1", "10.96.0.2"),
        slice("a-thief", "IPv4", &["{addresses: [10.0.0.6]}"]),
    );
    let model = objects(&yaml).model(&place());
    let owner =
        model.frontends().find(|(_, f)| f.key.at == At::Address([10, 96, 0, 2].into())).expect("served");
    assert_eq!(owner.0.service.name, "victim");
    assert_eq!(
        model.refusals.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["Service d/a-thief: ExternalIp 10.96.0.2:80/Tcp belongs to Service d/victim already"]
    );
}

#[test]
fn an_endpoint_on_the_nodes_loopback_is_refused() {
    for address in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "x"] {
        let model = model("", &[&format!("{{addresses: ['{address}']}}")]);
        assert_eq!(shown(&find(&model, FrontendKind::ClusterIp).inside), "Refuse", "{address}");
        assert!(model.refusals[0].why.contains(address), "{:?}", model.refusals);
    }
}

#[test]
fn bad_values_are_named_and_the_rest_stays_in_force() {
    let table = [
        ("ports: [{port: 0}, {port: 80}]", "port 0 is no port"),
        ("ports: [{port: 70000}, {port: 80}]", "port 70000 is no port"),
        ("ports: [{port: 79, protocol: ICMP}, {port: 80}]", "protocol \"ICMP\" is none of TCP, UDP, SCTP"),
        (
            "ports: [{port: 80}], externalTrafficPolicy: Near",
            "\"Near\" is neither Cluster nor Local; taken as Cluster",
        ),
        (
            "ports: [{port: 80}], sessionAffinity: Cookie",
            "\"Cookie\" is neither None nor ClientIP; taken as None",
        ),
        (
            "ports: [{port: 80}], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}",
            "timeoutSeconds 0 is not 1 to 86400; taken as 10800",
        ),
    ];
    for (spec, why) in table {
        let yaml = format!("kind: Service\nmetadata: {{name: s}}\nspec: {{clusterIP: 10.96.0.1, {spec}}}");
        let model = objects(&yaml).model(&place());
        assert_eq!(model.frontends().count(), 1, "{spec}");
        assert!(model.refusals[0].to_string().starts_with("Service default/s: "), "{spec}");
        assert!(model.refusals[0].why.ends_with(why), "{spec}: {:?}", model.refusals);
    }
}

#[test]
fn a_source_range_that_cannot_be_read_closes_the_service_instead_of_opening_it() {
    let model = model("type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8, everybody]", &[]);
    assert_eq!(model.frontends().count(), 0);
    assert!(model.refusals[0].why.contains("the Service is not served"), "{:?}", model.refusals);
}

#[test]
fn names_that_no_apiserver_would_take_reach_no_chain() {
    for name in ["Web", "a b", "x; flush ruleset", "", &"a".repeat(64)] {
        let yaml = format!(
            "kind: Service\nmetadata: {{name: '{name}'}}\nspec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}"
        );
        let model = objects(&yaml).model(&place());
        assert_eq!(model.frontends().count(), 0, "{name}");
        assert!(model.refusals[0].why.contains("DNS labels"), "{:?}", model.refusals);
    }
    let yaml = service("web", "").replace("name: http", "name: 'a\"b'");
    let model = objects(&yaml).model(&place());
    assert!(model.refusals[0].why.contains("no DNS label"), "{:?}", model.refusals);
}

#[test]
fn a_health_check_counts_ready_local_pods_once() {
    let spec = "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 32000";
    let endpoints = pods(&["1!", "2", "3! ready: false, serving: true, terminating: true", "4!"]);
    let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
    let checks = model(spec, &endpoints).health_checks;
    assert_eq!((checks[0].port, checks[0].local_endpoints), (32000, 2));
    assert!(model("type: LoadBalancer, healthCheckNodePort: 32000", &endpoints).health_checks.is_empty());
}
