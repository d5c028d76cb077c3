//! `/livez`, `/readyz`, `/healthz`. Source: apiserver `pkg/server/healthz/healthz.go`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Response, StatusCode};

use super::text::{not_found, text};
use crate::api::{Api, Body};
use crate::request::Query;

/// What has to be done before this server is ready, and whether it goes on being so.
#[derive(Default)]
pub struct Health {
    hooks: Mutex<Vec<(String, Arc<AtomicBool>)>>,
    draining: AtomicBool,
}

/// Something that is to be done at the start; until then the server is not ready.
pub struct Hook(Arc<AtomicBool>);

impl Hook {
    pub fn done(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Health {
    /// `poststarthook/rbac/bootstrap-roles`.
    pub fn hook(&self, name: impl Into<String>) -> Hook {
        let done = Arc::new(AtomicBool::new(false));
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.push((name.into(), Arc::clone(&done)));
        Hook(done)
    }

    /// From here on this server is not ready: it is about to end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Live,
    Ready,
    Health,
}

impl Probe {
    fn name(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::Ready => "readyz",
            Self::Health => "healthz",
        }
    }
}

/// An upstream etcd check waits as long.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// `path` without slashes at its ends. `None`: no such path.
pub async fn serve(api: &Api, path: &str, query: &Query) -> Option<Response<Body>> {
    let (probe, check) = path.split_once('/').unwrap_or((path, ""));
    let probe = match probe {
        "livez" => Probe::Live,
        "readyz" => Probe::Ready,
        "healthz" => Probe::Health,
        _ => return None,
    };
    let checks = checks(api, probe).await;
    if !check.is_empty() {
        return Some(match checks.into_iter().find(|(name, _)| name == check) {
            Some((_, Ok(()))) => text(StatusCode::OK, "ok"),
            Some((_, Err(why))) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
            }
            None => not_found(),
        });
    }
    let excluded: BTreeSet<&str> = query.all("exclude").collect();
    let (code, report) = report(probe.name(), &checks, excluded);
    Some(if code == StatusCode::OK && !query.has("verbose") { text(code, "ok") } else { text(code, report) })
}

type Outcome = (String, Result<(), String>);

async fn checks(api: &Api, probe: Probe) -> Vec<Outcome> {
    let mut checks = vec![("ping".to_owned(), Ok(())), ("log".to_owned(), Ok(()))];
    let store = match tokio::time::timeout(STORE_TIMEOUT, api.store.revision()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the store has not answered for {STORE_TIMEOUT:?}")),
    };
    checks.push(("etcd".to_owned(), store));
    let hooks = api.health.hooks.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, done) in &*hooks {
        let done = done.load(Ordering::Acquire);
        checks.push((name.clone(), done.then_some(()).ok_or_else(|| "not finished".to_owned())));
    }
    if probe == Probe::Ready {
        let draining = api.health.draining.load(Ordering::Acquire);
        let outcome = if draining { Err("process is shutting down".to_owned()) } else { Ok(()) };
        checks.push(("shutdown".to_owned(), outcome));
    }
    checks
}

fn report(name: &str, checks: &[Outcome], mut excluded: BTreeSet<&str>) -> (StatusCode, String) {
    let (mut out, mut failed) = (String::new(), false);
    for (check, outcome) in checks {
        let line = if excluded.remove(&**check) {
            format!("[+]{check} excluded: ok")
        } else if outcome.is_ok() {
            format!("[+]{check} ok")
        } else {
            failed = true;
            format!("[-]{check} failed: reason withheld")
        };
        let _ = writeln!(out, "{line}");
    }
    if !excluded.is_empty() {
        let list: Vec<String> = excluded.iter().map(|name| format!("\"{name}\"")).collect();
        let _ =
            writeln!(out, "warn: some health checks cannot be excluded: no matches for {}", list.join(", "));
    }
    let _ = writeln!(out, "{name} check {}", if failed { "failed" } else { "passed" });
    (if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_upstreams_words() {
        let checks = [
            ("ping".to_owned(), Ok(())),
            ("etcd".to_owned(), Err("down".to_owned())),
            ("x".to_owned(), Err(String::new())),
        ];
        let (code, text) = report("livez", &checks, BTreeSet::from(["x", "nope"]));
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            text,
            "[+]ping ok\n[-]etcd failed: reason withheld\n[+]x excluded: ok\n\
             warn: some health checks cannot be excluded: no matches for \"nope\"\nlivez check failed\n"
        );
        let (code, text) = report("readyz", &checks[..1], BTreeSet::new());
        assert_eq!((code, &*text), (StatusCode::OK, "[+]ping ok\nreadyz check passed\n"));
    }
}
