//! `bench oci`: create + start + delete, and exec, of corten-oci beside crun, runc and what the kernel alone costs.

mod contender;
mod floor;
mod private;
mod scene;

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::sample::Samples;
use super::{Case, Pace, Report, Unit, interleave};
use crate::project::{cargo, release_dir, target};
use crate::{build, run};
use contender::Contender;
use scene::Scene;

/// Containers from create to delete, and exec, beside crun and runc, with the kernel's floor.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds that count, of every contender
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Pause before each operation of the isolated runs, in milliseconds
    #[arg(long, default_value_t = 40)]
    gap: u64,
    /// Measure this program instead of the corten-oci of this source tree
    #[arg(long)]
    program: Option<PathBuf>,
    /// Already inside of the mount namespace the bench runs in
    #[arg(long, hide = true)]
    inside: bool,
}

/// What one round of a container's life took.
#[derive(Clone, Copy, Default)]
struct Life {
    create: Duration,
    start: Duration,
    delete: Duration,
}

pub fn bench(args: &Args) -> Result<Report> {
    if !args.inside {
        private::rerun()?;
    }
    let ours = match &args.program {
        Some(program) => program.clone(),
        None => built()?,
    };
    let mut report = Report::new("bench oci");
    let scene = Scene::new()?;
    let mut contenders = vec![Contender::oci(&scene, "corten-oci", ours)?];
    for peer in ["crun", "runc"] {
        match run::find(peer) {
            Some(program) => contenders.push(Contender::oci(&scene, peer, program)?),
            None => report.note(format!("SKIP: {peer} is not installed: `cargo xtask packages` installs it")),
        }
    }
    match floor::build(&scene)? {
        Ok(programs) => contenders.push(Contender::floor(&scene, programs)?),
        Err(why) => report.note(format!("SKIP: the kernel's floor: {why}")),
    }
    for (pace, gap) in [("isolated", args.gap), ("back-to-back", 0)] {
        lives(&mut report, &contenders, pace, Pace::new(args.rounds, gap))?;
    }
    for contender in &contenders {
        contender.hold()?;
    }
    for (pace, gap) in [("isolated", args.gap), ("back-to-back", 0)] {
        let mut cases: Vec<Case<'_>> =
            contenders.iter().map(|one| Case::new(one.name(), move || one.exec())).collect();
        let samples = interleave(&mut cases, Pace::new(args.rounds, gap))?;
        report.row(format!("exec of true, {pace}"), Unit::Micros, &samples);
    }
    report.note("Isolated: a pause before each operation, as on a node; back-to-back hides RCU waits. The last of each row is what the kernel alone costs.");
    Ok(report)
}

fn lives(report: &mut Report, contenders: &[Contender], pace: &str, timing: Pace) -> Result<()> {
    let lives: Vec<RefCell<Vec<Life>>> = contenders.iter().map(|_| RefCell::default()).collect();
    let case = |(contender, lives): (&'_ Contender, &'_ RefCell<Vec<Life>>)| {
        let life = live(contender, timing.gap)?;
        lives.borrow_mut().push(life);
        Ok(life.create + life.start + life.delete)
    };
    let mut cases: Vec<Case<'_>> =
        contenders.iter().zip(&lives).map(|pair| Case::new(pair.0.name(), move || case(pair))).collect();
    let totals = interleave(&mut cases, timing)?;
    drop(cases);
    report.row(format!("create+start+delete, {pace}"), Unit::Micros, &totals);
    for (phase, of) in [
        ("create", (|life| life.create) as fn(&Life) -> Duration),
        ("start", |life| life.start),
        ("delete", |life| life.delete),
    ] {
        let values = |lives: &RefCell<Vec<Life>>| {
            lives.borrow().iter().skip(timing.warmup).map(|life| of(life).as_secs_f64() * 1e6).collect()
        };
        let samples: Vec<Samples> = contenders
            .iter()
            .zip(&lives)
            .map(|(contender, lives)| Samples::new(contender.name(), values(lives)))
            .collect();
        report.row(format!("  {phase}, {pace}"), Unit::Micros, &samples);
    }
    Ok(())
}

fn live(contender: &Contender, gap: Duration) -> Result<Life> {
    let create = contender.create()?;
    let start = contender.start()?;
    let end = Instant::now() + gap;
    contender.wait_dead()?;
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    Ok(Life { create, start, delete: contender.delete()? })
}

/// Builds corten-oci alone, for release.
fn built() -> Result<PathBuf> {
    build::ensure_target()?;
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "--target", target()]);
    run::check(build.args(["--package", "corten-runtime", "--bin", "corten-oci"]))?;
    Ok(release_dir().join("corten-oci"))
}
