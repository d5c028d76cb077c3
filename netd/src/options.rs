//! The command line: flanneld's flags and ours, `FLANNELD_*`, and what they mean together.
//!
//! Two steps, as flanneld's own: [`arguments`] turns what was typed and what the environment says into one line that
//! clap reads ([`Cli`]); [`Run::options`] checks it as a whole. Nothing later reads raw flags.
//! Source: flannel `main.go`; Go's package flag (one dash or two, `-flag=false`).

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use regex_lite::Regex;

use crate::kube_access::KubeAccess;
use crate::node::Dual;
use crate::overlay::uplink::UplinkOptions;

/// Connects the pods of all nodes: flannel's overlay (vxlan, host-gw), Services, and an eBPF fast path.
///
/// Flags and environment are flanneld's, so a unit file or DaemonSet of flannel's works with the program's name
/// changed. Every flag of `run` may be given with one dash or two, and as an environment variable: --subnet-file is
/// FLANNELD_SUBNET_FILE. The command line counts more than the environment.
///
/// The list of nodes comes from a file (--node-list), from Kubernetes (--kube-subnet-mgr), or, as with flanneld, else
/// from etcd. Stopping the daemon leaves all routes, rules and programs standing: packets go on, and the next daemon
/// takes them over.
#[derive(Parser)]
#[command(
    name = "corten-netd",
    version,
    after_help = "\
Start here, with three files that are the same on every node:
  net-conf.json   {\"Network\": \"10.244.0.0/16\", \"Backend\": {\"Type\": \"vxlan\"}}
  nodes.yaml      nodes:
                  - {name: node-a, podCIDRs: [10.244.1.0/24], publicIPs: [192.0.2.1]}
                  - {name: node-b, podCIDRs: [10.244.2.0/24], publicIPs: [192.0.2.2]}
  corten-netd --net-config-path net-conf.json --node-list nodes.yaml --node-name node-a --ip-masq \\
              --cni-conf-dir /etc/cni/net.d

Then, in another terminal:
  corten-netd status     what it knows and why something is not as wished
  corten-netd drops      packets the fast path gave away, as they come
See `corten-netd run --help` for all flags."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the daemon; also what happens when flags alone are given
    Run(Box<Run>),
    /// Show nodes, overlay, fast path and Services of the running daemon, and what is wrong
    Status(Status),
    /// Print packets that the fast path gave to the kernel or dropped, and why, as they come
    Drops(Drops),
    /// Print the CNI configuration that lets pods use this network
    Conflist(Conflist),
}

/// Where a running daemon is found.
#[derive(Args, Clone)]
pub struct State {
    /// Socket and lock of this daemon: DIR/netd.sock
    #[arg(long, value_name = "DIR", default_value = "/run/corten/netd")]
    pub state_dir: PathBuf,
}

#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    pub state: State,
    /// text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

#[derive(Args)]
pub struct Drops {
    #[command(flatten)]
    pub state: State,
    /// text or json (one object a line)
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Args)]
pub struct Conflist {
    /// flanneld's file, where the plugin reads what is particular to the node
    #[arg(long, value_name = "FILE", default_value = "/run/flannel/subnet.env")]
    pub subnet_file: PathBuf,
    /// Bridge that pods are attached to
    #[arg(long, value_name = "NAME", default_value = "cni0")]
    pub bridge: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fastpath {
    /// On where kernel, bridge and other people's rules allow it; `status` says why not
    Auto,
    /// On, or the daemon says why it cannot be and stops
    On,
    Off,
}

const SOURCE: &str = "Where the list of nodes comes from";
const ETCD: &str = "etcd";
const KUBE: &str = "Kubernetes";
const UPLINK: &str = "How other nodes reach this one";
const RULES: &str = "Rules and routes";
const PODS: &str = "Pods and the fast path";
const DAEMON: &str = "The daemon";

/// Run the daemon.
#[derive(Args)]
pub struct Run {
    /// A file that lists all nodes; it may be edited at any time
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    node_list: Option<PathBuf>,
    /// Nodes and their pod CIDRs from the Kubernetes API
    #[arg(long, help_heading = SOURCE, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool(), action = clap::ArgAction::Set)]
    kube_subnet_mgr: bool,
    /// Name of this node in the list. Else NODE_NAME, else (with --node-list) the host name
    #[arg(long, value_name = "NAME", help_heading = SOURCE)]
    node_name: Option<String>,
    /// net-conf.json, the network's configuration; with etcd it is the key PREFIX/config
    #[arg(long, value_name = "FILE", default_value = "/etc/kube-flannel/net-conf.json", help_heading = SOURCE)]
    net_config_path: PathBuf,

