//! Work that outlives the call that began it. A client whose deadline passes tries again with the same name: the retry
//! waits for the work that is still running, or gets the result that nobody was there to take, instead of an error
//! about a name that is taken (kubernetes #107561, containerd #8980).

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::error::Error;

type Outcome = Option<Result<String, Arc<Error>>>;

/// Work by name. The result of each is an id.
#[derive(Debug, Default)]
pub struct Jobs {
    entries: Mutex<HashMap<String, watch::Sender<Outcome>>>,
}

impl Jobs {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Outcome>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result of the work called `name`: of `work`, started now, or of the same work started before.
    pub async fn run<F>(self: &Arc<Self>, name: String, work: impl FnOnce() -> F) -> Result<String, Error>
    where
        F: Future<Output = Result<String, Error>> + Send + 'static,
    {
        let mut receiver = self.join_or_start(name.clone(), work);
        let outcome = receiver.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        // Taken: whoever comes with this name from now on is a stranger.
        self.entries().remove(&name);
        let result = outcome.ok().flatten().expect("the task that holds the sender always sends");
        result.map_err(Error::Shared)
    }

    fn join_or_start<F>(self: &Arc<Self>, name: String, work: impl FnOnce() -> F) -> watch::Receiver<Outcome>
    where
        F: Future<Output = Result<String, Error>> + Send + 'static,
    {
        let mut entries = self.entries();
        if let Some(sender) = entries.get(&name) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        entries.insert(name.clone(), sender.clone());
        let work = work();
        let jobs = Arc::clone(self);
        tokio::spawn(async move {
            let result = work.await.map_err(Arc::new);
            // A failure that nobody waits for was undone; the next try starts anew.
            if result.is_err() && sender.receiver_count() == 0 {
                jobs.entries().remove(&name);
            }
            sender.send_replace(Some(result));
        });
        receiver
    }

    /// Drops an untaken result, because what it names is gone.
    pub fn forget(&self, name: &str) {
        let mut entries = self.entries();
        if entries.get(name).is_some_and(|sender| sender.borrow().is_some()) {
            entries.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    fn failure() -> Error {
        Error::Argument { field: "x", why: "y".into() }
    }

    #[tokio::test]
    async fn a_retry_waits_for_work_whose_caller_left() {
        let (jobs, gate, starts) =
            (Arc::new(Jobs::default()), Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let call = || {
            let (gate, starts) = (Arc::clone(&gate), Arc::clone(&starts));
            jobs.run("a".into(), move || async move {
                starts.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                Ok("id".to_owned())
            })
        };
        assert!(tokio::time::timeout(Duration::from_millis(20), call()).await.is_err());
        gate.notify_one();
        assert_eq!(call().await.unwrap(), "id");
        assert_eq!(starts.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_result_nobody_took_is_handed_out_once() {
        let jobs = Arc::new(Jobs::default());
        let (done, finished) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (d, f) = (Arc::clone(&done), Arc::clone(&finished));
        let first = jobs.run("a".into(), move || async move {
            d.notified().await;
            f.notify_one();
            Ok("first".to_owned())
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), first).await.is_err());
        done.notify_one();
        finished.notified().await;
        assert_eq!(jobs.run("a".into(), || async { Ok("second".to_owned()) }).await.unwrap(), "first");
        assert_eq!(jobs.run("a".into(), || async { Ok("second".to_owned()) }).await.unwrap(), "second");
    }

    #[tokio::test]
    async fn a_failure_is_told_to_who_waits_and_then_forgotten() {
        let jobs = Arc::new(Jobs::default());
        jobs.run("a".into(), || async { Err(failure()) }).await.unwrap_err();
        assert_eq!(jobs.run("a".into(), || async { Ok("id".to_owned()) }).await.unwrap(), "id");
    }
}
