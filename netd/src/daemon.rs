//! The daemon: a source, the overlay, the fast path and Services wired together, and what they tell.
//!
//! Starting waits for whatever may come (an uplink, etcd, a pod CIDR) and says what it waits for; what a person must
//! mend ends it. Once running nothing ends it but SIGTERM and the loss of this node's place in the network. It leaves
//! the kernel as it is: packets go on without it.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ipnetwork::IpNetwork;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::fastpath;
use crate::http::{Answers, Server};
use crate::metrics::Metrics;
use crate::net_conf::NetConf;
use crate::options::{Fastpath as Wish, Options, ServicesOptions, SourceOptions, node_name};
use crate::overlay::{self, Overlay, Underlay};
use crate::services::model::Place;
use crate::services::nft::Settings;
use crate::services::{self, Services};
use crate::source::etcd::EtcdSource;
use crate::source::file::FileSource;
use crate::source::kube::{self, Keys, KubeSource, Whoami};
use crate::source::{NodeSource, Snapshot, SourceError, read_net_conf};
use crate::status::{NetworkReport, NodesReport, Report};
use crate::subnet_env::{SubnetEnv, replace};
use crate::{conflist, kube_access, notify, subnet_env};

const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(5);
const SERVICES_RESYNC: Duration = Duration::from_secs(30);

/// Runs until `stop`, or until this node has lost its place.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<()> {
    let _lock = lock(&options.state_dir)?;
    let board = Arc::new(Board::default());
    let _socket = Server::unix(&options.state_dir, board.clone())
        .with_context(|| format!("listen in --state-dir {}", options.state_dir.display()))?;
    let _http = match options.http {
        Some(address) => Some(
            Server::tcp(address, board.clone())
                .await
                .with_context(|| format!("listen on {address} (--healthz-ip, --healthz-port)"))?,
        ),
        None => None,
    };
    tokio::select! {
        () = stop => {
            info!("stopping; routes, rules and programs stay");
            Ok(())
        }
        outcome = network(&options, &board) => outcome,
    }
}

/// One daemon a state directory. The lock goes with the process.
fn lock(dir: &Path) -> Result<std::fs::File> {
    std::fs::create_dir_all(dir).with_context(|| format!("make --state-dir {}", dir.display()))?;
    let path = dir.join("lock");
    let file = std::fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!(
                "another corten-netd runs with --state-dir {}; stop it or give another directory",
                dir.display()
            )
        }
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// Everything that makes a network. Ends with an error alone.
async fn network(options: &Options, board: &Arc<Board>) -> Result<()> {
    let source = open_source(options, board).await?;
    let conf = source.net_conf().clone();
    board.with(|facts| {
        facts.source = source.name();
        facts.network = Some((&conf).into());
    });
    info!("nodes from {}", source.name());
    let patience = |what: &str| Patience { board: board.clone(), what: what.to_owned() };

    let remembered = patience("reading this node").source(|| source.remembered()).await?;
    let config = overlay_config(options, &conf);
    let open = || std::future::ready(Overlay::open(config.clone(), remembered));
    let overlay = patience("opening the overlay").retry(open, overlay::OverlayError::is_final).await?;
    let mut underlay = overlay.underlay();
    let announcement = underlay.borrow_and_update().announcement.clone();
    let local = patience("acquiring this node's pod CIDR").source(|| source.acquire(&announcement)).await?;
    let nodes = patience("reading the list of nodes").source(|| source.watch()).await?;
    let fastpath = fastpath::Service::new(fastpath_options(options)).context("open the fast path")?;
    let services = open_services(options, &conf, &local.name).await?;
    board.with(|facts| {
        facts.services = services.as_ref().map(|(services, _)| services.status());
        facts.nodes = Some(nodes.clone());
        facts.fastpath = Some(fastpath.clone());
        facts.overlay = Some(overlay.status());
        facts.waiting = None;
    });

    let mut tasks = JoinSet::new();
    {
        let (conf, nodes, underlay) = (conf.clone(), nodes.clone(), underlay.clone());
        tasks.spawn(async move {
            fastpath.follow(conf, nodes, underlay).await?;
            // The overlay has ended and says why.
            std::future::pending().await
        });
    }
    if let Some((services, objects)) = services {
        tasks.spawn(async move {
            services.run(objects).await?;
            bail!("the source of Services has ended")
        });
    }
    let files = Files {
        subnet_env: options.subnet_file.clone(),
        conflist: options.cni_conf_dir.as_ref().map(|dir| dir.join(conflist::NAME)),
        bridge: options.bridge.clone(),
        ip_masq: options.ip_masq,
        conf,
    };
    let readiness = Readiness {
        files,
        board: board.clone(),
        nodes: nodes.clone(),
        underlay: underlay.clone(),
        overlay: overlay.status(),
        source: source.clone(),
    };
    tasks.spawn(readiness.run());
    tasks.spawn(announce(source.clone(), underlay, board.clone()));
    tasks.spawn(async move {
        overlay.run(nodes).await.context("overlay")?;
        bail!(
            "this node has lost its place in the network (its lease was revoked); start again for a new one"
        )
    });
    match tasks.join_next().await {
        Some(Ok(outcome)) => outcome,
        Some(Err(panic)) => Err(panic).context("a part of the daemon broke"),
        None => Ok(()),
    }
}

