//! Lists of all sizes: time at the client, CPU at the server.

use std::time::Instant;

use anyhow::Result;
use http::Method;

use super::requests::{make_namespace, micros, pod};
use super::{Contender, Row, Unit, row};

const TURNS: usize = 20;

pub async fn measure(both: &[Contender; 2], sizes: &[usize]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &size in sizes {
        let namespace = format!("list-{size}");
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        for contender in both {
            make_namespace(contender, &namespace).await?;
            fill(contender, &path, size).await?;
        }
        let mut times: [Vec<f64>; 2] = Default::default();
        let mut used: [Vec<f64>; 2] = Default::default();
        for _ in 0..TURNS {
            for (who, contender) in both.iter().enumerate() {
                let start = Instant::now();
                contender.text(Method::GET, &path, "").await?;
                times[who].push(micros(start));
            }
        }
        for (who, contender) in both.iter().enumerate() {
            let before = contender.cpu()?;
            for _ in 0..TURNS {
                contender.text(Method::GET, &path, "").await?;
            }
            used[who].push((contender.cpu()? - before) / TURNS as f64);
        }
        rows.push(row(&format!("list {size} pods"), Unit::Micros, times));
        if size >= 1000 {
            rows.push(row(&format!("list {size} pods: CPU of the server"), Unit::Micros, used));
        }
    }
    Ok(rows)
}

async fn fill(contender: &Contender, path: &str, count: usize) -> Result<()> {
    const AT_ONCE: usize = 32;
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..AT_ONCE {
        let (client, path) = (contender.client.clone(), path.to_owned());
        tasks.spawn(async move {
            for number in (first..count).step_by(AT_ONCE) {
                let body = pod(&format!("pod-{number:05}"));
                let response = Contender::send(&client, Method::POST, &path, &body).await?;
                http_body_util::BodyExt::collect(response.into_body()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// What copying the bytes of the largest list costs on this machine.
pub async fn copying(both: &[Contender; 2], size: usize) -> Result<String> {
    let bytes = both[0].text(Method::GET, &format!("/api/v1/namespaces/list-{size}/pods"), "").await?;
    let mut times: Vec<f64> = (0..20)
        .map(|_| {
            let start = Instant::now();
            let copy = std::hint::black_box(bytes.to_vec());
            let took = micros(start);
            drop(copy);
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let megabytes = bytes.len() as f64 / 1e6;
    Ok(format!(
        "The list of {size} pods is {megabytes:.1} MB; copying it once in memory takes {:.2} ms.",
        times[10] / 1e3
    ))
}
