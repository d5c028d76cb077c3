//! `cargo xtask conformance`: suites that others wrote, run as they are, and the lane of several nodes. One file per
//! suite.
//!
//! Every spec runs once, in random order, and what fails is said by name.

mod client_go;
mod components;
mod critest;
mod ginkgo;
mod kube_rs;
mod kubectl;
mod lane;
mod netd_kube;
mod nodes;
mod roundtrip;
mod store;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// Runs whole suites against what this tree builds; fails when a spec fails.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    ClientGo(client_go::Args),
    Components(components::Args),
    Critest(critest::Args),
    KubeRs(kube_rs::Args),
    Kubectl(kubectl::Args),
    Nodes(nodes::Args),
    NetdKube(netd_kube::Args),
    Roundtrip(roundtrip::Args),
    Store(store::Args),
}

pub fn task(args: &Args) -> Result<ExitCode> {
    match &args.suite {
        Suite::ClientGo(args) => client_go::conformance(args),
        Suite::KubeRs(args) => kube_rs::conformance(args),
        Suite::Components(args) => components::conformance(args),
        Suite::Critest(args) => critest::conformance(args),
        Suite::Kubectl(args) => kubectl::conformance(args),
        Suite::Nodes(args) => nodes::conformance(args),
        Suite::NetdKube(args) => netd_kube::conformance(args),
        Suite::Roundtrip(args) => roundtrip::conformance(args),
        Suite::Store(args) => store::conformance(args),
    }
}