    /// URLs of etcd, separated by commas
    #[arg(long, value_name = "URLS", default_value = "http://127.0.0.1:4001,http://127.0.0.1:2379", value_delimiter = ',', help_heading = ETCD)]
    etcd_endpoints: Vec<String>,
    /// Where in etcd the network is
    #[arg(long, value_name = "PREFIX", default_value = "/coreos.com/network", help_heading = ETCD)]
    etcd_prefix: String,
    /// Key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true, help_heading = ETCD)]
    etcd_keyfile: String,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true, help_heading = ETCD)]
    etcd_certfile: String,
    /// Authority that etcd's certificate must be from (PEM)
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true, help_heading = ETCD)]
    etcd_cafile: String,
    /// User of etcd
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, help_heading = ETCD)]
    etcd_username: String,
    /// Its password; better in FLANNELD_ETCD_PASSWORD, which other users cannot see
    #[arg(long, value_name = "PASSWORD", default_value = "", hide_default_value = true, help_heading = ETCD)]
    etcd_password: String,
    /// Minutes before its end at which the lease of the subnet is renewed: 1 to 1439
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..24 * 60), help_heading = ETCD)]
    subnet_lease_renew_margin: u64,

    /// URL of the API server, when neither a kubeconfig nor a pod's service account says it
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, help_heading = KUBE)]
    kube_api_url: String,
    /// kubeconfig; not needed inside a pod
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true, help_heading = KUBE)]
    kubeconfig_file: String,
    /// What annotations of nodes begin with
    #[arg(long, value_name = "PREFIX", default_value = "flannel.alpha.coreos.com", help_heading = KUBE)]
    kube_annotation_prefix: String,
    /// Set the node's condition NetworkUnavailable to False when pods can talk
    #[arg(long, value_name = "BOOL", help_heading = KUBE, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool(), action = clap::ArgAction::Set)]
    set_node_network_unavailable: bool,

    /// Interface (name or address) that leads to the other nodes; may be repeated, the first that is there counts.
    /// The one of the default route unless given
    #[arg(long, value_name = "NAME|IP", help_heading = UPLINK)]
    iface: Vec<String>,
    /// The same by a regular expression that name or address match; asked after --iface; may be repeated
    #[arg(long, value_name = "REGEX", help_heading = UPLINK)]
    iface_regex: Vec<String>,
    /// The interface that packets to this address leave by; asked last
    #[arg(long, value_name = "IP", default_value = "", hide_default_value = true, help_heading = UPLINK)]
    iface_can_reach: String,
    /// IPv4 address that other nodes reach this one by; the interface's unless given
    #[arg(long, value_name = "IP", default_value = "", hide_default_value = true, help_heading = UPLINK)]
    public_ip: String,
    /// The same in IPv6
    #[arg(long, value_name = "IP", default_value = "", hide_default_value = true, help_heading = UPLINK)]
    public_ipv6: String,

    /// Masquerade what pods send out of the network
    #[arg(long, help_heading = RULES, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool(), action = clap::ArgAction::Set)]
    ip_masq: bool,
    /// Masquerade with ports in order instead of random ones
    #[arg(long, help_heading = RULES, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool(), action = clap::ArgAction::Set)]
    ip_masq_fully_random_disable: bool,
    /// Let traffic of the network through the node's forward chain
    #[arg(long, value_name = "BOOL", help_heading = RULES, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool(), action = clap::ArgAction::Set)]
    iptables_forward_rules: bool,
    /// Seconds after which everything is compared with the kernel even when nothing was told to have changed
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86400), help_heading = RULES)]
    iptables_resync: u64,
    /// Route the node's own pod CIDR to nowhere where no pod has the address
    #[arg(long, help_heading = RULES, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool(), action = clap::ArgAction::Set)]
    ip_blackhole_route: bool,

    /// File that tells CNI plugins this node's subnet and MTU
    #[arg(long, value_name = "FILE", default_value = "/run/flannel/subnet.env", help_heading = PODS)]
    subnet_file: PathBuf,
    /// Write 10-flannel.conflist into this directory once the network is there
    #[arg(long, value_name = "DIR", help_heading = PODS)]
    cni_conf_dir: Option<PathBuf>,
    /// Bridge that the CNI plugin attaches pods to
    #[arg(long, value_name = "NAME", default_value = "cni0", help_heading = PODS)]
    bridge: String,
    /// Past the kernel's network stack by eBPF
    #[arg(long, value_name = "MODE", default_value = "auto", help_heading = PODS)]
    fastpath: Fastpath,
    /// Take IPv6 in vxlan past the stack too. All nodes must run corten-netd: tunnel devices of flannel refuse the
    /// UDP packets without checksum that the fast path sends
    #[arg(long, help_heading = PODS)]
    fastpath_ipv6_vxlan: bool,
    /// Serve Services from here: a file or directory of Services and EndpointSlices, `kube`, or `off`
    #[arg(long, value_name = "FILE|kube|off", default_value = "off", help_heading = PODS)]
    services: OsString,
    /// Where programs and maps are pinned, so that they outlive the daemon
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/corten/v1", help_heading = PODS)]
    bpf_dir: PathBuf,
    /// cgroup v2 directory whose processes reach Services by eBPF; the mount of cgroup v2 unless given
    #[arg(long, value_name = "DIR", help_heading = PODS)]
    cgroup: Option<PathBuf>,

    #[command(flatten)]
    state: State,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", help_heading = DAEMON)]
    healthz_ip: IpAddr,
    /// Their port; 0 for none
    #[arg(long, value_name = "PORT", default_value_t = 0, help_heading = DAEMON)]
    healthz_port: u16,
    /// What to log: error, warn, info, debug, trace, or a filter such as corten_netd::source=debug
    #[arg(long, value_name = "LEVEL", help_heading = DAEMON)]
    log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = DAEMON)]
    log_format: Output,
    /// flanneld's verbosity: from 1 debug, from 5 trace
    #[arg(short, long, value_name = "NUMBER", default_value_t = 0, help_heading = DAEMON)]
    v: u8,
    #[arg(long, hide = true)]
    vmodule: Option<String>,
    #[arg(long = "log_backtrace_at", hide = true)]
    log_backtrace_at: Option<String>,
}

