//! The command line: kube-apiserver's flags and ours, the same in a file and in the environment, and what they mean
//! together.
//!
//! [`sources::line`] makes one line of all three, which clap reads ([`Cli`]); [`run::Run::options`] checks it as a whole.
//! Nothing later reads raw flags.

mod go;
mod refused;
pub mod run;
pub mod sources;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use run::{Options, Run, Storage};

/// The Kubernetes API on one file: what kube-apiserver and etcd do, for stock kubectl and client-go.
///
/// Without any flag it keeps its objects in /var/lib/corten/apiserver, makes certificates, keys and kubeconfigs in
/// kubeadm's layout at the first start, and serves on port 6443. Flags that kube-apiserver has too have its names and
/// meanings. Each may be given on the command line, as an environment variable (--event-ttl is
/// CORTEN_APISERVER_EVENT_TTL) or in a file (--config; TOML or YAML, `event-ttl: 30m`). The command line counts most,
/// then the environment, then the file.
///
/// On SIGTERM it reports not ready, ends watches, lets requests finish and closes its store.
#[derive(Parser)]
#[command(
    name = "corten-apiserver",
    version,
    args_override_self = true,
    after_help = "\
Start here:
  corten-apiserver                                                serve; all is made that is not there
  kubectl --kubeconfig /var/lib/corten/apiserver/admin.conf get namespaces

An instance for a test, of which nothing stays:
  corten-apiserver --storage memory --data-dir $(mktemp -d) --secure-port 16443

Take with you, bring back, move on:
  corten-apiserver snapshot save FILE          while it serves or not
  corten-apiserver snapshot restore FILE       into a new data directory
  corten-apiserver export --to http://127.0.0.1:2379    into an etcd that a kube-apiserver then serves
See `corten-apiserver run --help` for all flags."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Serve; also what happens when flags alone are given
    #[command(args_override_self = true)]
    Run(Box<Run>),
    /// Keep a copy of all objects, or bring one back
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Copy all objects into an etcd, from where a kube-apiserver can serve them
    Export(Export),
    /// Print a kubeconfig with a new certificate
    Kubeconfig(Kubeconfig),
    /// Print the version
    Version(Version),
    /// Print the completion script of a shell
    Completions(Completions),
    /// Print the manual page
    Man,
}

#[derive(Subcommand)]
pub enum Snapshot {
    /// Save all objects into a file, by asking the running server or, when none runs, from its data directory
    Save(Save),
    /// Make a new data directory of a snapshot; revisions stay what they were
    Restore(Restore),
}

/// Where the server keeps its objects.
#[derive(Args, Clone)]
pub struct DataDir {
    /// Where objects, certificates and kubeconfigs are
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/corten/apiserver",
        env = "CORTEN_APISERVER_DATA_DIR"
    )]
    pub data_dir: PathBuf,
}

#[derive(Args)]
pub struct Save {
    /// The file; it must not be there
    pub file: PathBuf,
    #[command(flatten)]
    pub data: DataDir,
}

#[derive(Args)]
pub struct Restore {
    /// The snapshot
    pub file: PathBuf,
    #[command(flatten)]
    pub data: DataDir,
}

#[derive(Args)]
pub struct Export {
    /// URLs of the etcd, which must hold nothing under the prefix
    #[arg(long, value_name = "URLS", required = true, value_delimiter = ',')]
    pub to: Vec<String>,
    /// Authority that etcd's certificate must be from (PEM)
    #[arg(long, value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Export a snapshot instead of the data directory
    #[arg(long, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataDir,
}

#[derive(Args)]
pub struct Kubeconfig {
    /// Who it is for
    #[arg(long, value_name = "NAME", default_value = "kubernetes-admin")]
    pub user: String,
    /// Groups of the user; system:masters may do everything
    #[arg(long, value_name = "GROUP", value_delimiter = ',', default_value = "system:masters")]
    pub group: Vec<String>,
    /// URL of the server
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:6443")]
    pub server: String,
    /// Where certificates are; DATA-DIR/pki unless given
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataDir,
}

#[derive(Args)]
pub struct Version {
    /// text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
}

#[derive(Args)]
pub struct Completions {
    /// Whose script
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("--{flag} is not served by corten-apiserver: {remedy}")]
    Refused { flag: String, remedy: &'static str },
    #[error("--{flag} {value} is not {wanted}")]
    Value { flag: &'static str, value: String, wanted: &'static str },
    #[error("--{0} and --{1} belong together: give both")]
    Half(&'static str, &'static str),
    #[error("--{0} needs --{1}")]
    Needs(&'static str, &'static str),
    #[error("cannot read --config {}: {error}", file.display())]
    Config { file: PathBuf, error: String },
    #[error("--config {}: {key} is neither a text, a number, a truth value nor a list of them", file.display())]
    ConfigValue { file: PathBuf, key: String },
}