async fn open_source(options: &Options, board: &Arc<Board>) -> Result<Arc<dyn NodeSource>> {
    match &options.source {
        SourceOptions::File { list } => {
            let conf = read_net_conf(&options.net_conf)?;
            let name = own_name(options);
            let list = std::path::absolute(list).context("--node-list")?;
            board.with(|facts| facts.source = format!("node list {}", list.display()));
            Ok(Arc::new(FileSource::new(&list, &name, conf)))
        }
        SourceOptions::Etcd(etcd) => {
            board.with(|facts| facts.source = EtcdSource::describe(etcd));
            let previous = subnet_env::previous(&options.subnet_file);
            let patience = Patience { board: board.clone(), what: "opening etcd".into() };
            Ok(Arc::new(patience.source(|| EtcdSource::connect(etcd, previous)).await?))
        }
        SourceOptions::Kube { annotation_prefix, set_condition } => {
            let conf = read_net_conf(&options.net_conf)?;
            let client = kube_access::connect(&options.kube).await?;
            let keys = Keys::new(annotation_prefix)?;
            board.with(|facts| facts.source = String::from("Kubernetes"));
            let whoami = Whoami::from_env(options.node_name.as_deref(), |name| std::env::var(name).ok());
            let patience =
                Patience { board: board.clone(), what: "asking Kubernetes which node this is".into() };
            let node = patience.source(|| kube::which_node(&client, &whoami)).await?;
            Ok(Arc::new(KubeSource::new(client, &node, keys, conf, *set_condition)))
        }
    }
}

fn overlay_config(options: &Options, conf: &NetConf) -> overlay::Config {
    overlay::Config {
        net_conf: conf.clone(),
        uplink: options.uplink.clone(),
        ip_masq: options.ip_masq,
        masq_fully_random: options.masq_fully_random,
        forward_rules: options.forward_rules,
        blackhole_route: options.blackhole_route,
        resync: options.resync,
    }
}

fn fastpath_options(options: &Options) -> fastpath::Options {
    fastpath::Options {
        wish: options.fastpath,
        directory: options.bpf_dir.join("tc"),
        bridge: options.bridge.clone(),
        zero_checksum_v6: options.fastpath_ipv6_vxlan,
    }
}

/// `None`: they are off, and what an earlier daemon left of them is taken away.
async fn open_services(
    options: &Options,
    conf: &NetConf,
    node: &str,
) -> Result<Option<(Services, watch::Receiver<services::source::Snapshot>)>> {
    let pins = options.bpf_dir.join("sockets");
    let place = || Place {
        // etcd knows nodes by their addresses, EndpointSlices by their names.
        node: match options.source {
            SourceOptions::Etcd(_) => own_name(options),
            SourceOptions::File { .. } | SourceOptions::Kube { .. } => node.to_owned(),
        },
        zone: None,
    };
    let objects = match &options.services {
        ServicesOptions::Off => {
            if let Err(error) = services::remove(&pins) {
                warn!("cannot take away what an earlier daemon left: {error}");
            }
            return Ok(None);
        }
        ServicesOptions::File(path) => services::source::file::watch(path, place()),
        ServicesOptions::Kube => {
            services::source::kube::watch(kube_access::connect(&options.kube).await?, place())
        }
    };
    let sockets = match options.fastpath {
        Wish::Off => {
            if let Err(error) = corten_ebpf::socket::remove(&pins) {
                warn!("cannot take away what an earlier daemon left: {error}");
            }
            Err("--fastpath is off".to_owned())
        }
        Wish::Auto | Wish::On => options
            .cgroup
            .clone()
            .map_or_else(cgroup_v2, Ok)
            .map(|cgroup| corten_ebpf::socket::Options { pin_directory: pins, cgroup }),
    };
    let networks = [conf.networks.v4.map(IpNetwork::V4), conf.networks.v6.map(IpNetwork::V6)];
    let settings = Settings { pod_networks: networks.into_iter().flatten().collect() };
    let config = services::Config { settings, sockets, resync: SERVICES_RESYNC };
    Ok(Some((Services::open(config)?, objects)))
}

