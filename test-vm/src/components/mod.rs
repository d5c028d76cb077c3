//! Stock controllers and scheduler against an API server: they must converge workloads on nodes that a test keeps alive.
//!
//! Nodes are objects with a lease; pods that the scheduler binds to them are made to run by [`nodes`], as far as the API
//! can see. Nothing is started on the machine but the stock programs and the server.

mod nodes;
mod round;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::artifacts::stock;
use crate::control_plane::{ControlPlane, Controllers, Corten, Process, Stock, Storage};

pub struct Plan {
    pub dir: PathBuf,
    pub stock: bool,
    pub time: Duration,
}

/// What each step of the rounds took, or why it failed.
#[derive(Default)]
pub struct Board {
    rows: Vec<(String, Result<Duration, String>)>,
}

impl Board {
    pub fn failed(&self) -> usize {
        self.rows.iter().filter(|(_, result)| result.is_err()).count()
    }

    fn add(&mut self, step: String, since: Instant, result: Result<()>) {
        let result = result.map(|()| since.elapsed()).map_err(|error| format!("{error:#}"));
        match &result {
            Ok(took) => println!(" ok      {step:<72} {:5.1} s", took.as_secs_f64()),
            Err(why) => println!(" FAILED  {step}: {why}"),
        }
        self.rows.push((step, result));
    }
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.failed();
        write!(f, "{} passed, {failed} failed", self.rows.len() - failed)
    }
}

pub async fn run(plan: Plan) -> Result<Board> {
    let server: Box<dyn ControlPlane> = if plan.stock {
        Box::new(Stock::start(&plan.dir.join("server"), Controllers::None, &[])?)
    } else {
        // The stock ones do what ours would.
        let off = "--controllers=-namespace-controller,-serviceaccount-controller,\
                   -root-ca-certificate-publisher-controller,-garbage-collector-controller";
        Box::new(Corten::start(&plan.dir.join("server"), Storage::Embedded, &[off])?)
    };
    let (_manager, _scheduler) = (manager(&plan.dir, &*server)?, scheduler(&plan.dir, &*server)?);
    let client = client(&server.kubeconfig()).await?;
    let _nodes = nodes::start(client.clone(), 3).await?;
    let mut board = Board::default();
    let (start, mut number) = (Instant::now(), 0);
    while number == 0 || (start.elapsed() < plan.time && board.failed() == 0) {
        round::run(&client, number, &mut board).await;
        number += 1;
    }
    Ok(board)
}

async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

fn manager(dir: &Path, server: &dyn ControlPlane) -> Result<Process> {
    let program = stock("kube-controller-manager").map_err(|missing| anyhow!("{missing}"))?;
    let key =
        [server.dir().join("data/pki/sa.key"), server.dir().join("pki/sa.key"), server.dir().join("sa.key")];
    let key = key.iter().find(|file| file.is_file()).context("the server's key of service accounts")?;
    let flags = [
        format!("--kubeconfig={}", server.kubeconfig().display()),
        format!("--service-account-private-key-file={}", key.display()),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=true".to_owned(),
        "--secure-port=0".to_owned(),
        "--node-monitor-grace-period=40s".to_owned(),
    ];
    Process::start(dir, &program, &flags)
}

fn scheduler(dir: &Path, server: &dyn ControlPlane) -> Result<Process> {
    let program = stock("kube-scheduler").map_err(|missing| anyhow!("{missing}"))?;
    let kubeconfig = format!("--kubeconfig={}", server.kubeconfig().display());
    Process::start(
        dir,
        &program,
        &[kubeconfig, "--leader-elect=true".to_owned(), "--secure-port=0".to_owned()],
    )
}
