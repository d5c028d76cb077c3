//! Flags of `run` and what they mean together. Names and defaults are kube-apiserver's where it has the flag.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnetwork::IpNetwork;

use super::go::{boolean, duration};
use super::{DataDir, Format, OptionsError};

const STORE: &str = "Where objects are";
const SERVE: &str = "Serving";
const PKI: &str = "Certificates";
const AUTHN: &str = "Who asks";
const AUTHZ: &str = "What they may";
const AUDIT: &str = "Audit";
const CLUSTER: &str = "The cluster";
const KUBELET: &str = "Kubelets";
const LOG: &str = "The log";

/// Serve.
#[derive(Args)]
pub struct Run {
    /// A file with these flags (TOML or YAML): `event-ttl: 30m`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    data: DataDir,
    /// embedded (DATA-DIR/store.redb), etcd, or memory, of which nothing stays. etcd when --etcd-servers is given
    #[arg(long, value_name = "WHERE", help_heading = STORE)]
    storage: Option<StorageKind>,
    /// URLs of etcd, separated by commas
    #[arg(long, value_name = "URLS", value_delimiter = ',', help_heading = STORE)]
    etcd_servers: Vec<String>,
    /// Authority that etcd's certificate must be from (PEM)
    #[arg(long, value_name = "FILE", help_heading = STORE)]
    etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd (PEM)
    #[arg(long, value_name = "FILE", help_heading = STORE)]
    etcd_certfile: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", help_heading = STORE)]
    etcd_keyfile: Option<PathBuf>,
    /// What all keys begin with
    #[arg(long, value_name = "PREFIX", default_value = "/registry", help_heading = STORE)]
    etcd_prefix: String,
    /// How long what was replaced or deleted can still be read and watched from; 0: for ever
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, help_heading = STORE)]
    etcd_compaction_interval: Duration,
    /// etcd3, the protocol of --etcd-servers
    #[arg(long, value_name = "NAME", default_value = "etcd3", hide = true)]
    storage_backend: String,
    /// application/json, the form of objects at rest
    #[arg(long, value_name = "TYPE", default_value = "application/json", hide = true)]
    storage_media_type: String,

    /// Port of HTTPS; 0: any that is free
    #[arg(long, value_name = "PORT", default_value_t = 6443, help_heading = SERVE)]
    secure_port: u16,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", help_heading = SERVE)]
    bind_address: IpAddr,
    /// Address that clients are told; the one of the default route unless given
    #[arg(long, value_name = "IP", help_heading = SERVE)]
    advertise_address: Option<IpAddr>,
    /// Reads that are answered at once; more are told to come again. 0: no limit
    #[arg(long, value_name = "NUMBER", default_value_t = 400, help_heading = SERVE)]
    max_requests_inflight: usize,
    /// The same of writes
    #[arg(long, value_name = "NUMBER", default_value_t = 200, help_heading = SERVE)]
    max_mutating_requests_inflight: usize,
    /// Of everything but watches, logs and streams
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration, help_heading = SERVE)]
    request_timeout: Duration,
    /// Seconds that a watch lives at least, and at most twice
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, help_heading = SERVE)]
    min_request_timeout: u64,
    /// Time between reporting not ready and ending
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration, help_heading = SERVE)]
    shutdown_delay_duration: Duration,
    /// Time that watches and requests have to end
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, help_heading = SERVE)]
    shutdown_watch_termination_grace_period: Duration,
    /// Refused unless false: there is no profiler inside
    #[arg(long, hide = true, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean(), action = clap::ArgAction::Set)]
    profiling: bool,

    /// Certificates in kubeadm's layout; DATA-DIR/pki unless given. What is not there is made
    #[arg(long, value_name = "DIR", help_heading = PKI)]
    cert_dir: Option<PathBuf>,
    /// Where admin.conf and other kubeconfigs are written; DATA-DIR unless given
    #[arg(long, value_name = "DIR", help_heading = PKI)]
    kubeconfig_dir: Option<PathBuf>,
    /// Certificate of the server (PEM), with intermediates
    #[arg(long, value_name = "FILE", help_heading = PKI)]
    tls_cert_file: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", help_heading = PKI)]
    tls_private_key_file: Option<PathBuf>,
    /// More names and addresses in the certificate that is made
    #[arg(long, value_name = "NAME|IP", value_delimiter = ',', help_heading = PKI)]
    tls_san: Vec<String>,

    /// Authorities whose client certificates are believed (PEM); CERT-DIR/ca.crt unless given
    #[arg(long, value_name = "FILE", help_heading = AUTHN)]
    client_ca_file: Option<PathBuf>,
    /// Let those in who prove nothing, as system:anonymous
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean(), action = clap::ArgAction::Set, help_heading = AUTHN)]
    anonymous_auth: bool,
    /// Believe tokens in Secrets of type bootstrap.kubernetes.io/token in kube-system
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean(), action = clap::ArgAction::Set, help_heading = AUTHN)]
    enable_bootstrap_token_auth: bool,
    /// Authorities of front proxies that say who asks (PEM)
    #[arg(long, value_name = "FILE", help_heading = AUTHN)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of such proxies; any unless given
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHN)]
    requestheader_allowed_names: Vec<String>,
    /// Headers that a proxy names the user in
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', default_value = "X-Remote-User", help_heading = AUTHN)]
    requestheader_username_headers: Vec<String>,
    /// Headers that a proxy names the user's uid in
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', help_heading = AUTHN)]
    requestheader_uid_headers: Vec<String>,
    /// Headers that a proxy names groups in
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', default_value = "X-Remote-Group", help_heading = AUTHN)]
    requestheader_group_headers: Vec<String>,
    /// What headers begin with that say more of the user
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', default_value = "X-Remote-Extra-", help_heading = AUTHN)]
    requestheader_extra_headers_prefix: Vec<String>,
    /// Who signs ServiceAccount tokens; the first signs, all are believed
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = AUTHN)]
    service_account_issuer: Vec<String>,
    /// Keys that ServiceAccount tokens may be signed by (PEM); CERT-DIR/sa.pub unless given
    #[arg(long, value_name = "FILES", value_delimiter = ',', help_heading = AUTHN)]
    service_account_key_file: Vec<PathBuf>,
    /// The key that signs them; CERT-DIR/sa.key unless given
    #[arg(long, value_name = "FILE", help_heading = AUTHN)]
    service_account_signing_key_file: Option<PathBuf>,
    /// Longest life of a token that is asked for
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = AUTHN)]
    service_account_max_token_expiration: Option<Duration>,
    /// Give tokens of pods a year, for clients that do not read them again
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean(), action = clap::ArgAction::Set, help_heading = AUTHN)]
    service_account_extend_token_expiration: bool,
    /// Where the keys of tokens are published, when not here
    #[arg(long, value_name = "URL", help_heading = AUTHN)]
    service_account_jwks_uri: Option<String>,
    /// Audiences of tokens for this server; its issuers unless given
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHN)]
    api_audiences: Vec<String>,

    /// Who decides, in order: Node, RBAC, AlwaysAllow, AlwaysDeny
    #[arg(long, value_name = "MODES", value_delimiter = ',', default_value = "Node,RBAC", help_heading = AUTHZ)]
    authorization_mode: Vec<String>,
    /// Admission plugins beside those that are on
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHZ)]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that are to be off
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHZ)]
    disable_admission_plugins: Vec<String>,
    /// Seconds that a pod without a word on it stays on a node that is not ready
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = AUTHZ)]
    default_not_ready_toleration_seconds: i64,
    /// The same on a node that cannot be reached
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = AUTHZ)]
    default_unreachable_toleration_seconds: i64,
    /// Refused when false: privileged pods are kept out by admission
    #[arg(long, hide = true, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean(), action = clap::ArgAction::Set, help_heading = AUTHZ)]
    allow_privileged: bool,

    /// The audit log; - is standard output
    #[arg(long, value_name = "FILE", help_heading = AUDIT)]
    audit_log_path: Option<PathBuf>,
    /// What is recorded (audit.k8s.io/v1 Policy); Metadata of everything unless given
    #[arg(long, value_name = "FILE", help_heading = AUDIT)]
    audit_policy_file: Option<PathBuf>,
    /// Days that old files are kept; 0: for ever
    #[arg(long, value_name = "DAYS", default_value_t = 366, help_heading = AUDIT)]
    audit_log_maxage: u64,
    /// Old files that are kept; 0: all
    #[arg(long, value_name = "NUMBER", default_value_t = 100, help_heading = AUDIT)]
    audit_log_maxbackup: usize,
    /// Megabytes after which a new file is begun; 0: never
    #[arg(long, value_name = "MEGABYTES", default_value_t = 100, help_heading = AUDIT)]
    audit_log_maxsize: u64,
    /// json
    #[arg(long, value_name = "FORMAT", default_value = "json", hide = true)]
    audit_log_format: String,
    /// audit.k8s.io/v1
    #[arg(long, value_name = "VERSION", default_value = "audit.k8s.io/v1", hide = true)]
    audit_log_version: String,
    /// blocking: a line is written before its answer goes out
    #[arg(long, value_name = "MODE", default_value = "blocking", hide = true)]
    audit_log_mode: String,

    /// Addresses of Services: one range, or one of IPv4 and one of IPv6
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', default_value = "10.96.0.0/12", help_heading = CLUSTER)]
    service_cluster_ip_range: Vec<String>,
    /// Ports of Services on nodes
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", help_heading = CLUSTER)]
    service_node_port_range: String,
    /// Serve the Service `kubernetes` on this port of nodes; 0: on none
    #[arg(long, value_name = "PORT", default_value_t = 0, help_heading = CLUSTER)]
    kubernetes_service_node_port: u16,
    /// Keep the endpoints of the Service `kubernetes`: lease, or none
    #[arg(long, value_name = "TYPE", default_value = "lease", help_heading = CLUSTER)]
    endpoint_reconciler_type: String,
    /// How long events are kept
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration, help_heading = CLUSTER)]
    event_ttl: Duration,
    /// Controllers that run inside: *, NAME, -NAME. Names are kube-controller-manager's: namespace-controller,
    /// serviceaccount-controller, root-ca-certificate-publisher-controller, garbage-collector-controller
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "*", allow_hyphen_values = true, help_heading = CLUSTER)]
    controllers: Vec<String>,

    /// Client certificate for kubelets (PEM); CERT-DIR/apiserver-kubelet-client.crt unless given
    #[arg(long, value_name = "FILE", help_heading = KUBELET)]
    kubelet_client_certificate: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", help_heading = KUBELET)]
    kubelet_client_key: Option<PathBuf>,
    /// Authority that certificates of kubelets must be from (PEM); any certificate is taken unless given
    #[arg(long, value_name = "FILE", help_heading = KUBELET)]
    kubelet_certificate_authority: Option<PathBuf>,
    /// Which address of a node is taken, first that it has
    #[arg(long, value_name = "TYPES", value_delimiter = ',', default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP", help_heading = KUBELET)]
    kubelet_preferred_address_types: Vec<String>,
    /// Of connecting to a kubelet
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration, help_heading = KUBELET)]
    kubelet_timeout: Duration,

    /// What to log: error, warn, info, debug, trace, or a filter such as corten_apiserver::crd=debug
    #[arg(long, value_name = "LEVEL", help_heading = LOG)]
    log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = LOG)]
    logging_format: Format,
    /// kube-apiserver's verbosity: from 3 debug, from 6 trace
    #[arg(short, long, value_name = "NUMBER", default_value_t = 0, help_heading = LOG)]
    v: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StorageKind {
    Embedded,
    Etcd,
    Memory,
}

