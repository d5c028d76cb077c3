//! Rendering, comparing and judging without a kernel.

use std::net::SocketAddr;

use corten_netlink::nft::{Element, ElementData, Verdict};

use super::diff::{Change, Difference, diff};
use super::stale::Udp;
use super::{Content, Settings, render};
use crate::services::model::{Model, Objects, Place};

fn model(spec: &str, pods: &[&str]) -> Model {
    let endpoints: Vec<_> = pods.iter().map(|pod| format!("{{addresses: [{pod}], nodeName: n1}}")).collect();
    let yaml = format!(
        "spec: {{clusterIP: 10.96.0.1, ports: [{{name: u, port: 53, protocol: UDP, nodePort: 30053}}], {spec}}}"
    );
    let service = format!("metadata: {{name: dns, namespace: d}}\n{yaml}");
    let slice = format!(
        "metadata: {{name: dns-1, namespace: d, labels: {{kubernetes.io/service-name: dns}}}}
addressType: IPv4
ports: [{{name: u, port: 5353, protocol: UDP}}]
endpoints: [{}]",
        endpoints.join(", ")
    );
    let mut objects = Objects::default();
    objects.put_service(&serde_yaml_ng::from_str(&service).expect("a Service"));
    objects.put_slice(&serde_yaml_ng::from_str(&slice).expect("an EndpointSlice"));
    objects.model(&Place { node: "n1".into(), zone: None })
}

fn content(spec: &str, pods: &[&str]) -> Content {
    render(&model(spec, pods), &Settings::default())
}

fn goto(content: &Content, map: &str) -> Vec<String> {
    let chain = |element: &Element| match &element.data {
        Some(ElementData::Verdict(Verdict::Goto(chain))) => chain.clone(),
        other => panic!("{other:?}"),
    };
    content.sets[map].elements.iter().map(chain).collect()
}

#[test]
fn where_each_frontend_goes() {
    const BOTH: &[&str] = &["10.0.0.1", "10.0.0.2"];
    for (pods, cluster, node) in [
        (&BOTH[..1], "pick-v4-1", "node-v4/node-pick-v4-1"),
        (BOTH, "pick-v4-2", "node-v4/node-pick-v4-2"),
        (&[], "refuse", "node-v4/refuse"),
    ] {
        let content = content("type: NodePort", pods);
        assert_eq!(goto(&content, "frontends-v4"), [cluster], "{pods:?}");
        assert_eq!(goto(&content, "node-ports"), [node], "{pods:?}");
        assert!(goto(&content, "inside-node-ports").is_empty(), "from inside they answer alike");
    }
    let local = content("type: NodePort, externalTrafficPolicy: Local", &["10.0.0.1"]);
    assert_eq!(goto(&local, "node-sources"), ["keep"]);
    assert_eq!(goto(&content("type: NodePort", &[]), "node-sources"), ["masquerade"]);
    assert_eq!(goto(&local, "sources-v4"), ["off-cluster"]);
    let sticky = content("sessionAffinity: ClientIP", &["10.0.0.1", "10.0.0.2"]);
    let chain = &goto(&sticky, "frontends-v4")[0];
    assert!(chain.starts_with("sticky/d/dns/u/udp/v4/"), "{chain}");
    assert_eq!(
        goto(&sticky, chain),
        ["endpoint/d/dns/u/udp/10.0.0.1/5353", "endpoint/d/dns/u/udp/10.0.0.2/5353"]
    );
    // Every chain that is gone to is there, and no name is longer than the kernel takes.
    let known = |chain: &String| sticky.chains.contains_key(chain) && chain.len() < 256;
    assert!(
        sticky
            .sets
            .keys()
            .filter(|n| n.contains("frontends"))
            .flat_map(|n| goto(&sticky, n))
            .all(|c| known(&c))
    );
}