/// `1`, `t`, `T`, `TRUE`, `true`, `True` and their opposites, as Go reads them; also yes, on and their opposites.
fn go_bool() -> impl TypedValueParser<Value = bool> {
    BoolishValueParser::new()
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionsError {
    #[error("--node-list and --kube-subnet-mgr exclude each other: nodes have one source")]
    TwoSources,
    #[error("--{flag} {value} is not {wanted}")]
    Value { flag: &'static str, value: String, wanted: &'static str },
    #[error("--etcd-keyfile and --etcd-certfile belong together: give both")]
    HalfCertificate,
    #[error("--etcd-password without --etcd-username")]
    PasswordAlone,
    #[error(
        "--vmodule is not supported: filter the log with --log-level, as in info,corten_netd::source=debug"
    )]
    Vmodule,
    #[error("--log_backtrace_at is not supported: errors say where they come from")]
    Backtrace,
}

/// Where nodes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceOptions {
    File { list: PathBuf },
    Kube { annotation_prefix: String, set_condition: bool },
    Etcd(EtcdOptions),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    pub endpoints: Vec<String>,
    pub prefix: String,
    pub cafile: Option<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// User and password.
    pub user: Option<(String, String)>,
    pub renew_margin: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicesOptions {
    Off,
    /// A file or directory.
    File(PathBuf),
    Kube,
}

