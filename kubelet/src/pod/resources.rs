//! Requests and limits → QoS class, OOM score and cgroup values. Pure; formulas and constants are upstream's
//! (`qos/policy.go`, `cm/helpers_linux.go`, `kuberuntime_container_linux.go`).

use corten_cri_api::v1::{HugepageLimit, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::{all_containers, spec};
use crate::quantity::Amount;

/// cpu.cfs_period_us of every limit.
pub const CPU_PERIOD_US: i64 = 100_000;
/// The least quota the kernel takes.
const MIN_QUOTA_US: i64 = 1_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const GUARANTEED_OOM_SCORE_ADJ: i64 = -997;
const BEST_EFFORT_OOM_SCORE_ADJ: i64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Requests,
    Limits,
}

/// QoS class of a pod: what its cgroup and its OOM scores are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// As in `status.qosClass`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// What `container` asks of the resource `name`; validation has seen to it that it parses.
pub fn amount(container: &Container, kind: Kind, name: &str) -> Option<Amount> {
    let resources = container.resources.as_ref()?;
    let list = if kind == Kind::Limits { resources.limits.as_ref() } else { resources.requests.as_ref() }?;
    Amount::parse(&list.get(name)?.0)
}

/// Guaranteed: every container has cpu and memory limits equal to its requests. BestEffort: none asks for anything.
pub fn qos(pod: &Pod) -> Qos {
    let set = |c: &Container, kind, name| amount(c, kind, name).filter(|a| !a.is_zero());
    let names = ["cpu", "memory"];
    let asks = |c: &Container| {
        names.iter().any(|n| set(c, Kind::Requests, n).is_some() || set(c, Kind::Limits, n).is_some())
    };
    let fixed = |c: &Container| {
        names.iter().all(|n| {
            let limit = set(c, Kind::Limits, n);
            limit.is_some() && set(c, Kind::Requests, n).is_none_or(|r| Some(r) == limit)
        })
    };
    if !all_containers(pod).any(asks) {
        Qos::BestEffort
    } else if all_containers(pod).all(fixed) {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// cpu.shares of a request; at least the kernel's 2.
pub fn shares(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 {
        MIN_SHARES
    } else {
        (milli_cpu.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
    }
}

/// cpu.cfs_quota_us of a limit; `None`: no limit.
pub fn quota_us(milli_cpu: i64) -> Option<i64> {
    (milli_cpu != 0).then(|| (milli_cpu.saturating_mul(CPU_PERIOD_US) / 1000).max(MIN_QUOTA_US))
}

/// oom_score_adj of a container's processes: the more it requests of the node's memory, the later it is killed.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity_bytes: i64) -> i64 {
    match qos(pod) {
        Qos::Guaranteed => GUARANTEED_OOM_SCORE_ADJ,
        Qos::BestEffort => BEST_EFFORT_OOM_SCORE_ADJ,
        Qos::Burstable => {
            let request = amount(container, Kind::Requests, "memory").unwrap_or_default().units();
            let score = 1000 - (1000 * i128::from(request) / i128::from(memory_capacity_bytes.max(1))) as i64;
            // 3: later than every Guaranteed pod; 999: earlier than every BestEffort pod.
            score.clamp(1000 + GUARANTEED_OOM_SCORE_ADJ, BEST_EFFORT_OOM_SCORE_ADJ - 1)
        }
    }
}

/// Resources of one container for the runtime.
pub fn of_container(pod: &Pod, container: &Container, memory_capacity_bytes: i64) -> LinuxContainerResources {
    let request = amount(container, Kind::Requests, "cpu").unwrap_or_default();
    let limit = amount(container, Kind::Limits, "cpu").unwrap_or_default();
    LinuxContainerResources {
        cpu_shares: shares(request.milli()),
        cpu_quota: quota_us(limit.milli()).unwrap_or(0),
        cpu_period: CPU_PERIOD_US,
        memory_limit_in_bytes: amount(container, Kind::Limits, "memory").unwrap_or_default().units(),
        oom_score_adj: oom_score_adj(pod, container, memory_capacity_bytes),
        hugepage_limits: huge_pages(container),
        ..Default::default()
    }
}

/// Only sizes that are asked for: many nodes have no hugetlb controller where the runtime looks for it.
fn huge_pages(container: &Container) -> Vec<HugepageLimit> {
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let sizes = limits.into_iter().flatten().filter_map(|(name, quantity)| {
        let size = name.strip_prefix("hugepages-")?;
        Some((Amount::parse(size)?.units(), Amount::parse(&quantity.0)?.units()))
    });
    sizes
        .map(|(size, limit)| HugepageLimit { page_size: page_size_name(size), limit: limit as u64 })
        .collect()
}

/// `2MB`, `1GB`: as the kernel names its hugetlb files.
fn page_size_name(bytes: i64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{}GB", b >> 30),
        b if b >= 1 << 20 => format!("{}MB", b >> 20),
        b => format!("{}KB", b >> 10),
    }
}

/// What the pod's own cgroup gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodLimits {
    pub cpu_shares: i64,
    /// Of [`CPU_PERIOD_US`]. `None`: some container has no limit.
    pub cpu_quota_us: Option<i64>,
    pub memory_limit_bytes: Option<i64>,
}