/// Where the machine's cgroup v2 is mounted.
fn cgroup_v2() -> Result<PathBuf, String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")
        .map_err(|error| format!("/proc/self/mounts: {error}"))?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    found.ok_or_else(|| "no cgroup v2 is mounted; mount one, or say with --cgroup where it is".to_owned())
}

/// What this node is called where nobody else says it.
fn own_name(options: &Options) -> String {
    node_name(
        options.node_name.as_deref(),
        std::env::var_os("NODE_NAME").as_deref(),
        &rustix::system::uname().nodename().to_string_lossy(),
    )
}

/// Tells the source when this node's address changes.
async fn announce(
    source: Arc<dyn NodeSource>,
    mut underlay: watch::Receiver<Underlay>,
    board: Arc<Board>,
) -> Result<()> {
    let mut last = underlay.borrow_and_update().announcement.clone();
    while underlay.changed().await.is_ok() {
        let announcement = underlay.borrow_and_update().announcement.clone();
        if announcement == last {
            continue;
        }
        info!(public = ?announcement.public_ips, "this node's address changed");
        let patience = Patience { board: board.clone(), what: "announcing this node's new address".into() };
        // Nothing that a source says now may end a network that runs.
        patience.retry(|| source.acquire(&announcement), |_| false).await?;
        board.with(|facts| facts.waiting = None);
        last = announcement;
    }
    // The overlay has ended and says why.
    std::future::pending().await
}

/// Tries until it works or can never work.
struct Patience {
    board: Arc<Board>,
    what: String,
}

impl Patience {
    async fn source<T, F>(self, attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        self.retry(attempt, SourceError::is_final).await
    }

    /// Says once what it waits for, and again when that changes.
    async fn retry<T, E, F>(self, mut attempt: impl FnMut() -> F, is_final: fn(&E) -> bool) -> Result<T>
    where
        E: Display + std::error::Error + Send + Sync + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut pause = RETRY_FIRST;
        let mut said = String::new();
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) if is_final(&error) => return Err(error).context(self.what),
                Err(error) => {
                    let why = format!("{}: {error}", self.what);
                    if why != said {
                        warn!("{why}; trying again");
                        said.clone_from(&why);
                    }
                    self.board.with(|facts| facts.waiting = Some(why));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    }
}

/// What is written for CNI once the overlay stands.
struct Files {
    subnet_env: PathBuf,
    conflist: Option<PathBuf>,
    bridge: String,
    ip_masq: bool,
    conf: NetConf,
}

impl Files {
    fn write(&self, snapshot: &Snapshot, underlay: &Underlay) -> Result<()> {
        let env = SubnetEnv {
            networks: self.conf.networks,
            pod_cidrs: snapshot.local.pod_cidrs,
            mtu: underlay.pod_mtu,
            ip_masq: self.ip_masq,
        };
        let wrote = env
            .write(&self.subnet_env)
            .with_context(|| format!("write --subnet-file {}", self.subnet_env.display()))?;
        if wrote {
            info!(file = %self.subnet_env.display(), mtu = env.mtu, "wrote subnet.env");
        }
        if let Some(file) = &self.conflist {
            replace(file, &conflist::text(&self.subnet_env, &self.bridge))
                .with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }
}

/// Keeps subnet.env true, and says when pods can talk: rules first, then the file, then everybody is told.
struct Readiness {
    files: Files,
    board: Arc<Board>,
    nodes: watch::Receiver<Snapshot>,
    underlay: watch::Receiver<Underlay>,
    overlay: watch::Receiver<overlay::Status>,
    source: Arc<dyn NodeSource>,
}

impl Readiness {
    async fn run(mut self) -> Result<()> {
        if self.overlay.wait_for(|status| status.ready).await.is_err() {
            return std::future::pending().await;
        }
        let mut told = false;
        let mut said = String::new();
        loop {
            let written =
                self.files.write(&self.nodes.borrow_and_update(), &self.underlay.borrow_and_update());
            let retry = written.is_err();
            match written {
                Ok(()) if !told => {
                    told = true;
                    self.tell();
                }
                Ok(()) => {
                    said.clear();
                    self.board.with(|facts| facts.files = None);
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    if why != said {
                        warn!("{why}");
                        said.clone_from(&why);
                    }
                    self.board.with(|facts| facts.files = Some(why));
                }
            }
            tokio::select! {
                changed = self.nodes.changed() => if changed.is_err() { break },
                changed = self.underlay.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(RETRY_LAST), if retry => {}
            }
        }
        // The overlay has ended and says why.
        std::future::pending().await
    }

