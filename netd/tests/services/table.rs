//! The table itself: restarts, others, sizes.

use std::time::Instant;

use corten_netd::services::nft::KernelTable;

use crate::world::{CLUSTER_IP, World, service, socket, tcp};

#[test]
fn a_restart_changes_nothing() {
    let mut world = World::new();
    world.pod(11);
    let yaml =
        service("type: NodePort\n  sessionAffinity: ClientIP\n  externalTrafficPolicy: Local", &[11, 111]);
    assert!(world.apply(&yaml).rebuilt);
    let before = world.node.sh("nft list ruleset");
    world.kernel = world.node.within(KernelTable::open).expect("nf_tables");
    assert!(!world.apply(&yaml).changed);
    assert_eq!(world.node.sh("nft list ruleset"), before);
    world.node.sh("nft -j list ruleset");
}

#[test]
fn whatever_is_changed_in_the_table_is_put_right_and_nothing_else_is_touched() {
    let mut world = World::new();
    world.pod(11);
    let yaml = service("type: NodePort\n  sessionAffinity: ClientIP", &[11, 111]);
    world.apply(&yaml);
    let good = world.node.sh("nft list table inet corten-services");
    for harm in [
        "nft flush ruleset",
        "nft delete table inet corten-services",
        "nft flush chain inet corten-services prerouting",
        "nft flush chain inet corten-services output; nft add rule inet corten-services output counter accept",
        "nft delete element inet corten-services frontends-v4 { 10.96.0.1 . 6 . 80 }",
        "nft add element inet corten-services cluster-ips-v4 { 10.0.0.1 }",
        "nft add set inet corten-services mine '{ type ipv4_addr; }'",
        "nft add chain inet corten-services mine; nft add rule inet corten-services mine drop",
        "nft flush ruleset; nft add table inet corten-services; nft add set inet corten-services hairpin-v4 '{ type ether_addr; }'",
        "nft flush ruleset; nft add table inet corten-services; nft add chain inet corten-services output '{ type filter hook output priority 5; }'",
        "nft add table inet corten-services '{ flags dormant; }'",
    ] {
        world.node.sh(harm);
        world.kernel.forget();
        assert!(world.apply(&yaml).changed, "{harm}");
        assert_eq!(world.node.sh("nft list table inet corten-services"), good, "{harm}");
    }
    let foreign = "table ip nat { chain prerouting { type nat hook prerouting priority -105; policy accept;
                       ip daddr 192.0.2.1 tcp dport 9 dnat to 10.244.1.11:8080\n }\n }";
    world.node.sh(&format!("nft -f - <<'END'\n{foreign}\nEND"));
    let theirs = world.node.sh("nft list table ip nat");
    world.apply(&service("type: NodePort", &[11]));
    assert_eq!(world.node.sh("nft list table ip nat"), theirs);
    for port in [(crate::world::NODE_IP[0], 9), (CLUSTER_IP[0], 80)] {
        assert_eq!(tcp(&world.client, socket(port.0, port.1)).expect("an answer").0, "pod11");
    }
    world.node.within(|| world.kernel.remove()).expect("removed");
    assert_eq!(world.node.sh("nft list ruleset"), theirs);
}

#[test]
fn among_thousands_of_services_one_change_is_a_few_elements() {
    const SERVICES: u32 = 5000;
    let mut world = World::new();
    world.pod(11);
    let many = |pods: u32| -> String {
        let one = |n: u32| {
            let address = format!("10.97.{}.{}", n / 250, n % 250 + 1);
            let endpoints: Vec<_> =
                (0..pods).map(|p| format!("{{addresses: [10.244.{}.{}]}}", 3 + n % 200, 10 + p)).collect();
            format!(
                "---\nkind: Service\nmetadata: {{name: s{n}, namespace: many}}\nspec: {{clusterIP: {address}, ports: [{{port: 80}}]}}
---\nkind: EndpointSlice\nmetadata: {{name: s{n}, namespace: many, labels: {{kubernetes.io/service-name: s{n}}}}}
addressType: IPv4\nports: [{{name: '', port: 8080}}]\nendpoints: [{}]\n",
                endpoints.join(", ")
            )
        };
        (0..SERVICES).map(one).collect()
    };
    let many = many(5);
    let with = |pods: &[u8]| crate::world::model(&format!("{}{many}", service("", pods)));
    let models = [with(&[11]), with(&[11, 111])];
    let settings = crate::world::settings();
    let World { node, kernel, .. } = &mut world;
    let mut timed = |what: &str, model, forget: bool| {
        node.within(|| {
            if forget {
                kernel.forget();
            }
            let start = Instant::now();
            let content = corten_netd::services::nft::render(model, &settings);
            let rendered = start.elapsed();
            let applied = kernel.apply(content).expect("applied");
            println!(
                "{SERVICES} Services, {what}: {:?} (rendered in {rendered:?}), {} elements",
                start.elapsed(),
                applied.elements
            );
            applied
        })
    };
    let first = timed("all of them", &models[0], false);
    assert!(first.rebuilt && first.elements > 30_000);
    let one = timed("one endpoint more", &models[1], false);
    assert!(!one.rebuilt && one.elements < 20, "{one:?}");
    let read = timed("one endpoint less, the table read first", &models[0], true);
    assert!(!read.rebuilt && read.elements == one.elements, "{read:?}");
    assert!(!timed("nothing, the table read first", &models[0], true).changed);
    assert_eq!(tcp(&world.client, socket(CLUSTER_IP[0], 80)).expect("an answer").0, "pod11");
}
