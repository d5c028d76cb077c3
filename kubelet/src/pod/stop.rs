//! Stopping containers: preStop inside the grace period, then the stop signal, then KILL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_cri_api::v1 as cri;
use k8s_openapi::api::core::v1::Pod;

use super::sync::{Kill, Why};
use super::worker::{Shared, Worker};
use super::{container, grace_seconds};
use crate::cri::CriError;
use crate::lifecycle;

/// What a container gets at least, however long its preStop hook took (upstream minimumGracePeriodInSeconds).
const MIN_GRACE: Duration = Duration::from_secs(2);

/// The grace period of a pod, or the one that is given instead; 0 means at once.
pub fn grace(pod: &Pod, instead_seconds: Option<i64>) -> Duration {
    Duration::from_secs(u64::try_from(instead_seconds.unwrap_or(grace_seconds(pod))).unwrap_or(0))
}

/// What is left of `grace` for the stop signal after the hook took `used`.
fn left(grace: Duration, used: Duration) -> Duration {
    grace.saturating_sub(used).max(MIN_GRACE)
}

impl Worker {
    /// Stops containers at the same time, then the sandboxes. The first error is returned after all were tried.
    pub(super) async fn stop_pod(&self, kills: &[Kill], sandboxes: &[String]) -> Result<(), CriError> {
        let mut tasks = tokio::task::JoinSet::new();
        for kill in kills {
            tasks.spawn(stop_container(self.shared.clone(), self.pod.clone(), kill.clone(), self.ip()));
        }
        let mut first = Ok(());
        while let Some(joined) = tasks.join_next().await {
            first = first.and(joined.unwrap_or(Ok(())));
        }
        for id in sandboxes {
            let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.clone() };
            first = first.and(self.shared.cri.stop_pod_sandbox(request).await.map(|_| ()));
        }
        first
    }

    pub(super) async fn kill(&self, kill: &Kill) -> Result<(), CriError> {
        stop_container(self.shared.clone(), self.pod.clone(), kill.clone(), self.ip()).await
    }
}

async fn stop_container(shared: Arc<Shared>, pod: Arc<Pod>, kill: Kill, ip: String) -> Result<(), CriError> {
    let message = match kill.why {
        Why::Unhealthy(probe) => {
            format!("Container {} failed {} probe, will be restarted", kill.name, probe.name().to_lowercase())
        }
        Why::SpecChanged => format!("Container {} definition changed, will be restarted", kill.name),
        Why::Lost => format!("Container {} is in unknown state, will be restarted", kill.name),
        Why::DeadlineExceeded => format!("Stopping container {}: activeDeadlineSeconds is over", kill.name),
        Why::PodDeleted | Why::PodFinished | Why::SandboxChanged => {
            format!("Stopping container {}", kill.name)
        }
    };
    shared.recorder.normal(&pod, Some(&kill.name), "Killing", message);
    let grace = grace(&pod, kill.grace_seconds);
    let begun = Instant::now();
    let spec = container(&pod, &kill.name);
    let hook = spec.and_then(|c| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?)));
    if let Some((spec, hook)) = hook.filter(|_| !grace.is_zero()) {
        let ran = lifecycle::run(&shared.cri, hook, spec, &kill.id, &ip, Some(grace)).await;
        if let Err(error) = ran {
            let message = format!("PreStopHook failed: {error}");
            shared.recorder.warning(&pod, Some(&kill.name), "FailedPreStopHook", message);
        }
    }
    match shared.cri.stop_container(&kill.id, left(grace, begun.elapsed())).await {
        Err(error) if error.code() == crate::cri::Code::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_uses_up_the_grace_period_but_for_two_seconds() {
        let s = Duration::from_secs;
        assert_eq!(left(s(30), s(0)), s(30));
        assert_eq!(left(s(30), s(10)), s(20));
        assert_eq!(left(s(30), s(29)), s(2));
        assert_eq!(left(s(0), s(0)), s(2));
    }
}
