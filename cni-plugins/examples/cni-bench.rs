//! Measures plugins for `cargo xtask bench cni`: ours, Debian's Go plugins, and the kernel's share of the work.
//!
//! `cni-bench PROGRAM ROUNDS`: prints rows of samples as JSON. All in a network namespace of its own. The contenders
//! take turns; a plugin's time is its whole process, the floor's is our own netlink calls without any process.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use corten_netlink::route::{LinkChange, Peer, Route, Veth, encode};
use corten_netlink::{Cidr, Protocol, Socket};
use corten_sys::netns::NetNs;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

const DEBIAN: &str = "/usr/lib/cni";
const OURS: &str = "corten-cni";
const THEIRS: &str = "containernetworking-plugins";
const FLOOR: &str = "the kernel alone";
const PAUSE: Duration = Duration::from_millis(40);
const CHAIN: Chain = Chain {
    first: "bridge",
    add: "chain ADD: bridge (ipMasq), portmap, tuning, firewall",
    del: "chain DEL: bridge (ipMasq), portmap, tuning, firewall",
};
const FLANNEL_CHAIN: Chain = Chain {
    first: "flannel",
    add: "chain ADD: flannel (ipMasq), portmap, tuning, firewall",
    del: "chain DEL: flannel (ipMasq), portmap, tuning, firewall",
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Microseconds by operation and contender.
#[derive(Default)]
struct Samples(Vec<(&'static str, BTreeMap<&'static str, Vec<f64>>)>);

impl Samples {
    fn put(&mut self, what: &'static str, who: &'static str, micros: f64) {
        let index = self.0.iter().position(|(name, _)| *name == what).unwrap_or_else(|| {
            self.0.push((what, BTreeMap::new()));
            self.0.len() - 1
        });
        self.0[index].1.entry(who).or_default().push(micros);
    }

    /// Ours first, as reports want it.
    fn rows(&self) -> Vec<Value> {
        let row = |(what, by): &(&str, BTreeMap<&str, Vec<f64>>)| {
            let samples = [OURS, THEIRS, FLOOR]
                .iter()
                .filter_map(|who| by.get(who).map(|values| json!({"name": who, "values": values})));
            json!({"what": what, "unit": "micros", "samples": samples.collect::<Vec<_>>()})
        };
        self.0.iter().map(row).collect()
    }
}

/// A network of several plugins.
#[derive(Clone, Copy)]
struct Chain {
    first: &'static str,
    add: &'static str,
    del: &'static str,
}

struct Bench {
    program: String,
    data: tempfile::TempDir,
    samples: Samples,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, program, rounds] = &arguments[..] else { return Err("usage: cni-bench PROGRAM ROUNDS".into()) };
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut bench =
        Bench { program: program.clone(), data: tempfile::tempdir()?, samples: Samples::default() };
    let peer = Path::new(DEBIAN).join("bridge").exists();
    let mut notes = Vec::new();
    if !peer {
        notes.push(format!("{THEIRS} is not in {DEBIAN}: `cargo xtask packages` installs it"));
    }
    notes.push("Debian's plugins masquerade and map ports with iptables; ours with nf_tables.".to_owned());
    // So that firewall has the same to do for both: without the chain ours would have nothing.
    for program in ["iptables", "ip6tables"] {
        Command::new(program).args(["-P", "FORWARD", "ACCEPT"]).status()?;
    }
    for round in 0..rounds.parse::<u32>()? {
        bench.attachment(OURS, round)?;
        if peer {
            bench.attachment(THEIRS, round)?;
            bench.chain(CHAIN, THEIRS, round)?;
        }
        bench.chain(CHAIN, OURS, round)?;
        bench.chain(FLANNEL_CHAIN, OURS, round)?;
        bench.floor(round)?;
    }
    println!("{}", json!({"rows": bench.samples.rows(), "notes": notes}));
    Ok(())
}