#[test]
fn ranges_within_others_and_of_the_other_family_are_left_out() {
    let spec = "type: LoadBalancer, loadBalancerSourceRanges: [10.1.0.0/16, 10.0.0.0/8, 10.0.0.0/8, 192.0.2.7/24, 'fd00::/8']";
    let mut model = model(spec, &["10.0.0.1"]);
    let port = &mut model.ports[0];
    let ranges: Vec<ipnetwork::IpNetwork> = ["10.1.0.0/16", "10.0.0.0/8", "192.0.2.7/24", "fd00::/8"]
        .map(|t| t.parse().expect("a network"))
        .to_vec();
    port.frontends[0].allowed = Some(ranges.into());
    let content = render(&model, &Settings::default());
    let starts: Vec<_> = content.sets["allowed-v4"].elements.iter().map(|e| e.key[..4].to_vec()).collect();
    assert_eq!(starts, [[10, 0, 0, 0], [192, 0, 2, 0]]);
    assert_eq!(goto(&content, "frontends-v4"), ["guarded/pick-v4-1"]);
}

#[test]
fn the_difference_is_what_changed_and_nothing_else() {
    let two = content("type: NodePort", &["10.0.0.1", "10.0.0.2"]);
    assert!(diff(&two, &two).is_nothing());
    let three = content("type: NodePort", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let Change::Update(difference) = diff(&three, &two) else { panic!("no shape has changed") };
    assert_eq!(difference.new_chains, ["node-pick-v4-3", "node-v4/node-pick-v4-3", "pick-v4-3"]);
    assert_eq!(difference.gone_chains, ["node-pick-v4-2", "node-v4/node-pick-v4-2", "pick-v4-2"]);
    assert_eq!(difference.rules, difference.new_chains);
    let elements: Vec<_> =
        difference.elements.iter().map(|(set, gone, new)| (set.as_str(), gone.len(), new.len())).collect();
    assert_eq!(
        elements,
        [
            ("backends-v4", 0, 1),
            ("frontends-v4", 1, 1),
            ("hairpin-v4", 0, 1),
            ("node-backends-v4", 0, 1),
            ("node-ports", 1, 1)
        ]
    );
    assert_eq!((difference.new_sets, difference.gone_sets), (vec![], vec![]));
}

#[test]
fn other_rules_are_written_again_and_another_hook_or_shape_rebuilds() {
    let good = content("", &["10.0.0.1"]);
    let mut actual = good.clone();
    actual.chains.get_mut("services").expect("there").rules.push(Vec::new());
    let wanted = Difference { rules: vec!["services".into()], ..Difference::default() };
    assert_eq!(diff(&good, &actual), Change::Update(wanted));
    let mut actual = good.clone();
    actual.chains.get_mut("output").expect("there").base = None;
    assert_eq!(diff(&good, &actual), Change::Rebuild { exists: true });
    let mut actual = good.clone();
    actual.sets.get_mut("node-ports").expect("there").shape = good.sets["hairpin-v4"].shape;
    assert_eq!(diff(&good, &actual), Change::Rebuild { exists: true });
    let mut actual = good.clone();
    actual.chains.remove("output");
    assert!(matches!(diff(&good, &actual), Change::Update(d) if d.new_chains == ["output"]));
}

#[test]
fn flows_to_gone_backends_are_stale_and_those_of_others_are_not() {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let before = Udp::of(&model("type: NodePort", &["10.0.0.1", "10.0.0.2"]));
    let now = Udp::of(&model("type: NodePort", &["10.0.0.1"]));
    let gone = Udp::default().and_gone(&before);
    let own = |ip| ip == address("192.0.2.1:0").ip();
    for (judge, to, answers, stale) in [
        (&before, "10.96.0.1:53", "10.0.0.2:5353", false),
        (&now, "10.96.0.1:53", "10.0.0.2:5353", true),
        (&now, "10.96.0.1:53", "10.0.0.1:5353", false),
        // Never translated: it is older than the Service.
        (&now, "10.96.0.1:53", "10.96.0.1:53", true),
        (&now, "10.96.0.1:54", "10.96.0.1:54", false),
        (&now, "192.0.2.1:30053", "10.0.0.2:5353", true),
        (&now, "192.0.2.1:30053", "10.0.0.1:5353", false),
        (&now, "192.0.2.1:30053", "192.0.2.1:30053", true),
        // To that port of another machine.
        (&now, "192.0.2.2:30053", "192.0.2.2:30053", false),
        (&now, "10.0.0.1:5353", "10.0.0.1:5353", false),
        // The Service itself is gone.
        (&gone, "10.96.0.1:53", "10.0.0.1:5353", true),
    ] {
        let (to, answers) = (address(to), address(answers));
        assert_eq!(judge.is_stale_between(to, answers, own), stale, "{to} {answers}");
    }
}
