//! The server as a process: what is started in which order, and how it ends.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use bytes::Bytes;
use corten_store::{Config, Embedded, EtcdStore, RedbOptions, Store, keep_compacted};
use ipnetwork::IpNetwork;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::admission::{self, Chain};
use crate::api::Api;
use crate::audit::Audit;
use crate::auth::authn::RequestHeaderConfig;
use crate::auth::bootstrap::{self, Wish};
use crate::auth::lookup::Lookup;
use crate::auth::tokens::TokenConfig;
use crate::auth::{Auth, AuthConfig};
use crate::connect::Kubelets;
use crate::controllers::system::{self, Kubernetes};
use crate::controllers::{self, client};
use crate::crd::controller::Definitions;
use crate::http::{self, Limits, tls};
use crate::kinds::services;
use crate::kinds::validate::ip::Network;
use crate::options::run::{FrontProxy, Tokens};
use crate::options::{Options, Storage};
use crate::pki::{self, Settings};
use crate::registry::Registry;
use crate::snapshot::Giver;

/// Serves until `stop`; everything is ended then.
///
/// # Errors
/// What keeps it from serving: files, the store, the port.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<()> {
    let began = Instant::now();
    directory(&options.data_dir)?;
    let advertise = options.advertise.unwrap_or_else(default_route);
    let opened = Opened::open(&options).await?;
    let store = Arc::clone(&opened.store);
    // The port is taken before files are written: a second server on it leaves no trace.
    let listener = listen(options.bind)?;
    let address = listener.local_addr()?;
    if !options.foreign_pki {
        certificates(&options, advertise, address.port())?;
    }
    let snapshots = Giver::start(&options.data_dir, Arc::clone(&store))?;
    let compacted = options.compaction.map(|keep| {
        let store: std::sync::Weak<dyn Store> = Arc::downgrade(&store);
        tokio::spawn(async move {
            if let Err(error) = keep_compacted(store, keep).await {
                tracing::error!("history is not compacted any more: {error}");
            }
        })
    });
    let advertised = SocketAddr::new(advertise, address.port()).to_string();
    let api = api(&options, Arc::clone(&store), advertised).await?;
    let (definitions, revision) = Definitions::load(&api).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(definitions.run(revision, client(&api, "apiextensions")));
    let own = client(&api, "kube-apiserver");
    let kubernetes = Kubernetes {
        store: Arc::clone(&store),
        prefix: options.prefix.clone(),
        service: options.kubernetes_service(),
        advertise,
        port: address.port(),
        node_port: options.service_node_port,
    };
    let wish =
        Wish { rbac: options.authorization.iter().any(|mode| mode == "RBAC"), kubeadm: !options.foreign_pki };
    let hook = api.health.hook("poststarthook/rbac/bootstrap-roles");
    tasks.spawn(begin(Arc::clone(&api), wish, hook));
    // Whoever connects finds them.
    system::namespaces(&own).await.context("make the namespaces of the system")?;
    let keep_endpoints = options.keep_endpoints;
    if keep_endpoints {
        tasks.spawn(kubernetes.clone().run(own.clone()));
    }
    let controllers =
        controllers::start(&api, options.controllers, fs::read_to_string(&options.client_ca).ok());
    let tls = tls::config(certificate(&options)?, Vec::new())?;
    let listener = TcpListener::from_std(listener)?;
    tracing::info!(%address, after_ms = began.elapsed().as_millis() as u64, "serving");
    let limits = Limits { grace: options.shutdown_grace, ..Limits::default() };
    let delay = options.shutdown_delay;
    let ending = Arc::clone(&api);
    let stopping = async move {
        stop.await;
        tracing::info!("stopping");
        ending.health.drain();
        tokio::time::sleep(delay).await;
        // Nobody is sent here any more; then what runs inside ends, before what it talks to.
        drop(tasks);
        drop(controllers);
        if keep_endpoints {
            kubernetes.leave(&own).await;
        }
    };
    http::serve(Arc::clone(&api), listener, Some(tls), limits, stopping).await;
    if let Some(task) = compacted {
        task.abort();
    }
    drop((snapshots, api, store));
    opened.close().await?;
    tracing::info!("stopped");
    Ok(())
}

async fn api(options: &Options, store: Arc<dyn Store>, advertised: String) -> Result<Arc<Api>> {
    let mut api = Api::new(store, Registry::built_in_below(&options.prefix));
    let auth = Arc::new(Auth::start(who(options), &api.store, &api.registry).await?);
    let context = admission::Context {
        lookup: Lookup::new(Arc::clone(&api.store), Arc::clone(&api.registry)),
        authorizer: Arc::clone(&auth.authorizer),
        settings: admission::Settings {
            not_ready_toleration: options.not_ready_seconds,
            unreachable_toleration: options.unreachable_seconds,
        },
    };
    let chain = Chain::new(context, &options.enabled_plugins, &options.disabled_plugins)?;
    api.authenticator = Box::new(Arc::clone(&auth.authenticator));
    api.authorizer = Box::new(Arc::clone(&auth.authorizer));
    api.admission = Box::new(chain);
    api.documents = auth.tokens.iter().flat_map(|tokens| tokens.documents(&advertised)).collect();
    api.auth = Some(auth);
    let known = &options.kubelets;
    let (certificate, key) = &known.identity;
    let authority = known.authority.as_deref();
    api.kubelets = Kubelets::load((certificate, key), authority, known.addresses.clone(), known.timeout)?;
    let network = |range: &IpNetwork| Network { address: range.network(), bits: range.prefix() };
    api.services = services::Shared::new(services::Ranges {
        clusters: options.service_ranges.iter().map(network).collect(),
        node_ports: options.node_ports.clone(),
    });
    api.config = crate::api::Config {
        max_requests_inflight: options.max_requests_inflight,
        max_mutating_requests_inflight: options.max_mutating_requests_inflight,
        request_timeout: options.request_timeout,
        min_request_timeout: options.min_request_timeout,
        event_ttl: options.event_ttl,
        advertised,
        ..crate::api::Config::default()
    };
    if let Some(audit) = &options.audit {
        api.audit = Box::new(Audit::open(audit)?);
    }
    Ok(Arc::new(api))
}