/// Sums over the containers; init containers run alone, so the largest of them counts. Upstream
/// `ResourceConfigForPod`: a limit only when every container has one, quota and memory not for BestEffort.
pub fn of_pod(pod: &Pod) -> PodLimits {
    let total = |kind, name| {
        let of = |c: &Container| amount(c, kind, name).unwrap_or_default();
        let sum = spec(pod).containers.iter().map(of).fold(Amount::default(), |a, b| a + b);
        spec(pod).init_containers.iter().flatten().map(of).fold(sum, Ord::max)
    };
    let every =
        |name| all_containers(pod).all(|c| amount(c, Kind::Limits, name).is_some_and(|a| !a.is_zero()));
    PodLimits {
        cpu_shares: shares(total(Kind::Requests, "cpu").milli()),
        cpu_quota_us: every("cpu").then(|| quota_us(total(Kind::Limits, "cpu").milli())).flatten(),
        memory_limit_bytes: every("memory").then(|| total(Kind::Limits, "memory").units()),
    }
}

/// CPU the pod requests, in thousandths: what the burstable cgroup's shares are summed from.
pub fn cpu_request_milli(pod: &Pod) -> i64 {
    spec(pod).containers.iter().filter_map(|c| amount(c, Kind::Requests, "cpu")).map(Amount::milli).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[expect(clippy::needless_pass_by_value, reason = "called with json! literals")]
    fn pod(containers: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).expect("pod")
    }
    #[expect(clippy::needless_pass_by_value, reason = "called with json! literals")]
    fn c(name: &str, limits: Value, requests: Value) -> Value {
        json!({"name": name, "resources": {"limits": limits, "requests": requests}})
    }

    #[test]
    fn qos_classes() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        for (containers, class) in [
            (json!([{"name": "a"}]), Qos::BestEffort),
            (json!([c("a", json!({"cpu": "0"}), json!({}))]), Qos::BestEffort),
            (json!([c("a", full.clone(), full.clone())]), Qos::Guaranteed),
            (json!([c("a", full.clone(), json!({}))]), Qos::Guaranteed),
            (json!([c("a", full.clone(), json!({"cpu": "1", "memory": "1024Mi"}))]), Qos::Guaranteed),
            (json!([c("a", full.clone(), json!({"cpu": "500m", "memory": "1Gi"}))]), Qos::Burstable),
            (json!([c("a", full.clone(), full.clone()), {"name": "b"}]), Qos::Burstable),
            (json!([c("a", json!({"cpu": "1"}), json!({"cpu": "1"}))]), Qos::Burstable),
        ] {
            assert_eq!(qos(&pod(containers.clone())), class, "{containers}");
        }
    }

    #[test]
    fn oom_scores() {
        const GIB: i64 = 1 << 30;
        for (limits, requests, score) in [
            (json!({}), json!({}), 1000),
            (json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "1", "memory": "1Gi"}), -997),
            (json!({}), json!({"memory": "1Gi"}), 875),
            (json!({}), json!({"cpu": "1"}), 999),
            (json!({}), json!({"memory": "8Gi"}), 3),
            (json!({}), json!({"memory": "100Gi"}), 3),
            (json!({}), json!({"memory": "1Ki"}), 999),
        ] {
            let pod = pod(json!([c("a", limits, requests.clone())]));
            assert_eq!(oom_score_adj(&pod, &spec(&pod).containers[0], 8 * GIB), score, "{requests}");
        }
    }

    #[test]
    fn shares_and_quota_have_the_kernels_floor() {
        assert_eq!([0, 1, 2, 500, 1000, 10_000_000].map(shares), [2, 2, 2, 512, 1024, 262_144]);
        assert_eq!(
            [0, 1, 10, 100, 1500].map(quota_us),
            [None, Some(1000), Some(1000), Some(10_000), Some(150_000)]
        );
    }

    #[test]
    fn a_pod_is_limited_only_when_all_its_containers_are() {
        let all = pod(json!([
            c("a", json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "500m"})),
            c("b", json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "500m"}))
        ]));
        assert_eq!(
            of_pod(&all),
            PodLimits { cpu_shares: 1024, cpu_quota_us: Some(200_000), memory_limit_bytes: Some(2 << 30) }
        );
        let some = pod(json!([c("a", json!({"cpu": "1"}), json!({})), {"name": "b"}]));
        assert_eq!(of_pod(&some), PodLimits { cpu_shares: 2, cpu_quota_us: None, memory_limit_bytes: None });
    }

    #[test]
    fn huge_pages_are_named_as_the_kernel_names_them() {
        let pod = pod(json!([c(
            "a",
            json!({"cpu": "1", "hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"}),
            json!({})
        )]));
        let limits = of_container(&pod, &spec(&pod).containers[0], 1 << 30).hugepage_limits;
        let text: Vec<_> = limits.iter().map(|l| format!("{} {}", l.page_size, l.limit)).collect();
        assert_eq!(text, ["1GB 1073741824", "2MB 4194304"]);
    }
}
