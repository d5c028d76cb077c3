//! `/metrics`, with upstream's names. Source: apiserver `pkg/endpoints/metrics/metrics.go`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;

use super::version;
use crate::api::Api;
use crate::request::Call;

/// What a request is, as far as metrics tell requests apart. Only of resources that are served: no client makes series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

impl Labels {
    pub fn of(call: &Call) -> Self {
        let info = &call.info;
        let scope = match (info.is_resource, &*info.name, &*info.namespace) {
            (false, ..) => "",
            (true, "", "") => "cluster",
            (true, "", _) => "namespace",
            _ => "resource",
        };
        let verb = match info.verb {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            "head" => "HEAD",
            "connect" => "CONNECT",
            _ => "other",
        };
        Self {
            verb,
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            scope,
        }
    }

    fn write(&self, to: &mut String) {
        let Self { verb, group, version, resource, subresource, scope } = self;
        let _ = write!(
            to,
            "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",\
             subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        );
    }
}

/// Upstream's, in seconds.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

#[derive(Default)]
struct Series {
    requests: BTreeMap<(Labels, u16), u64>,
    durations: BTreeMap<Labels, Histogram>,
    long_running: BTreeMap<Labels, i64>,
    dropped: u64,
    errors: BTreeMap<&'static str, u64>,
}

/// Something that adds lines of its own.
pub type Source = Box<dyn Fn(&mut String) + Send + Sync>;

#[derive(Default)]
pub struct Metrics {
    series: Arc<Mutex<Series>>,
    sources: Mutex<Vec<Source>>,
}

/// A request that goes on; dropping it ends it.
pub struct LongRunning {
    series: Arc<Mutex<Series>>,
    labels: Labels,
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        if let Some(count) = lock(&self.series).long_running.get_mut(&self.labels) {
            *count -= 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// Adds what others measure: `etcd_*`, `authenticated_user_requests`, ...
    pub fn add(&self, source: Source) {
        lock(&self.sources).push(source);
    }

    /// A request was answered. `time` of one that does not go on.
    pub fn answered(&self, labels: Labels, code: StatusCode, time: Option<Duration>) {
        let mut series = lock(&self.series);
        if let Some(time) = time {
            let histogram = series.durations.entry(labels.clone()).or_default();
            let seconds = time.as_secs_f64();
            if let Some(at) = BUCKETS.iter().position(|limit| seconds <= *limit) {
                histogram.buckets[at] += 1;
            }
            histogram.count += 1;
            histogram.sum += seconds;
        }
        *series.requests.entry((labels, code.as_u16())).or_default() += 1;
    }

    pub fn dropped(&self) {
        lock(&self.series).dropped += 1;
    }

    /// `apiserver_request_aborts_total` and its like, without labels.
    pub fn count(&self, name: &'static str) {
        *lock(&self.series).errors.entry(name).or_default() += 1;
    }

    pub fn long_running(&self, labels: Labels) -> LongRunning {
        *lock(&self.series).long_running.entry(labels.clone()).or_default() += 1;
        LongRunning { series: Arc::clone(&self.series), labels }
    }

    /// In Prometheus' text format.
    pub async fn render(&self, api: &Api) -> String {
        let watchers = api.watches.watchers().await;
        let mut out = String::with_capacity(16 << 10);
        self.write_requests(&mut out);
        header(&mut out, "apiserver_current_inflight_requests", "gauge");
        for (kind, count) in [("mutating", &api.in_flight.mutating), ("readOnly", &api.in_flight.read_only)] {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {count}");
        }
        header(&mut out, "apiserver_watch_cache_watchers", "gauge");
        for (prefix, count) in watchers {
            let prefix = String::from_utf8_lossy(&prefix);
            let _ = writeln!(out, "apiserver_watch_cache_watchers{{resource_prefix=\"{prefix}\"}} {count}");
        }
        header(&mut out, "kubernetes_build_info", "gauge");
        let _ = writeln!(
            out,
            "kubernetes_build_info{{git_version=\"{}\",major=\"{}\",minor=\"{}\",platform=\"linux\"}} 1",
            version::git_version(),
            version::MAJOR,
            version::MINOR
        );
        write_process(&mut out);
        for source in &*lock(&self.sources) {
            source(&mut out);
        }
        out
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
    fn write_requests(&self, out: &mut String) {
        let series = lock(&self.series);
        header(out, "apiserver_request_total", "counter");
        for ((labels, code), count) in &series.requests {
            let _ = write!(out, "apiserver_request_total{{code=\"{code}\",dry_run=\"\",");
            labels.write(out);
            let _ = writeln!(out, "}} {count}");
        }
        header(out, "apiserver_request_duration_seconds", "histogram");
        for (labels, histogram) in &series.durations {
            let mut below = 0;
            let limits = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            for (limit, bucket) in limits.zip(histogram.buckets.iter().copied().chain([0])) {
                below = if limit == "+Inf" { histogram.count } else { below + bucket };
                out.push_str("apiserver_request_duration_seconds_bucket{dry_run=\"\",");
                labels.write(out);
                let _ = writeln!(out, ",le=\"{limit}\"}} {below}");
            }
            for (name, value) in [("sum", histogram.sum), ("count", histogram.count as f64)] {
                let _ = write!(out, "apiserver_request_duration_seconds_{name}{{dry_run=\"\",");
                labels.write(out);
                let _ = writeln!(out, "}} {value}");
            }
        }
        header(out, "apiserver_longrunning_requests", "gauge");
        for (labels, count) in &series.long_running {
            out.push_str("apiserver_longrunning_requests{");
            labels.write(out);
            let _ = writeln!(out, "}} {count}");
        }
        header(out, "apiserver_dropped_requests_total", "counter");
        let _ = writeln!(out, "apiserver_dropped_requests_total {}", series.dropped);
        for (name, count) in &series.errors {
            header(out, name, "counter");
            let _ = writeln!(out, "{name} {count}");
        }
    }
}

fn header(out: &mut String, name: &str, kind: &str) {
    let _ = writeln!(out, "# TYPE {name} {kind}");
}

/// What the kernel knows of this process; left out where `/proc` is not.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
fn write_process(out: &mut String) {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    let mut gauge = |name: &str, kind: &str, value: Option<f64>| {
        if let Some(value) = value {
            header(out, name, kind);
            let _ = writeln!(out, "{name} {value}");
        }
    };
    let cpu = field(11).zip(field(12)).map(|(user, system)| (user + system) / ticks);
    gauge("process_cpu_seconds_total", "counter", cpu);
    gauge("process_virtual_memory_bytes", "gauge", field(20));
    let page = rustix::param::page_size() as f64;
    gauge("process_resident_memory_bytes", "gauge", field(21).map(|pages| pages * page));
    let descriptors = std::fs::read_dir("/proc/self/fd").ok().map(|dir| dir.count() as f64);
    gauge("process_open_fds", "gauge", descriptors);
    let booted = std::fs::read_to_string("/proc/stat").ok().and_then(|stat| {
        stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())
    });
    gauge(
        "process_start_time_seconds",
        "gauge",
        booted.zip(field(19)).map(|(boot, start)| boot + start / ticks),
    );
}