/// Whom to believe.
fn who(options: &Options) -> AuthConfig {
    let Tokens { issuers, audiences, keys, signing_key, max_expiration, extend_expiration, jwks_uri } =
        options.tokens.clone();
    let front = options.front_proxy.clone().map(|FrontProxy { ca, names, username, uid, group, extra }| {
        let config = RequestHeaderConfig {
            allowed_names: names,
            username_headers: username,
            uid_headers: uid,
            group_headers: group,
            extra_prefixes: extra,
        };
        (ca, config)
    });
    AuthConfig {
        client_ca_file: Some(options.client_ca.clone()),
        request_header: front,
        tokens: TokenConfig { issuers, audiences, max_expiration, extend_expiration, jwks_uri },
        service_account_signing_key_file: signing_key,
        service_account_key_files: keys,
        bootstrap_tokens: options.bootstrap_tokens,
        anonymous: options.anonymous,
        authorization_modes: options.authorization.clone(),
    }
}

/// What every cluster has from the beginning, and roles that gather others.
async fn begin(api: Arc<Api>, wish: Wish, hook: http::Hook) {
    match bootstrap::ensure(&api, wish).await {
        Ok(done) => {
            tracing::debug!(created = done.created, updated = done.updated, "roles are as they should be");
            hook.done();
        }
        Err(error) => tracing::error!("roles and namespaces of every cluster cannot be made: {error}"),
    }
    if let (true, Some(auth)) = (wish.rbac, &api.auth) {
        let authorizer = Arc::clone(&auth.authorizer);
        bootstrap::aggregate::run(api, authorizer).await;
    }
}

/// The store, and what ends it.
struct Opened {
    store: Arc<dyn Store>,
    embedded: Option<Embedded>,
}

impl Opened {
    async fn open(options: &Options) -> Result<Self> {
        // Most of an idle cluster's writes, which nobody misses after a crash: they come again within seconds.
        let volatile = ["/events/", "/leases/kube-node-lease/"];
        let volatile = volatile.map(|under| Bytes::from(format!("{}{under}", options.prefix))).to_vec();
        let config = Config { volatile, ..Config::default() };
        let embedded = match &options.storage {
            Storage::Memory => Embedded::memory(config)?,
            Storage::Embedded { file } => Embedded::open(file, RedbOptions::default(), config)?,
            Storage::Etcd(config) => {
                let etcd = EtcdStore::connect(config).await;
                let etcd = etcd.with_context(|| format!("connect to {}", config.endpoints.join(",")))?;
                return Ok(Self { store: Arc::new(etcd), embedded: None });
            }
        };
        Ok(Self { store: Arc::new(embedded.clone()), embedded: Some(embedded) })
    }

    async fn close(self) -> Result<()> {
        drop(self.store);
        if let Some(embedded) = self.embedded {
            embedded.close().await?;
        }
        Ok(())
    }
}

fn directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .with_context(|| format!("keep others out of {}", path.display()))
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)
        .with_context(|| format!("listen on {address} (another server? use --secure-port)"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The address that packets to elsewhere leave by; nothing is sent.
fn default_route() -> IpAddr {
    let asked = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    asked.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

fn certificates(options: &Options, advertise: IpAddr, port: u16) -> Result<()> {
    let host = match options.bind.ip() {
        any if any.is_unspecified() => advertise,
        one => one,
    };
    let settings = Settings {
        certificates: options.certificates.clone(),
        kubeconfigs: options.kubeconfigs.clone(),
        server: format!("https://{}", SocketAddr::new(host, port)),
        advertise,
        service: options.kubernetes_service(),
        dns_domain: "cluster.local".to_owned(),
        node_name: fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned()),
        extra_names: std::iter::once(host.to_string()).chain(options.extra_names.iter().cloned()).collect(),
    };
    for change in pki::ensure(&settings, SystemTime::now())? {
        tracing::info!("{change}");
    }
    Ok(())
}

/// The server's certificate and its key.
fn certificate(options: &Options) -> Result<Arc<dyn ResolvesServerCert>> {
    let (certificate, key) = &options.server_certificate;
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is no certificate (PEM)", certificate.display()))?;
    let pem = String::from_utf8(read(key)?).with_context(|| format!("{} is no key (PEM)", key.display()))?;
    let pkcs8 = pki::pkcs8(&pem).map_err(anyhow::Error::msg).with_context(|| key.display().to_string())?;
    let signer = any_supported_type(&PrivateKeyDer::Pkcs8(pkcs8.into()))
        .with_context(|| format!("{} is a key of a kind that is not served", key.display()))?;
    Ok(Arc::new(One(Arc::new(CertifiedKey::new(chain, signer)))))
}

#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
