//! From the answer of a write to its event at each watcher, and what the server works for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use http::Method;
use http_body_util::BodyExt;
use tokio::sync::{Barrier, mpsc};

use super::requests::make_namespace;
use super::{Contender, Row, Unit, row};

const EVENTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);
/// Watches on one connection, as HTTP/2 has them.
const NAMESPACE: &str = "watch";

pub async fn measure(both: &[Contender; 2], counts: &[usize]) -> Result<Vec<Row>> {
    for contender in both {
        make_namespace(contender, NAMESPACE).await?;
        let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"seen"},"data":{"n":"0"}}"#;
        contender.text(Method::POST, &format!("/api/v1/namespaces/{NAMESPACE}/configmaps"), map).await?;
    }
    let mut rows = Vec::new();
    for &count in counts {
        let (mut delays, mut used): ([Vec<f64>; 2], [Vec<f64>; 2]) = Default::default();
        for (who, contender) in both.iter().enumerate() {
            let (mut seen, cpu) = fan_out(contender, count).await?;
            delays[who].append(&mut seen);
            used[who].push(cpu);
        }
        let watchers = if count == 1 { "1 watcher".to_owned() } else { format!("{count} watchers") };
        rows.push(row(&format!("a write is seen by {watchers}"), Unit::Micros, delays));
        rows.push(row(&format!("CPU of the server for a write seen by {watchers}"), Unit::Micros, used));
    }
    Ok(rows)
}

/// Delays of all events at all watchers, counted from the sending of the write; CPU of the server for one write.
async fn fan_out(contender: &Contender, count: usize) -> Result<(Vec<f64>, f64)> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let current: serde_json::Value = serde_json::from_slice(&contender.text(Method::GET, &path, "").await?)?;
    let from = current["metadata"]["resourceVersion"].as_str().context("a revision")?.to_owned();
    let ready = Arc::new(Barrier::new(count + 1));
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    let client = contender.another_client().await?;
    for _ in 0..count {
        let watch = format!("{path}?watch=true&fieldSelector=metadata.name%3Dseen&resourceVersion={from}");
        let (client, ready, tell) = (client.clone(), Arc::clone(&ready), tell.clone());
        tasks.spawn(async move {
            let response = Contender::send(&client, Method::GET, &watch, "").await?;
            ready.wait().await;
            let mut body = response.into_body().into_data_stream();
            let mut seen = 0;
            while seen < EVENTS {
                let bytes = body.next().await.context("the watch ended")??;
                let now = Instant::now();
                for _ in bytes.iter().filter(|&&byte| byte == b'\n') {
                    let _ = tell.send((seen, now));
                    seen += 1;
                }
            }
            anyhow::Ok(())
        });
    }
    drop(tell);
    ready.wait().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = contender.cpu()?;
    let mut sent = Vec::new();
    for number in 0..EVENTS {
        sent.push(Instant::now());
        let patch = format!(r#"{{"data":{{"n":"{count}-{number}"}}}}"#);
        contender.text(Method::PATCH, &format!("{path}/seen"), &patch).await?;
        tokio::time::sleep(PAUSE).await;
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let cpu = (contender.cpu()? - before) / EVENTS as f64;
    let mut delays = Vec::with_capacity(count * EVENTS);
    while let Some((number, at)) = told.recv().await {
        delays.push(at.duration_since(sent[number]).as_secs_f64() * 1e6);
    }
    Ok((delays, cpu))
}
