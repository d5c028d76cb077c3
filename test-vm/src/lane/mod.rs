//! `cargo xtask conformance nodes`: three nodes made of namespaces, corten-netd on each, and every way between pods,
//! hosts, Services and the world outside; then nodes that come, go, reboot and move, and daemons that die. One file a
//! theme; each row says what it proves.

pub mod board;
mod carried;
mod churn;
mod matrix;
mod scene;
mod services;
mod wire;

use anyhow::Result;

use crate::cluster::netd::Backend;
use board::{Board, Verdict};
use scene::Scene;

/// How much of the lane runs.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Times that a daemon is killed under load.
    pub kills: usize,
    /// Times that the fast path is switched during a transfer.
    pub switches: usize,
    /// Also what proves the lane itself, and what another group shows nearly as well.
    pub all: bool,
}

impl Extent {
    pub const WHOLE: Self = Self { kills: 50, switches: 10, all: true };
    /// For `cargo xtask test`: most rows, less often.
    pub const SHORT: Self = Self { kills: 5, switches: 4, all: false };
}

/// Runs the rows whose group (`vxlan, fast path off`) contains `only`, all when it is empty.
pub fn run(extent: Extent, only: &str) -> Result<Board> {
    let mut board = Board::default();
    for backend in [Backend::Vxlan, Backend::HostGw] {
        let group = format!("{}, by hand", backend.name());
        if extent.all && group.contains(only) {
            expectations(&mut board, &group, backend);
        }
        for fast_path in ["off", "on"] {
            let group = format!("{}, fast path {fast_path}", backend.name());
            if !group.contains(only) {
                continue;
            }
            let mut scene = None;
            board.row(format!("{group}: three nodes and their pods"), || {
                scene = Some(Scene::new(backend, fast_path)?);
                Ok(Verdict::Passed("6 pods".into()))
            });
            if let Some(mut scene) = scene {
                matrix::rows(&mut board, &group, &scene.cluster);
                if fast_path == "on" {
                    carried::rows(&mut board, &group, &scene);
                }
                services::rows(&mut board, &group, &scene);
                if extent.all || backend == Backend::Vxlan || fast_path == "on" {
                    churn::rows(&mut board, &group, &mut scene, extent);
                }
                if board.failed.iter().any(|(row, _)| row.starts_with(&group)) {
                    scene.say_what_is();
                }
            }
            wire::rows(&mut board, &group, backend, fast_path);
        }
    }
    Ok(board)
}

/// The lane's own expectations, tried on flannel's plumbing without a line of ours in the overlay.
fn expectations(board: &mut Board, group: &str, backend: Backend) {
    let mut scene = None;
    board.row(format!("{group}: three nodes and their pods"), || {
        scene = Some(Scene::by_hand(backend)?);
        Ok(Verdict::Passed("6 pods".into()))
    });
    if let Some(scene) = scene {
        matrix::rows(board, group, &scene.cluster);
    }
}