impl Bench {
    /// One container's life with one contender.
    fn attachment(&mut self, who: &'static str, round: u32) -> Outcome<()> {
        let netns = fresh_netns()?;
        let id = format!("pod-{round}");
        let plain = self.network(who, false);
        let masq = self.network(who, true);
        self.time("process start (VERSION)", who, "bridge", "VERSION", &id, &netns, &plain)?;
        self.time("host-local ADD", who, "host-local", "ADD", &id, &netns, &plain)?;
        self.time("host-local DEL", who, "host-local", "DEL", &id, &netns, &plain)?;
        self.time("bridge ADD", who, "bridge", "ADD", &id, &netns, &plain)?;
        self.time("bridge DEL", who, "bridge", "DEL", &id, &netns, &plain)?;
        let result = self.time("bridge ADD, ipMasq", who, "bridge", "ADD", &id, &netns, &masq)?;
        let portmap = json!({
            "cniVersion": "1.0.0", "name": "ports", "type": "portmap", "prevResult": result,
            "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
        });
        self.time("portmap ADD", who, "portmap", "ADD", &id, &netns, &portmap)?;
        self.time("portmap DEL", who, "portmap", "DEL", &id, &netns, &portmap)?;
        let tuning = json!({
            "cniVersion": "1.0.0", "name": "tuned", "type": "tuning", "prevResult": result,
            "dataDir": self.data.path().join("tuning"), "mac": "02:aa:00:00:00:01",
            "sysctl": {"net.core.somaxconn": "500"}
        });
        self.time("tuning ADD", who, "tuning", "ADD", &id, &netns, &tuning)?;
        self.time("tuning DEL", who, "tuning", "DEL", &id, &netns, &tuning)?;
        let firewall = json!({
            "cniVersion": "1.0.0", "name": "walled", "type": "firewall", "prevResult": result,
        });
        self.time("firewall ADD", who, "firewall", "ADD", &id, &netns, &firewall)?;
        self.time("firewall DEL", who, "firewall", "DEL", &id, &netns, &firewall)?;
        self.time("bridge DEL, ipMasq", who, "bridge", "DEL", &id, &netns, &masq)?;
        if who == OURS {
            self.time("bridge ADD, ipMasq", who, "bridge", "ADD", &id, &netns, &masq)?;
            self.time("bridge DEL, ipMasq, doomed", who, "bridge", "DEL", &id, &netns, &masq)?;
        }
        Ok(())
    }

    /// A container's life in a network of four plugins; each sum is of four processes.
    fn chain(&mut self, chain: Chain, who: &'static str, round: u32) -> Outcome<()> {
        // What the kernel still frees of the contender before is not this one's work.
        std::thread::sleep(PAUSE);
        let netns = fresh_netns()?;
        let id = format!("chain-{round}");
        let mut configs = vec![
            if chain.first == "flannel" { self.flannel()? } else { self.network(who, true) },
            json!({
                "type": "portmap", "runtimeConfig": {
                    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
                }
            }),
            json!({
                "type": "tuning", "dataDir": self.data.path().join("tuning"), "mac": "02:aa:00:00:00:01",
                "sysctl": {"net.core.somaxconn": "500"}
            }),
            json!({"type": "firewall"}),
        ];
        let name = configs[0]["name"].clone();
        let mut sum = 0.0;
        for config in &mut configs {
            config["cniVersion"] = "1.0.0".into();
            config["name"] = name.clone();
        }
        let mut result = None;
        for config in &mut configs {
            if let Some(result) = result.take() {
                config["prevResult"] = result;
            }
            let plugin = config["type"].as_str().unwrap_or_default().to_owned();
            let (said, micros) = self.call(who, &plugin, "ADD", &id, &netns, config, false)?;
            result = Some(said);
            sum += micros;
        }
        self.samples.put(chain.add, who, sum);
        sum = 0.0;
        for config in configs.iter_mut().rev() {
            config["prevResult"] = result.clone().unwrap_or_default();
            let plugin = config["type"].as_str().unwrap_or_default().to_owned();
            sum += self.call(who, &plugin, "DEL", &id, &netns, config, false)?.1;
        }
        self.samples.put(chain.del, who, sum);
        Ok(())
    }

    fn flannel(&self) -> Outcome<Value> {
        let subnet = self.data.path().join("subnet.env");
        let text = "FLANNEL_NETWORK=10.91.0.0/16\nFLANNEL_SUBNET=10.91.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        std::fs::write(&subnet, text)?;
        Ok(json!({
            "name": "flannel0", "type": "flannel", "subnetFile": subnet,
            "dataDir": self.data.path().join("flannel"), "ipam": {"dataDir": self.data.path()},
            "delegate": {"bridge": "flannel0", "isDefaultGateway": true, "hairpinMode": true},
        }))
    }

