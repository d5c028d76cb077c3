//! cpu: shares or weight, bandwidth, real time, idle.

use oci_spec::runtime::LinuxCpu;

use crate::cgroup::{CgroupError, Controller, Write};

const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 1 << 18;
const DEFAULT_PERIOD: u64 = 100_000;

fn set<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

pub fn wanted(cpu: &LinuxCpu) -> bool {
    set(cpu.shares()).is_some()
        || set(cpu.quota()).is_some()
        || set(cpu.period()).is_some()
        || set(cpu.realtime_runtime()).is_some()
        || set(cpu.realtime_period()).is_some()
        || cpu.burst().is_some()
        || cpu.idle().is_some()
}

pub fn v1(cpu: &LinuxCpu) -> Result<Vec<Write>, CgroupError> {
    let write = |file: &'static str, value: String| Write::new(Controller::Cpu, file, value);
    let mut writes = Vec::new();
    let runtime = set(cpu.realtime_runtime());
    if let Some(period) = set(cpu.realtime_period()) {
        writes.push(write("cpu.rt_period_us", period.to_string()).defer_invalid_if(runtime.is_some()));
    }
    if let Some(runtime) = runtime {
        writes.push(write("cpu.rt_runtime_us", runtime.to_string()));
    }
    if let Some(shares) = set(cpu.shares()) {
        // The kernel would clamp without a word.
        if !(MIN_SHARES..=MAX_SHARES).contains(&shares) {
            return Err(CgroupError::invalid(
                "linux.resources.cpu.shares",
                format!("{shares} is outside of {MIN_SHARES} to {MAX_SHARES}"),
            ));
        }
        writes.push(write("cpu.shares", shares.to_string()));
    }
    let quota = set(cpu.quota());
    if let Some(period) = set(cpu.period()) {
        // A shorter period with the old quota may ask for more than the parent has.
        writes.push(write("cpu.cfs_period_us", period.to_string()).defer_invalid_if(quota.is_some()));
    }
    if let Some(burst) = cpu.burst() {
        writes.push(
            write("cpu.cfs_burst_us", burst.to_string()).skip_missing().defer_invalid_if(quota.is_some()),
        );
    }
    if let Some(quota) = quota {
        writes.push(write("cpu.cfs_quota_us", quota.to_string()));
    }
    if let Some(idle) = cpu.idle() {
        writes.push(write("cpu.idle", idle.to_string()));
    }
    Ok(writes)
}

pub fn v2(cpu: &LinuxCpu) -> Result<Vec<Write>, CgroupError> {
    let write = |file: &'static str, value: String| Write::new(Controller::Cpu, file, value);
    if set(cpu.realtime_runtime()).is_some() || set(cpu.realtime_period()).is_some() {
        return Err(CgroupError::invalid(
            "linux.resources.cpu.realtimeRuntime",
            "cgroup v2 has no real-time bandwidth: remove it, or use cgroup v1",
        ));
    }
    let mut writes = Vec::new();
    if let Some(idle) = cpu.idle() {
        writes.push(write("cpu.idle", idle.to_string()));
    }
    // An idle cgroup has no weight: the kernel answers EINVAL.
    if let Some(shares) = set(cpu.shares()).filter(|_| cpu.idle() != Some(1)) {
        writes.push(write("cpu.weight", weight_of_shares(shares).to_string()));
    }
    let (quota, period) = (set(cpu.quota()), set(cpu.period()));
    let bandwidth = quota.is_some() || period.is_some();
    if let Some(burst) = cpu.burst() {
        writes.push(write("cpu.max.burst", burst.to_string()).skip_missing().defer_invalid_if(bandwidth));
    }
    if bandwidth {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        writes.push(write("cpu.max", format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD))));
    }
    Ok(writes)
}

/// Shares (2 to 262144, default 1024) as weight (1 to 10000, default 100): the curve through those three points that
/// runc, crun and systemd agreed on (kubernetes/kubernetes#131216).
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=MIN_SHARES => 1,
        MAX_SHARES.. => 10_000,
        _ => {
            let log = f64::from(shares as u32).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;
    use oci_spec::runtime::LinuxCpuBuilder as Cpu;

    #[test]
    fn shares_become_weight() {
        for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (1_000_000, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        let weights: Vec<u64> = (2..=4096).map(weight_of_shares).collect();
        assert!(weights.is_sorted(), "more shares never mean less weight");
    }

    #[test]
    fn v1_writes_in_the_order_the_kernel_accepts() {
        let cpu = Cpu::default()
            .shares(512u64)
            .quota(50_000i64)
            .period(100_000u64)
            .burst(1000u64)
            .idle(0i64)
            .build()
            .unwrap();
        let writes = v1(&cpu).unwrap();
        assert_eq!(
            shown(&writes),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_burst_us=1000",
                "cpu.cfs_quota_us=50000",
                "cpu.idle=0"
            ]
        );
        assert!(writes[1].defer_invalid && writes[2].defer_invalid && !writes[3].defer_invalid);
    }

    #[test]
    fn v1_period_alone_is_not_deferred_and_shares_have_bounds() {
        let cpu = Cpu::default().period(1000u64).build().unwrap();
        assert!(!v1(&cpu).unwrap()[0].defer_invalid);
        for shares in [1u64, 262_145] {
            let error = v1(&Cpu::default().shares(shares).build().unwrap()).unwrap_err().to_string();
            assert!(error.contains("linux.resources.cpu.shares") && error.contains("262144"), "{error}");
        }
    }

    #[test]
    fn v2_bandwidth_is_one_file() {
        for (quota, period, value) in
            [(Some(5i64), None, "5 100000"), (Some(-1), Some(7u64), "max 7"), (None, Some(7), "max 7")]
        {
            let mut cpu = LinuxCpu::default();
            cpu.set_quota(quota).set_period(period);
            assert_eq!(shown(&v2(&cpu).unwrap()), [format!("cpu.max={value}")]);
        }
    }

    #[test]
    fn v2_idle_has_no_weight_and_refuses_real_time() {
        let idle = Cpu::default().shares(1024u64).idle(1i64).build().unwrap();
        assert_eq!(shown(&v2(&idle).unwrap()), ["cpu.idle=1"]);
        let real_time = Cpu::default().realtime_runtime(5i64).build().unwrap();
        assert!(v2(&real_time).unwrap_err().to_string().contains("realtimeRuntime"));
    }

    #[test]
    fn zero_is_not_set() {
        let cpu = Cpu::default().shares(0u64).quota(0i64).period(0u64).build().unwrap();
        assert!(!wanted(&cpu));
        assert!(v1(&cpu).unwrap().is_empty() && v2(&cpu).unwrap().is_empty());
    }
}