/// What the daemon is to do, checked.
#[derive(Debug, Clone)]
pub struct Options {
    pub source: SourceOptions,
    pub kube: KubeAccess,
    pub node_name: Option<String>,
    pub net_conf: PathBuf,
    pub uplink: UplinkOptions,
    pub ip_masq: bool,
    pub masq_fully_random: bool,
    pub forward_rules: bool,
    pub blackhole_route: bool,
    pub resync: Duration,
    pub subnet_file: PathBuf,
    pub cni_conf_dir: Option<PathBuf>,
    pub bridge: String,
    pub fastpath: Fastpath,
    pub fastpath_ipv6_vxlan: bool,
    pub services: ServicesOptions,
    pub bpf_dir: PathBuf,
    pub cgroup: Option<PathBuf>,
    pub state_dir: PathBuf,
    pub http: Option<SocketAddr>,
    pub log_filter: String,
    pub log_format: Output,
}

impl Run {
    /// Checks everything before anything is done.
    pub fn options(self) -> Result<Options, OptionsError> {
        if self.vmodule.is_some() {
            return Err(OptionsError::Vmodule);
        }
        if self.log_backtrace_at.is_some() {
            return Err(OptionsError::Backtrace);
        }
        let uplink = UplinkOptions {
            iface_can_reach: address("iface-can-reach", &self.iface_can_reach, "an IP address")?,
            public_ips: Dual {
                v4: address::<Ipv4Addr>("public-ip", &self.public_ip, "an IPv4 address")?,
                v6: address::<Ipv6Addr>("public-ipv6", &self.public_ipv6, "an IPv6 address")?,
            },
            iface: self.iface.iter().filter(|name| !name.is_empty()).cloned().collect(),
            iface_regex: self.patterns()?,
        };
        let source = self.source()?;
        Ok(Options {
            source,
            uplink,
            kube: KubeAccess {
                url: given(&self.kube_api_url).map(str::to_owned),
                kubeconfig: given(&self.kubeconfig_file).map(PathBuf::from),
            },
            node_name: self.node_name.filter(|name| !name.is_empty()),
            net_conf: self.net_config_path,
            ip_masq: self.ip_masq,
            masq_fully_random: !self.ip_masq_fully_random_disable,
            forward_rules: self.iptables_forward_rules,
            blackhole_route: self.ip_blackhole_route,
            resync: Duration::from_secs(self.iptables_resync),
            subnet_file: self.subnet_file,
            cni_conf_dir: self.cni_conf_dir,
            bridge: self.bridge,
            fastpath: self.fastpath,
            fastpath_ipv6_vxlan: self.fastpath_ipv6_vxlan,
            services: match self.services.to_str() {
                Some("off" | "") => ServicesOptions::Off,
                Some("kube") => ServicesOptions::Kube,
                _ => ServicesOptions::File(self.services.into()),
            },
            bpf_dir: self.bpf_dir,
            cgroup: self.cgroup,
            state_dir: self.state.state_dir,
            http: (self.healthz_port != 0).then(|| SocketAddr::new(self.healthz_ip, self.healthz_port)),
            log_filter: self.log_level.unwrap_or_else(|| {
                match self.v {
                    0 => "info",
                    1..=4 => "info,corten_netd=debug",
                    5.. => "debug,corten_netd=trace",
                }
                .to_owned()
            }),
            log_format: self.log_format,
        })
    }

    fn patterns(&self) -> Result<Vec<Regex>, OptionsError> {
        const WANTED: &str = "a regular expression";
        let regex = |text: &String| {
            let wrong = |_| OptionsError::Value { flag: "iface-regex", value: text.clone(), wanted: WANTED };
            Regex::new(text).map_err(wrong)
        };
        self.iface_regex.iter().filter(|text| !text.is_empty()).map(regex).collect()
    }

