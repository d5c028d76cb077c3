//! What `api-bench` measures, on both servers in turn: requests, lists, watches, memory, the start. One file a question.

#![expect(clippy::cast_precision_loss, reason = "counts of a bench are small")]

mod contender;
mod lists;
mod requests;
mod watches;

use anyhow::Result;

use crate::measure::{Measured, Row, Samples, Unit};
use contender::Contender;

pub struct Options {
    pub rounds: usize,
    pub pods: usize,
    pub watchers: usize,
}

pub async fn all(options: &Options) -> Result<Measured> {
    let dir = tempfile::Builder::new().prefix("corten-api-bench-").tempdir()?;
    let (ours, started) = Contender::corten(&dir.path().join("corten")).await?;
    let (stock, stock_started) = Contender::stock(&dir.path().join("stock")).await?;
    let both = [ours, stock];
    let mut rows =
        vec![row("start to ready, empty store", Unit::Micros, [vec![started], vec![stock_started]])];
    // Both have settled: what a start leaves behind is done.
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
    rows.push(memory("memory (PSS), idle, empty", &both)?);
    rows.extend(requests::measure(&both, options.rounds).await?);
    rows.extend(watches::measure(&both, &[1, 100, options.watchers]).await?);
    rows.extend(lists::measure(&both, &[10, 1000, options.pods]).await?);
    rows.push(memory(&format!("memory (PSS) with {} pods", options.pods), &both)?);
    let notes = vec![lists::copying(&both, options.pods).await?];
    Ok(Measured { rows, notes })
}

fn row(what: &str, unit: Unit, values: [Vec<f64>; 2]) -> Row {
    let samples = ["corten-apiserver", "kube-apiserver and etcd"].into_iter().zip(values);
    Row {
        what: what.to_owned(),
        unit,
        samples: samples.map(|(name, values)| Samples { name: name.to_owned(), values }).collect(),
    }
}

fn memory(what: &str, both: &[Contender; 2]) -> Result<Row> {
    Ok(row(what, Unit::Bytes, [vec![both[0].pss()?], vec![both[1].pss()?]]))
}
