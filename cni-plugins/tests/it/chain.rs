//! The chains that flannel, podman and nerdctl write, as libcni runs them: ADD in order, each with the result of the
//! one before; DEL in reverse.

use std::fs;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::world::{Host, Maker, Outcome, Pod, ask, with};

/// A list of configurations of one network.
struct Chain<'a> {
    host: &'a Host,
    plugins: Vec<Value>,
}

impl<'a> Chain<'a> {
    /// 10-flannel.conflist with tuning and firewall behind.
    fn flannel(host: &'a Host, version: &str) -> Self {
        let subnet = host.dir.path().join("subnet.env");
        let text = "FLANNEL_NETWORK=10.22.0.0/16\nFLANNEL_SUBNET=10.22.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        fs::write(&subnet, text).expect("written");
        let plugins = [
            json!({
                "type": "flannel", "subnetFile": subnet, "dataDir": host.records(), "ipam": {"dataDir": host.data()},
                "delegate": {"hairpinMode": true, "isDefaultGateway": true},
            }),
            portmap(),
            tuning(host),
            json!({"type": "firewall"}),
        ];
        Self::new(host, version, plugins)
    }

    /// As podman (`podman network create`) and nerdctl write it.
    fn bridge(host: &'a Host, version: &str) -> Self {
        let plugins = [
            json!({
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": host.data(), "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": "10.22.7.0/24", "gateway": "10.22.7.1"}]],
                },
            }),
            portmap(),
            json!({"type": "firewall", "backend": "", "ingressPolicy": "same-bridge"}),
            tuning(host),
        ];
        Self::new(host, version, plugins)
    }

    fn new(host: &'a Host, version: &str, plugins: [Value; 4]) -> Self {
        let named = |mut plugin: Value| {
            plugin["cniVersion"] = version.into();
            plugin["name"] = "net".into();
            plugin
        };
        Self { host, plugins: plugins.into_iter().map(named).collect() }
    }

    fn kind(config: &Value) -> &str {
        config["type"].as_str().expect("text")
    }

    /// The first `count` plugins; the result of the last.
    fn add_some(&self, pod: &Pod, count: usize) -> Option<Value> {
        self.plugins[..count].iter().fold(None, |result, config| {
            Some(self.host.call(Self::kind(config), "ADD", pod, &with_result(config, result.as_ref())).ok())
        })
    }

    fn add(&self, pod: &Pod) -> Value {
        self.add_some(pod, self.plugins.len()).expect("a result")
    }

    fn check(&self, pod: &Pod, result: &Value) {
        for config in &self.plugins {
            self.host
                .call(Self::kind(config), "CHECK", pod, &with(config, "prevResult", result.clone()))
                .ok();
        }
    }

    fn del(&self, pod: &Pod, result: Option<&Value>, netns: Option<&str>) {
        let environment: Vec<_> = netns.map(|netns| ("CNI_NETNS", netns)).into_iter().collect();
        for config in self.plugins.iter().rev() {
            let config = with_result(config, result);
            self.host.call_of(Maker::Corten, Self::kind(&config), "DEL", pod, &config, &environment).ok();
        }
    }

    fn gc(&self, pod: &Pod) {
        for config in &self.plugins {
            let config = with(config, "cni.dev/valid-attachments", json!([]));
            self.host.call(Self::kind(&config), "GC", pod, &config).ok();
        }
    }
}

fn portmap() -> Value {
    let mapping = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    json!({"type": "portmap", "runtimeConfig": {"portMappings": mapping}})
}

fn tuning(host: &Host) -> Value {
    json!({
        "type": "tuning", "dataDir": host.backups(), "runtimeConfig": {"mac": "02:aa:00:00:00:01"},
        "sysctl": {"net.core.somaxconn": "500"},
    })
}

fn with_result(config: &Value, result: Option<&Value>) -> Value {
    result.map_or_else(|| config.clone(), |result| with(config, "prevResult", result.clone()))
}

fn chains<'a>(host: &'a Host, version: &str) -> [Chain<'a>; 2] {
    [Chain::flannel(host, version), Chain::bridge(host, version)]
}