    fn source(&self) -> Result<SourceOptions, OptionsError> {
        match (&self.node_list, self.kube_subnet_mgr) {
            (Some(_), true) => return Err(OptionsError::TwoSources),
            (Some(list), false) => return Ok(SourceOptions::File { list: list.clone() }),
            (None, true) => {
                return Ok(SourceOptions::Kube {
                    annotation_prefix: self.kube_annotation_prefix.clone(),
                    set_condition: self.set_node_network_unavailable,
                });
            }
            (None, false) => {}
        }
        let identity = match (given(&self.etcd_certfile), given(&self.etcd_keyfile)) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err(OptionsError::HalfCertificate),
        };
        let user = match (given(&self.etcd_username), given(&self.etcd_password)) {
            (Some(name), password) => Some((name.to_owned(), password.unwrap_or("").to_owned())),
            (None, Some(_)) => return Err(OptionsError::PasswordAlone),
            (None, None) => None,
        };
        Ok(SourceOptions::Etcd(EtcdOptions {
            endpoints: self.etcd_endpoints.iter().map(|e| e.trim().to_owned()).collect(),
            prefix: self.etcd_prefix.clone(),
            cafile: given(&self.etcd_cafile).map(PathBuf::from),
            identity,
            user,
            renew_margin: Duration::from_secs(60 * self.subnet_lease_renew_margin),
        }))
    }
}

/// flanneld's flags take the empty string for "not given".
fn given(value: &str) -> Option<&str> {
    Some(value).filter(|value| !value.is_empty())
}

fn address<A: std::str::FromStr>(
    flag: &'static str,
    value: &str,
    wanted: &'static str,
) -> Result<Option<A>, OptionsError> {
    given(value)
        .map(|text| text.parse().map_err(|_| OptionsError::Value { flag, value: text.to_owned(), wanted }))
        .transpose()
}

/// What was typed (without the program's name) as clap shall read it: `run` before flags that stand alone, two dashes
/// for one, and for each flag of `run` that is not there what `FLANNELD_*` says.
pub fn arguments(typed: Vec<OsString>, env: impl Fn(&str) -> Option<OsString>) -> Vec<OsString> {
    let mut line = vec![OsString::from("corten-netd")];
    let first = typed.first().and_then(|word| word.to_str()).unwrap_or("-");
    let top = matches!(first, "-h" | "--help" | "-help" | "-V" | "--version" | "-version");
    if top {
        line.push(if first.contains("elp") || first == "-h" { "--help" } else { "--version" }.into());
        return line;
    }
    let subcommand = !first.starts_with('-');
    if subcommand && first != "run" {
        line.extend(typed);
        return line;
    }
    line.push("run".into());
    let rest = typed.into_iter().skip(usize::from(subcommand));
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("declared above");
    let flags: Vec<&str> = run.get_arguments().filter_map(clap::Arg::get_long).collect();
    let mut seen = Vec::new();
    for word in rest {
        let (word, flag) = two_dashes(word, &flags);
        seen.extend(flag);
        line.push(word);
    }
    for flag in flags {
        let variable = format!("FLANNELD_{}", flag.replace('-', "_").to_uppercase());
        if !seen.contains(&flag)
            && let Some(value) = env(&variable)
        {
            let mut word = OsString::from(format!("--{flag}="));
            word.push(value);
            line.push(word);
        }
    }
    line
}

/// The word with two dashes when it is one of `flags` with one, and which flag it is.
fn two_dashes<'a>(word: OsString, flags: &[&'a str]) -> (OsString, Option<&'a str>) {
    let Some(text) = word.to_str() else { return (word, None) };
    let name = text.trim_start_matches('-').split('=').next().unwrap_or("");
    let dashes = text.len() - text.trim_start_matches('-').len();
    match flags.iter().find(|flag| **flag == name) {
        Some(flag) if dashes == 1 => (format!("-{text}").into(), Some(flag)),
        Some(flag) if dashes == 2 => (word, Some(flag)),
        _ => (word, None),
    }
}

