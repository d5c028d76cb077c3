//! Single requests, one after the other, and many at once.

use std::time::{Duration, Instant};

use anyhow::Result;
use http::Method;

use super::{Contender, Row, Unit, row};

const NAMESPACE: &str = "bench";
const AT_ONCE: usize = 16;
/// Requests do not come back to back: 2 ms between them.
const PAUSE: Duration = Duration::from_millis(2);

pub async fn measure(both: &[Contender; 2], rounds: usize) -> Result<Vec<Row>> {
    for contender in both {
        make_namespace(contender, NAMESPACE).await?;
    }
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let mut rows = Vec::new();
    let mut timed: [[Vec<f64>; 2]; 5] = Default::default();
    for round in 0..rounds {
        let name = format!("pod-{round}");
        let one = format!("{pods}/{name}");
        let created = pod(&name);
        let updated = created.replace("\"0\"", "\"1\"");
        let patch = r#"{"metadata":{"labels":{"patched":"yes"}}}"#;
        let requests: [(Method, &str, &str); 5] = [
            (Method::POST, &pods, &created),
            (Method::GET, &one, ""),
            (Method::PUT, &one, &updated),
            (Method::PATCH, &one, patch),
            (Method::DELETE, &one, r#"{"gracePeriodSeconds":0}"#),
        ];
        for (kind, (method, path, body)) in requests.iter().enumerate() {
            for (who, contender) in both.iter().enumerate() {
                let start = Instant::now();
                contender.text(method.clone(), path, body).await?;
                timed[kind][who].push(micros(start));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    for (what, values) in
        ["create a pod", "get a pod", "update a pod", "patch a pod", "delete a pod"].into_iter().zip(timed)
    {
        rows.push(row(what, Unit::Micros, values));
    }
    let mut creates: [Vec<f64>; 2] = Default::default();
    let mut gets: [Vec<f64>; 2] = Default::default();
    for turn in 0..3 {
        for (who, contender) in both.iter().enumerate() {
            creates[who].push(
                many(contender, rounds * 4, |n| {
                    (Method::POST, pods.clone(), pod(&format!("many-{turn}-{n}")))
                })
                .await?,
            );
            gets[who].push(
                many(contender, rounds * 8, |n| {
                    (Method::GET, format!("{pods}/many-{turn}-{}", n % (rounds * 4)), String::new())
                })
                .await?,
            );
        }
    }
    rows.push(row(&format!("creates a second, {AT_ONCE} at once"), Unit::Rounds, creates));
    rows.push(row(&format!("gets a second, {AT_ONCE} at once"), Unit::Rounds, gets));
    for contender in both {
        contender.text(Method::DELETE, &format!("{pods}?gracePeriodSeconds=0"), "").await?;
    }
    Ok(rows)
}

/// Requests a second.
async fn many(
    contender: &Contender,
    count: usize,
    request: impl Fn(usize) -> (Method, String, String),
) -> Result<f64> {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..AT_ONCE {
        let requests: Vec<_> = (first..count).step_by(AT_ONCE).map(&request).collect();
        let client = contender.client.clone();
        tasks.spawn(async move {
            for (method, path, body) in requests {
                let response = Contender::send(&client, method, &path, &body).await?;
                http_body_util::BodyExt::collect(response.into_body()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

pub fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// A namespace in which pods can be made: its service account is there.
pub async fn make_namespace(contender: &Contender, name: &str) -> Result<()> {
    let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
    contender.text(Method::POST, "/api/v1/namespaces", &body).await?;
    let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = contender.text(Method::GET, &account, "").await {
        if Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// As a Deployment's pods are: two containers, probes, resources, environment, a volume.
pub fn pod(name: &str) -> String {
    let probe = r#"{"httpGet":{"path":"/healthz","port":8080},"periodSeconds":10}"#;
    let container = |name: &str| {
        format!(
            r#"{{"name":"{name}","image":"registry.example/team/{name}:1.2.3","args":["--listen=:8080","--verbose"],
        "env":[{{"name":"A","value":"0"}},{{"name":"POD","valueFrom":{{"fieldRef":{{"fieldPath":"metadata.name"}}}}}}],
        "ports":[{{"name":"http-{name}","containerPort":8080}}],"livenessProbe":{probe},"readinessProbe":{probe},
        "resources":{{"requests":{{"cpu":"100m","memory":"64Mi"}},"limits":{{"memory":"128Mi"}}}},
        "volumeMounts":[{{"name":"work","mountPath":"/work"}}]}}"#
        )
    };
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"app":"bench","turn":"0"}},
        "annotations":{{"example.com/checksum":"0123456789abcdef0123456789abcdef"}}}},
        "spec":{{"containers":[{},{}],"volumes":[{{"name":"work","emptyDir":{{}}}}],"nodeName":"node-1",
        "automountServiceAccountToken":false}}}}"#,
        container("main"),
        container("side"),
    )
}