/// Where objects are.
#[derive(Debug, Clone)]
pub enum Storage {
    Embedded { file: PathBuf },
    Etcd(corten_etcd::Config),
    Memory,
}

/// The `--requestheader-*` flags.
#[derive(Debug, Clone)]
pub struct FrontProxy {
    pub ca: PathBuf,
    pub names: Vec<String>,
    pub username: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Audit {
    /// `None`: standard output.
    pub path: Option<PathBuf>,
    pub policy: Option<PathBuf>,
    pub max_age: Option<Duration>,
    pub max_backups: Option<usize>,
    pub max_bytes: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Tokens {
    pub issuers: Vec<String>,
    pub audiences: Vec<String>,
    pub keys: Vec<PathBuf>,
    pub signing_key: PathBuf,
    pub max_expiration: Option<Duration>,
    pub extend_expiration: bool,
    pub jwks_uri: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Kubelets {
    pub identity: (PathBuf, PathBuf),
    pub authority: Option<PathBuf>,
    pub addresses: Vec<String>,
    pub timeout: Duration,
}

/// Which controllers run inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Controllers {
    pub namespace: bool,
    pub service_account: bool,
    pub root_ca: bool,
    pub garbage: bool,
}

/// What the server is to do, checked.
#[derive(Debug, Clone)]
pub struct Options {
    pub data_dir: PathBuf,
    pub storage: Storage,
    pub prefix: String,
    pub compaction: Option<Duration>,
    pub bind: SocketAddr,
    pub advertise: Option<IpAddr>,
    pub max_requests_inflight: usize,
    pub max_mutating_requests_inflight: usize,
    pub request_timeout: Duration,
    pub min_request_timeout: Duration,
    pub shutdown_delay: Duration,
    pub shutdown_grace: Duration,
    pub certificates: PathBuf,
    pub kubeconfigs: PathBuf,
    /// All files are given: none is made.
    pub foreign_pki: bool,
    pub server_certificate: (PathBuf, PathBuf),
    pub extra_names: Vec<String>,
    pub client_ca: PathBuf,
    pub anonymous: bool,
    pub bootstrap_tokens: bool,
    pub front_proxy: Option<FrontProxy>,
    pub tokens: Tokens,
    pub authorization: Vec<String>,
    pub enabled_plugins: Vec<String>,
    pub disabled_plugins: Vec<String>,
    pub not_ready_seconds: i64,
    pub unreachable_seconds: i64,
    pub audit: Option<Audit>,
    pub service_ranges: Vec<IpNetwork>,
    pub node_ports: RangeInclusive<u16>,
    pub service_node_port: Option<u16>,
    pub keep_endpoints: bool,
    pub event_ttl: Duration,
    pub controllers: Controllers,
    pub kubelets: Kubelets,
    pub log_filter: String,
    pub log_format: Format,
}

impl Run {
    /// Checks everything before anything is done.
    ///
    /// # Errors
    /// A flag's value, or what does not go together.
    pub fn options(self) -> Result<Options, OptionsError> {
        only("storage-backend", &self.storage_backend, "etcd3")?;
        only("storage-media-type", &self.storage_media_type, "application/json")?;
        only("audit-log-format", &self.audit_log_format, "json")?;
        only("audit-log-version", &self.audit_log_version, "audit.k8s.io/v1")?;
        if !matches!(&*self.audit_log_mode, "blocking" | "blocking-strict") {
            return Err(value(
                "audit-log-mode",
                &self.audit_log_mode,
                "blocking: lines are written as they come",
            ));
        }
        if self.profiling {
            return Err(value(
                "profiling",
                "true",
                "false: there is no profiler inside; use perf on the process",
            ));
        }
        if !self.allow_privileged {
            let wanted = "true: which pods may be privileged is for admission to say, namespace by namespace";
            return Err(value("allow-privileged", "false", wanted));
        }
        for mode in &self.authorization_mode {
            if !matches!(&**mode, "Node" | "RBAC" | "AlwaysAllow" | "AlwaysDeny") {
                let wanted = "one of Node, RBAC, AlwaysAllow, AlwaysDeny (webhooks and ABAC are not served)";
                return Err(value("authorization-mode", mode, wanted));
            }
        }
        let certificates = self.cert_dir.clone().unwrap_or_else(|| self.data.data_dir.join("pki"));
        let own = |name: &str| certificates.join(name);
        let server = pair(
            "tls-cert-file",
            self.tls_cert_file.as_ref(),
            "tls-private-key-file",
            self.tls_private_key_file.as_ref(),
        )?;
        let kubelet = pair(
            "kubelet-client-certificate",
            self.kubelet_client_certificate.as_ref(),
            "kubelet-client-key",
            self.kubelet_client_key.as_ref(),
        )?;
        let foreign_pki = server.is_some()
            && self.client_ca_file.is_some()
            && self.service_account_signing_key_file.is_some();
        let storage = self.storage()?;
        let audit = self.audit()?;
        let issuers = if self.service_account_issuer.is_empty() {
            vec!["https://kubernetes.default.svc.cluster.local".to_owned()]
        } else {
            self.service_account_issuer.clone()
        };
        let keep_endpoints = match &*self.endpoint_reconciler_type {
            "lease" => true,
            "none" => false,
            other => return Err(value("endpoint-reconciler-type", other, "lease or none")),
        };
        if !self.etcd_prefix.starts_with('/') || self.etcd_prefix.len() < 2 || self.etcd_prefix.ends_with('/')
        {
            return Err(value("etcd-prefix", &self.etcd_prefix, "a path such as /registry"));
        }
        Ok(Options {
            storage,
            audit,
            keep_endpoints,
            foreign_pki,
            service_ranges: self.ranges()?,
            node_ports: self.node_ports()?,
            controllers: self.controllers()?,
            bind: SocketAddr::new(self.bind_address, self.secure_port),
            server_certificate: server.unwrap_or_else(|| (own("apiserver.crt"), own("apiserver.key"))),
            client_ca: self.client_ca_file.unwrap_or_else(|| own("ca.crt")),
            tokens: Tokens {
                audiences: if self.api_audiences.is_empty() { issuers.clone() } else { self.api_audiences },
                issuers,
                keys: match &*self.service_account_key_file {
                    [] => vec![own("sa.pub")],
                    keys => keys.to_vec(),
                },
                signing_key: self.service_account_signing_key_file.unwrap_or_else(|| own("sa.key")),
                max_expiration: self.service_account_max_token_expiration.filter(|time| !time.is_zero()),
                extend_expiration: self.service_account_extend_token_expiration,
                jwks_uri: self.service_account_jwks_uri,
            },
            front_proxy: self.requestheader_client_ca_file.map(|ca| FrontProxy {
                ca,
                names: self.requestheader_allowed_names,
                username: self.requestheader_username_headers,
                uid: self.requestheader_uid_headers,
                group: self.requestheader_group_headers,
                extra: self.requestheader_extra_headers_prefix,
            }),
            kubelets: Kubelets {
                identity: kubelet.unwrap_or_else(|| {
                    (own("apiserver-kubelet-client.crt"), own("apiserver-kubelet-client.key"))
                }),
                authority: self.kubelet_certificate_authority,
                addresses: self.kubelet_preferred_address_types,
                timeout: self.kubelet_timeout,
            },
            kubeconfigs: self.kubeconfig_dir.unwrap_or_else(|| self.data.data_dir.clone()),
            data_dir: self.data.data_dir,
            certificates,
            prefix: self.etcd_prefix,
            compaction: (!self.etcd_compaction_interval.is_zero()).then_some(self.etcd_compaction_interval),
            advertise: self.advertise_address,
            max_requests_inflight: self.max_requests_inflight,
            max_mutating_requests_inflight: self.max_mutating_requests_inflight,
            request_timeout: self.request_timeout,
            min_request_timeout: Duration::from_secs(self.min_request_timeout),
            shutdown_delay: self.shutdown_delay_duration,
            shutdown_grace: self.shutdown_watch_termination_grace_period,
            extra_names: self.tls_san,
            anonymous: self.anonymous_auth,
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            authorization: self.authorization_mode,
            enabled_plugins: self.enable_admission_plugins,
            disabled_plugins: self.disable_admission_plugins,
            not_ready_seconds: self.default_not_ready_toleration_seconds,
            unreachable_seconds: self.default_unreachable_toleration_seconds,
            service_node_port: (self.kubernetes_service_node_port != 0)
                .then_some(self.kubernetes_service_node_port),
            event_ttl: self.event_ttl,
            log_filter: self.log_level.unwrap_or_else(|| {
                match self.v {
                    0..=2 => "info",
                    3..=5 => "info,corten_apiserver=debug",
                    6.. => "debug,corten_apiserver=trace",
                }
                .to_owned()
            }),
            log_format: self.logging_format,
        })
    }

    fn storage(&self) -> Result<Storage, OptionsError> {
        let given = !self.etcd_servers.is_empty();
        let kind = self.storage.unwrap_or(if given { StorageKind::Etcd } else { StorageKind::Embedded });
        if given && kind != StorageKind::Etcd {
            return Err(value("etcd-servers", &self.etcd_servers.join(","), "of use without --storage=etcd"));
        }
        let identity =
            pair("etcd-certfile", self.etcd_certfile.as_ref(), "etcd-keyfile", self.etcd_keyfile.as_ref())?;
        Ok(match kind {
            StorageKind::Embedded => Storage::Embedded { file: self.data.data_dir.join("store.redb") },
            StorageKind::Memory => Storage::Memory,
            StorageKind::Etcd => {
                if !given {
                    return Err(OptionsError::Needs("storage=etcd", "etcd-servers"));
                }
                let mut config = corten_etcd::Config::new(&self.etcd_servers);
                config.tls = corten_etcd::Tls { ca: self.etcd_cafile.clone(), identity };
                Storage::Etcd(config)
            }
        })
    }

    fn audit(&self) -> Result<Option<Audit>, OptionsError> {
        let Some(path) = &self.audit_log_path else {
            return match self.audit_policy_file {
                Some(_) => Err(OptionsError::Needs("audit-policy-file", "audit-log-path")),
                None => Ok(None),
            };
        };
        Ok(Some(Audit {
            path: (path.as_os_str() != "-").then(|| path.clone()),
            policy: self.audit_policy_file.clone(),
            max_age: (self.audit_log_maxage != 0)
                .then(|| Duration::from_hours(24) * self.audit_log_maxage as u32),
            max_backups: (self.audit_log_maxbackup != 0).then_some(self.audit_log_maxbackup),
            max_bytes: (self.audit_log_maxsize != 0).then_some(self.audit_log_maxsize << 20),
        }))
    }

    fn ranges(&self) -> Result<Vec<IpNetwork>, OptionsError> {
        const FLAG: &str = "service-cluster-ip-range";
        const WANTED: &str = "one range of addresses, or one of IPv4 and one of IPv6: 10.96.0.0/12";
        let all = self.service_cluster_ip_range.join(",");
        let wrong = || value(FLAG, &all, WANTED);
        let range = |text: &String| {
            if text.contains('/') { text.parse::<IpNetwork>().map_err(|_| wrong()) } else { Err(wrong()) }
        };
        let ranges: Vec<_> = self.service_cluster_ip_range.iter().map(range).collect::<Result<_, _>>()?;
        let small = ranges.iter().any(|range| range.prefix() + 2 > if range.is_ipv4() { 32 } else { 128 });
        let families = ranges.iter().filter(|range| range.is_ipv4()).count();
        if ranges.is_empty() || ranges.len() > 2 || small || (ranges.len() == 2 && families != 1) {
            return Err(wrong());
        }
        Ok(ranges)
    }

    fn node_ports(&self) -> Result<RangeInclusive<u16>, OptionsError> {
        let text = &self.service_node_port_range;
        let range =
            text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match range {
            Some((first, last)) if 0 < first && first <= last => Ok(first..=last),
            _ => Err(value("service-node-port-range", text, "a range of ports: 30000-32767")),
        }
    }

    fn controllers(&self) -> Result<Controllers, OptionsError> {
        const NAMES: [&str; 4] = [
            "namespace-controller",
            "serviceaccount-controller",
            "root-ca-certificate-publisher-controller",
            "garbage-collector-controller",
        ];
        let list = &self.controllers;
        for name in list {
            if name != "*" && !NAMES.contains(&name.trim_start_matches('-')) {
                let wanted = "*, NAME or -NAME with a name of namespace-controller, serviceaccount-controller, root-ca-certificate-publisher-controller, garbage-collector-controller";
                return Err(value("controllers", name, wanted));
            }
        }
        let on = |name: &str| {
            let is = |one: &String| one.trim_start_matches('-') == name;
            match list.iter().find(|one| is(one)) {
                Some(one) => !one.starts_with('-'),
                None => list.iter().any(|one| one == "*"),
            }
        };
        let [namespace, service_account, root_ca, garbage] = NAMES.map(on);
        Ok(Controllers { namespace, service_account, root_ca, garbage })
    }
}

impl Options {
    /// The address of the Service `kubernetes`.
    pub fn kubernetes_service(&self) -> IpAddr {
        match self.service_ranges.first() {
            Some(IpNetwork::V6(range)) => Ipv6Addr::from(u128::from(range.network()) + 1).into(),
            Some(IpNetwork::V4(range)) => Ipv4Addr::from(u32::from(range.network()) + 1).into(),
            None => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

fn value(flag: &'static str, value: &str, wanted: &'static str) -> OptionsError {
    OptionsError::Value { flag, value: value.to_owned(), wanted }
}

fn only(flag: &'static str, given: &str, wanted: &'static str) -> Result<(), OptionsError> {
    if given == wanted { Ok(()) } else { Err(value(flag, given, wanted)) }
}

fn pair(
    first: &'static str,
    one: Option<&PathBuf>,
    second: &'static str,
    other: Option<&PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, OptionsError> {
    match (one, other) {
        (Some(one), Some(other)) => Ok(Some((one.clone(), other.clone()))),
        (None, None) => Ok(None),
        _ => Err(OptionsError::Half(first, second)),
    }
}