/// The name of this node: `--node-name`, `NODE_NAME`, or the host name in lower case as the kubelet has it.
pub fn node_name(given: Option<&str>, env: Option<&OsStr>, host: &str) -> String {
    given
        .or_else(|| env.and_then(OsStr::to_str).filter(|name| !name.is_empty()))
        .map_or_else(|| host.to_lowercase(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(typed: &[&str], env: &[(&str, &str)]) -> Result<Options, String> {
        let line = arguments(typed.iter().map(OsString::from).collect(), |name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        });
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let Command::Run(run) = cli.command else { panic!("not run") };
        run.options().map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_given_is_flanneld_without_flags() {
        let options = options(&[], &[]).unwrap();
        let SourceOptions::Etcd(etcd) = options.source else { panic!() };
        assert_eq!(etcd.endpoints, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
        assert_eq!((etcd.prefix.as_str(), etcd.renew_margin.as_secs()), ("/coreos.com/network", 3600));
        assert_eq!(options.subnet_file, PathBuf::from("/run/flannel/subnet.env"));
        assert_eq!(options.net_conf, PathBuf::from("/etc/kube-flannel/net-conf.json"));
        assert_eq!(options.resync, Duration::from_secs(5));
        assert!(options.forward_rules && options.masq_fully_random && !options.ip_masq);
        assert!(!options.blackhole_route && options.http.is_none());
        assert_eq!((options.fastpath, options.services), (Fastpath::Auto, ServicesOptions::Off));
    }

    #[test]
    fn the_line_of_the_kube_flannel_manifest_works() {
        let options = options(&["--ip-masq", "--kube-subnet-mgr"], &[]).unwrap();
        assert!(options.ip_masq);
        assert_eq!(
            options.source,
            SourceOptions::Kube { annotation_prefix: "flannel.alpha.coreos.com".into(), set_condition: true }
        );
    }

    /// Every flag of flanneld 0.28.9, as Go's package flag takes them.
    #[test]
    fn all_flags_of_flanneld_are_taken_with_one_dash_and_with_two() {
        const FLAGS: [(&str, &str); 26] = [
            ("etcd-endpoints", "http://10.0.0.1:2379,http://10.0.0.2:2379"),
            ("etcd-prefix", "/net"),
            ("etcd-keyfile", "/k"),
            ("etcd-certfile", "/c"),
            ("etcd-cafile", "/ca"),
            ("etcd-username", "u"),
            ("etcd-password", "p"),
            ("iface", "eth1"),
            ("iface-regex", "eth.*"),
            ("iface-can-reach", "10.0.0.9"),
            ("subnet-file", "/tmp/s.env"),
            ("public-ip", "192.0.2.7"),
            ("public-ipv6", "2001:db8::7"),
            ("subnet-lease-renew-margin", "30"),
            ("ip-masq", "true"),
            ("ip-masq-fully-random-disable", "t"),
            ("kube-subnet-mgr", "0"),
            ("kube-api-url", "https://10.0.0.1"),
            ("kube-annotation-prefix", "x.y/z"),
            ("kubeconfig-file", "/kc"),
            ("healthz-ip", "127.0.0.1"),
            ("healthz-port", "8471"),
            ("iptables-resync", "7"),
            ("iptables-forward-rules", "false"),
            ("ip-blackhole-route", "True"),
            ("net-config-path", "/nc.json"),
        ];
        for dashes in ["-", "--"] {
            let mut line: Vec<String> =
                FLAGS.iter().map(|(name, value)| format!("{dashes}{name}={value}")).collect();
            line.push(format!("{dashes}set-node-network-unavailable=F"));
            line.push(format!("{dashes}v=5"));
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            let options = options(&line, &[]).unwrap();
            let SourceOptions::Etcd(etcd) = &options.source else { panic!() };
            assert_eq!(etcd.endpoints.len(), 2);
            assert_eq!(etcd.identity, Some(("/c".into(), "/k".into())));
            assert_eq!(etcd.user, Some(("u".into(), "p".into())));
            assert_eq!(etcd.renew_margin, Duration::from_mins(30));
            assert_eq!(options.uplink.iface, ["eth1"]);
            assert_eq!(options.uplink.iface_regex[0].as_str(), "eth.*");
            assert_eq!(options.uplink.iface_can_reach, Some("10.0.0.9".parse().unwrap()));
            assert_eq!(options.uplink.public_ips.v6, Some("2001:db8::7".parse().unwrap()));
            assert_eq!(options.http, Some("127.0.0.1:8471".parse().unwrap()));
            assert!(options.ip_masq && !options.masq_fully_random && !options.forward_rules);
            assert!(options.blackhole_route);
            assert_eq!(options.resync, Duration::from_secs(7));
            assert!(options.log_filter.contains("trace"));
        }
    }

    #[test]
    fn values_may_stand_apart_and_iface_is_repeated() {
        let options =
            options(&["-iface", "eth1", "--iface", "10.0.0.1", "-subnet-file", "/s", "-ip-masq"], &[])
                .unwrap();
        assert_eq!(options.uplink.iface, ["eth1", "10.0.0.1"]);
        assert_eq!(options.subnet_file, PathBuf::from("/s"));
        assert!(options.ip_masq);
    }

    #[test]
    fn the_environment_gives_what_the_command_line_does_not() {
        let env = [
            ("FLANNELD_SUBNET_FILE", "/env"),
            ("FLANNELD_IP_MASQ", "true"),
            ("FLANNELD_IFACE", "eth9"),
            ("FLANNELD_NODE_LIST", "/nodes"),
            ("FLANNELD_UNKNOWN", "x"),
        ];
        let options = options(&["-subnet-file=/flag", "--ip-masq=false"], &env).unwrap();
        assert_eq!(options.subnet_file, PathBuf::from("/flag"));
        assert!(!options.ip_masq);
        assert_eq!(options.uplink.iface, ["eth9"]);
        assert_eq!(options.source, SourceOptions::File { list: "/nodes".into() });
    }

    #[test]
    fn what_does_not_go_together_or_is_not_there_is_said() {
        let table: [(&[&str], &str); 11] = [
            (&["--v=many"], "invalid value 'many' for '--v"),
            (&["--iface-regex", "eth("], "--iface-regex eth( is not a regular expression"),
            (&["--node-list", "/n", "--kube-subnet-mgr"], "exclude each other"),
            (&["--etcd-keyfile", "/k"], "give both"),
            (&["--etcd-password", "x"], "without --etcd-username"),
            (&["-vmodule=a=1"], "--vmodule is not supported: filter the log with --log-level"),
            (&["-log_backtrace_at=a:1"], "--log_backtrace_at is not supported"),
            (&["--public-ip", "fd00::1"], "--public-ip fd00::1 is not an IPv4 address"),
            (&["--subnet-lease-renew-margin", "1440"], "1440"),
            (&["--iptables-resync", "0"], "0"),
            (&["--no-such-flag"], "unexpected argument '--no-such-flag'"),
        ];
        for (line, wanted) in table {
            let error = options(line, &[]).unwrap_err();
            assert!(error.contains(wanted), "{line:?}: {error}");
        }
    }

    #[test]
    fn subcommands_and_help_are_left_alone() {
        let words =
            |typed: &[&str]| arguments(typed.iter().map(OsString::from).collect(), |_| Some("x".into()));
        assert_eq!(words(&["status", "-o", "json"]), ["corten-netd", "status", "-o", "json"]);
        assert_eq!(words(&["-version"]), ["corten-netd", "--version"]);
        assert_eq!(words(&["-help"]), ["corten-netd", "--help"]);
        Cli::command().debug_assert();
    }

    #[test]
    fn a_node_is_called_as_said_else_as_the_host() {
        assert_eq!(node_name(Some("a"), Some(OsStr::new("b")), "C"), "a");
        assert_eq!(node_name(None, Some(OsStr::new("b")), "C"), "b");
        assert_eq!(node_name(None, Some(OsStr::new("")), "Host"), "host");
    }
}