    fn network(&self, who: &str, masquerade: bool) -> Value {
        let (bridge, subnet) =
            if who == OURS { ("ours0", "10.88.0.0/16") } else { ("theirs0", "10.89.0.0/16") };
        json!({
            "cniVersion": "1.0.0", "name": bridge, "type": "bridge", "bridge": bridge, "isGateway": true,
            "ipMasq": masquerade,
            "ipam": {
                "type": "host-local", "dataDir": self.data.path(), "subnet": subnet, "routes": [{"dst": "0.0.0.0/0"}]
            }
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one call of a plugin is that many things")]
    fn time(
        &mut self,
        what: &'static str,
        who: &'static str,
        plugin: &str,
        verb: &str,
        id: &str,
        netns: &File,
        config: &Value,
    ) -> Outcome<Value> {
        let (result, micros) = self.call(who, plugin, verb, id, netns, config, what.ends_with("doomed"))?;
        self.samples.put(what, who, micros);
        Ok(result)
    }

    /// The result and the microseconds of one process.
    #[expect(clippy::too_many_arguments, reason = "one call of a plugin is that many things")]
    fn call(
        &self,
        who: &str,
        plugin: &str,
        verb: &str,
        id: &str,
        netns: &File,
        config: &Value,
        doomed: bool,
    ) -> Outcome<(Value, f64)> {
        let mut command = if who == OURS {
            let mut command = Command::new(&self.program);
            command.arg(plugin);
            command
        } else {
            Command::new(Path::new(DEBIAN).join(plugin))
        };
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd()))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", DEBIAN)
            .env("CORTEN_NETNS_DOOMED", if doomed { "1" } else { "" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn()?;
        // VERSION does not read it: a closed pipe is fine.
        let _ = child.stdin.take().ok_or("no stdin")?.write_all(config.to_string().as_bytes());
        let output = child.wait_with_output()?;
        let micros = start.elapsed().as_secs_f64() * 1e6;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            return Err(format!("{who} {plugin} {verb}: {said}").into());
        }
        Ok((serde_json::from_slice(&output.stdout).unwrap_or_default(), micros))
    }

    /// What a bridge ADD and DEL ask of the kernel, in as few calls as it takes.
    fn floor(&mut self, round: u32) -> Outcome<()> {
        let mut host = Socket::open(Protocol::Route)?;
        if host.link("floor0")?.is_none() {
            host.transact(vec![encode::create_bridge("floor0", 0)])?;
        }
        let bridge = host.link("floor0")?.ok_or("no bridge")?;
        let file = fresh_netns()?;
        let name = format!("floor-{round}");
        let start = Instant::now();
        let netns = NetNs::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let mut inside = netns.run(|| Socket::open(Protocol::Route))??;
        let peer = Peer { name: "eth0", netns: netns.as_fd(), mac: None };
        let veth = Veth { name: &name, master: Some(bridge.index), mtu: 0, peer };
        host.transact(vec![encode::create_veth(&veth)])?;
        let eth0 = inside.link("eth0")?.ok_or("no eth0")?.index;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let address: Cidr = "10.90.0.2/16".parse()?;
        let route = Route {
            gateway: Some("10.90.0.1".parse()?),
            link: Some(eth0),
            ..Route::to("0.0.0.0/0".parse()?)
        };
        inside.transact(vec![
            encode::add_address(eth0, address),
            encode::set_link(eth0, &up),
            encode::add_route(&route),
        ])?;
        self.samples.put("bridge ADD", FLOOR, start.elapsed().as_secs_f64() * 1e6);
        let start = Instant::now();
        inside.transact(vec![encode::delete_link(eth0)])?;
        self.samples.put("bridge DEL", FLOOR, start.elapsed().as_secs_f64() * 1e6);
        Ok(())
    }
}

/// A new network namespace, reached as a descriptor of this process.
fn fresh_netns() -> Outcome<File> {
    let own = NetNs::current()?;
    own.run(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(File::open("/proc/thread-self/ns/net")?)
    })?
}