/// So that firewall has something to do.
fn forward_drops() {
    let _ = Command::new("iptables").args(["-P", "FORWARD", "DROP"]).status();
}

#[test]
fn the_usual_chains_work_in_every_version() {
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        for index in 0..2 {
            let host = Host::new();
            forward_drops();
            let neighbour = host.neighbour();
            neighbour.serve(80);
            let chain = &chains(&host, version)[index];
            let pod = host.pod("pod-1");
            let result = chain.add(&pod);
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["interfaces"][2]["mac"], "02:aa:00:00:00:01");
            assert_eq!(pod.run(|| ask("192.0.2.2:80")).expect("to the outside"), "192.0.2.1");
            pod.serve(80);
            ask("127.0.0.1:8080").expect("by the mapped port");
            if version >= "0.4" {
                chain.check(&pod, &result);
            }
            for _ in 0..2 {
                chain.del(&pod, Some(&result), None);
                assert_eq!(host.traces(), [] as [&str; 0], "{version}, chain {index}");
            }
        }
    }
}

/// Kills each plugin of the chain after parts of its time; then DEL without prevResult (there is none yet), with the
/// namespace there and not, or GC.
#[test]
fn del_or_gc_after_any_plugin_was_killed_leaves_nothing() {
    let mut killed = 0;
    for index in 0..2 {
        let host = Host::new();
        forward_drops();
        let chain = &chains(&host, "1.1.0")[index];
        let pod = host.pod("measure");
        chain.del(&pod, Some(&chain.add(&pod)), None);
        for position in 0..4 {
            for step in 0..9_u32 {
                let pod = host.pod(&format!("pod-{position}-{step}"));
                let before = chain.add_some(&pod, position);
                let config = with_result(&chain.plugins[position], before.as_ref());
                let start = Instant::now();
                let mut child = host.spawn(Maker::Corten, Chain::kind(&config), "ADD", &pod, &config, &[]);
                let spawned = start.elapsed();
                std::thread::sleep(spawned * step / 2);
                child.kill().expect("killed");
                killed += u32::from(Outcome::of(child).code.is_none());
                match step % 3 {
                    0 => chain.del(&pod, None, None),
                    1 => {
                        chain.del(&pod, None, Some(""));
                        // Nobody but the kernel can find the link now.
                        drop(pod);
                    }
                    _ => {
                        let stand_in = host.pod("nobody");
                        drop(pod);
                        chain.gc(&stand_in);
                    }
                }
                host.wait_for_no_traces();
            }
        }
    }
    assert!(killed > 20, "only {killed} were killed in the middle");
}

#[test]
fn parallel_chains_do_not_disturb_each_other() {
    let host = Host::new();
    forward_drops();
    let chain = Chain::flannel(&host, "1.1.0");
    let pods: Vec<Pod> = (0..24).map(|i| host.pod(&format!("pod-{i}"))).collect();
    let mut results: Vec<Option<Value>> = pods.iter().map(|_| None).collect();
    let one_port = |config: &Value, index: usize| {
        let mut config = config.clone();
        if Chain::kind(&config) == "portmap" {
            config["runtimeConfig"]["portMappings"][0]["hostPort"] = (9000 + index).into();
        }
        config
    };
    let all = |verb: &str, config: &Value, results: &[Option<Value>]| -> Vec<Value> {
        let spawn = |(index, pod): (usize, &Pod)| {
            let config = with_result(&one_port(config, index), results[index].as_ref());
            host.spawn(Maker::Corten, Chain::kind(&config), verb, pod, &config, &[])
        };
        let children: Vec<_> = pods.iter().enumerate().map(spawn).collect();
        children.into_iter().map(|child| Outcome::of(child).ok()).collect()
    };
    for config in &chain.plugins {
        results = all("ADD", config, &results).into_iter().map(Some).collect();
    }
    for config in &chain.plugins {
        all("CHECK", config, &results);
    }
    for config in chain.plugins.iter().rev() {
        all("DEL", config, &results);
    }
    assert_eq!(host.traces(), [] as [&str; 0]);
}
