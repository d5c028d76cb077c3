//! The command line. Help, man page and completions all come from here, so they cannot disagree.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::cmd;
use crate::instance::Instance;

/// A Kubernetes node by one command.
///
/// `corten up` starts a container runtime daemon and a kubelet in the background and runs pods from manifests;
/// `corten down` removes every trace of it.
#[derive(Parser)]
#[command(name = "corten", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  corten up                     run the hello pod
  corten up -f pod.yaml         run a pod of your own
  corten status                 what runs
  corten logs hello -c client   what a container printed
  corten exec hello -c server -- /corten-demo --help
  corten doctor                 what this machine lacks
  corten down                   stop everything, leave nothing";

/// Where an instance lives. Two instances with different places never meet.
#[derive(clap::Args, Clone)]
pub struct Place {
    /// Durable data: images, pod records, manifests
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/corten")]
    pub root: PathBuf,
    /// Volatile state: sockets, process ids, network namespaces
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/corten")]
    pub state: PathBuf,
    /// Configuration you write: registries in DIR/certs.d/HOST/hosts.toml. Only read
    #[arg(long, global = true, value_name = "DIR", default_value = "/etc/corten")]
    pub config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    Up(cmd::up::Args),
    Status(cmd::status::Args),
    Logs(cmd::logs::Args),
    Exec(cmd::exec::Args),
    Image(cmd::image::Args),
    Down(cmd::down::Args),
    Doctor(cmd::doctor::Args),
    Completions(cmd::completions::Args),
    Man(cmd::man::Args),
}

/// How a command prints what it found.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

impl Cli {
    pub fn run(self) -> Result<ExitCode> {
        let instance = Instance::at(&self.place)?;
        match self.command {
            Command::Up(args) => cmd::up::run(&instance, &args),
            Command::Status(args) => cmd::status::run(&instance, &args),
            Command::Logs(args) => cmd::logs::run(&instance, &args),
            Command::Exec(args) => cmd::exec::run(&instance, &args),
            Command::Image(args) => cmd::image::run(&instance, &args),
            Command::Down(args) => cmd::down::run(&instance, &args),
            Command::Doctor(args) => cmd::doctor::run(&instance, &args),
            Command::Completions(args) => cmd::completions::run(&args),
            Command::Man(args) => cmd::man::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_explains_itself() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {} has no help", command.get_name(), arg.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn what_follows_the_dashes_belongs_to_the_container() {
        let cli =
            Cli::try_parse_from(["corten", "exec", "hello", "-c", "x", "--", "ls", "-l", "--root", "/"])
                .unwrap();
        assert_eq!(cli.place.root, PathBuf::from("/var/lib/corten"));
    }
}