    fn tell(&self) {
        self.board.with(|facts| (facts.ready, facts.files) = (true, None));
        info!("ready");
        if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
            && let Err(error) = notify::notify(&socket, "READY=1")
        {
            warn!("cannot tell the service manager at {}: {error}", socket.to_string_lossy());
        }
        let (source, board) = (self.source.clone(), self.board.clone());
        tokio::spawn(async move {
            let mut pause = RETRY_FIRST;
            let mut said = String::new();
            while let Err(error) = source.network_is_up().await {
                let why = error.to_string();
                if why != said {
                    warn!("{why}; trying again");
                    said.clone_from(&why);
                }
                board.with(|facts| facts.network_up = Some(why));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
            board.with(|facts| facts.network_up = None);
        });
    }
}

/// What the parts have told so far; answers whoever asks.
#[derive(Default)]
struct Board {
    facts: Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    source: String,
    network: Option<NetworkReport>,
    waiting: Option<String>,
    ready: bool,
    /// What keeps subnet.env from being written.
    files: Option<String>,
    /// What keeps the source from being told that the network is up.
    network_up: Option<String>,
    nodes: Option<watch::Receiver<Snapshot>>,
    overlay: Option<watch::Receiver<overlay::Status>>,
    fastpath: Option<fastpath::Service>,
    services: Option<watch::Receiver<services::Status>>,
}

impl Board {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts());
    }

    fn report(&self) -> Report {
        let facts = self.facts();
        let nodes = facts.nodes.as_ref().map(|nodes| NodesReport::from(&*nodes.borrow()));
        let overlay = facts.overlay.as_ref().map(|status| status.borrow().clone());
        let fastpath = facts.fastpath.as_ref().map(fastpath::Service::report);
        let services = facts.services.as_ref().map(|status| status.borrow().clone());
        let mut problems: Vec<String> = Vec::new();
        problems.extend(nodes.iter().filter_map(|nodes| nodes.fault.clone()));
        problems.extend(
            nodes.iter().flat_map(|nodes| &nodes.left_out).map(|left| format!("{}: {}", left.node, left.why)),
        );
        problems.extend(overlay.iter().flat_map(overlay::Status::problems));
        problems.extend(services.iter().flat_map(services::Status::problems));
        problems.extend([&facts.files, &facts.network_up].into_iter().flatten().cloned());
        let waiting = facts.waiting.clone().or_else(|| {
            let making = facts.nodes.is_some() && !facts.ready;
            making.then(|| "making routes and rules".to_owned())
        });
        Report {
            version: env!("CARGO_PKG_VERSION"),
            source: facts.source.clone(),
            ready: facts.ready,
            waiting,
            network: facts.network.clone(),
            nodes,
            overlay,
            fastpath,
            services,
            problems,
        }
    }
}

impl Answers for Board {
    fn ready(&self) -> Result<(), String> {
        let report = self.report();
        if report.ready {
            return Ok(());
        }
        let why: Vec<String> = report.waiting.into_iter().chain(report.problems).collect();
        Err(why.join("; "))
    }

    fn metrics(&self, metrics: &mut Metrics) {
        self.report().metrics(metrics);
    }

    fn status_text(&self) -> String {
        self.report().text()
    }

    fn status_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.report()).expect("a report is JSON")
    }

    fn drops(&self, json: bool) -> Result<mpsc::Receiver<Bytes>, String> {
        let fastpath = self.facts().fastpath.clone();
        let fastpath = fastpath.ok_or("the daemon still waits for its network; there is no fast path yet")?;
        let status = fastpath.report().status;
        if status.on {
            Ok(fastpath.drops(json))
        } else {
            Err(format!("the fast path is off: {}", status.why.join("; ")))
        }
    }
}
