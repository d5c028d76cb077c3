//! All sandboxes and containers, in memory: what List and Status answer from. The disk has the same, by record.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::container::record::{ContainerName, ContainerRecord};
use crate::container::state::{Exit, State};
use crate::error::{Error, Kind};
use crate::files::FileError;
use crate::id::{Unresolved, resolve};
use crate::monitor::Monitor;
use crate::sandbox::record::{SandboxDir, SandboxName, SandboxRecord};
use crate::sandbox::state::{Event, Phase, step};

/// A pod sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub id: String,
    pub dir: SandboxDir,
    /// The monitor's directory.
    pub state_dir: PathBuf,
    record: Mutex<SandboxRecord>,
    monitor: Mutex<Option<Monitor>>,
    /// Held by what makes it, stops it, removes it, or puts a container into it.
    pub operation: tokio::sync::RwLock<()>,
}

impl Sandbox {
    pub fn new(record: SandboxRecord, dir: SandboxDir, state_dir: PathBuf) -> Self {
        Self {
            id: record.id.clone(),
            dir,
            state_dir,
            record: Mutex::new(record),
            monitor: Mutex::new(None),
            operation: tokio::sync::RwLock::default(),
        }
    }

    pub fn record(&self) -> SandboxRecord {
        lock(&self.record).clone()
    }

    pub fn phase(&self) -> Phase {
        lock(&self.record).phase
    }

    /// Changes the record: on disk first.
    pub fn update(&self, change: impl FnOnce(&mut SandboxRecord)) -> Result<(), FileError> {
        let mut record = lock(&self.record);
        let mut next = record.clone();
        change(&mut next);
        next.write(&self.dir)?;
        *record = next;
        Ok(())
    }

    /// Takes the step `event` causes, if any, with `reason` where it leads away from ready.
    pub fn happened(&self, event: Event, reason: Option<String>) -> Result<(), FileError> {
        let Some(phase) = step(self.phase(), event) else { return Ok(()) };
        self.update(|r| {
            r.phase = phase;
            r.reason = reason.or(r.reason.take());
        })
    }

    pub fn monitor(&self) -> Option<Monitor> {
        lock(&self.monitor).clone()
    }

    pub fn set_monitor(&self, monitor: Option<Monitor>) {
        *lock(&self.monitor) = monitor;
    }

    /// The directory of a container's `config.json`, and below it its root file system.
    pub fn bundle(&self, container: &str) -> PathBuf {
        self.state_dir.join("bundles").join(container)
    }
}

/// A container.
#[derive(Debug)]
pub struct Container {
    pub id: String,
    pub sandbox: Arc<Sandbox>,
    /// Where its record lies.
    pub dir: PathBuf,
    record: Mutex<ContainerRecord>,
    exited: watch::Sender<bool>,
    /// Held by what starts or removes it.
    pub operation: tokio::sync::Mutex<()>,
}

impl Container {
    pub fn new(record: ContainerRecord, sandbox: Arc<Sandbox>) -> Self {
        let exited = watch::Sender::new(record.facts.exit.is_some());
        Self {
            id: record.id.clone(),
            dir: sandbox.dir.container(&record.id),
            sandbox,
            record: Mutex::new(record),
            exited,
            operation: tokio::sync::Mutex::default(),
        }
    }

    pub fn record(&self) -> ContainerRecord {
        lock(&self.record).clone()
    }

    pub fn state(&self) -> State {
        lock(&self.record).facts.state()
    }

    /// Changes the record: on disk first.
    pub fn update(&self, change: impl FnOnce(&mut ContainerRecord)) -> Result<(), FileError> {
        let mut record = lock(&self.record);
        let mut next = record.clone();
        change(&mut next);
        next.write(&self.dir)?;
        *record = next;
        self.exited.send_replace(record.facts.exit.is_some());
        Ok(())
    }

    /// Notes its end; the first one noted stands.
    pub fn ended(&self, exit: Exit) -> Result<(), FileError> {
        self.update(|r| {
            r.facts.exit.get_or_insert(exit);
        })
    }

    /// Waits until its end is noted.
    pub async fn exited(&self) {
        let mut exited = self.exited.subscribe();
        // The sender lives as long as `self`.
        let _ = exited.wait_for(|exited| *exited).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The whole.
#[derive(Debug, Default)]
pub struct Store {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sandboxes: BTreeMap<String, Arc<Sandbox>>,
    containers: BTreeMap<String, Arc<Container>>,
    sandbox_names: HashMap<SandboxName, String>,
    container_names: HashMap<ContainerName, String>,
}

impl Store {
    /// Reserves the name of a new sandbox. [`Store::release_sandbox`] gives it back.
    pub fn reserve_sandbox(&self, name: &SandboxName, id: &str) -> Result<(), Error> {
        reserve(&mut lock(&self.inner).sandbox_names, name, &name.0, id, Kind::Sandbox)
    }

    pub fn reserve_container(&self, name: &ContainerName, id: &str) -> Result<(), Error> {
        reserve(&mut lock(&self.inner).container_names, name, &name.0, id, Kind::Container)
    }

    pub fn release_sandbox(&self, name: &SandboxName) {
        lock(&self.inner).sandbox_names.remove(name);
    }

    pub fn release_container(&self, name: &ContainerName) {
        lock(&self.inner).container_names.remove(name);
    }

    pub fn add_sandbox(&self, sandbox: Arc<Sandbox>) {
        let mut inner = lock(&self.inner);
        inner.sandbox_names.insert(sandbox.record().name(), sandbox.id.clone());
        inner.sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    pub fn add_container(&self, container: Arc<Container>) {
        let mut inner = lock(&self.inner);
        inner.container_names.insert(container.record().name(), container.id.clone());
        inner.containers.insert(container.id.clone(), container);
    }

    /// Forgets it and frees its name.
    pub fn remove_sandbox(&self, sandbox: &Sandbox) {
        let mut inner = lock(&self.inner);
        inner.sandboxes.remove(&sandbox.id);
        inner.sandbox_names.remove(&sandbox.record().name());
    }

    pub fn remove_container(&self, container: &Container) {
        let mut inner = lock(&self.inner);
        inner.containers.remove(&container.id);
        inner.container_names.remove(&container.record().name());
    }

    /// By id or by a prefix that fits only one.
    pub fn sandbox(&self, given: &str) -> Result<Arc<Sandbox>, Error> {
        find(&lock(&self.inner).sandboxes, given, Kind::Sandbox)
    }

    pub fn container(&self, given: &str) -> Result<Arc<Container>, Error> {
        find(&lock(&self.inner).containers, given, Kind::Container)
    }

    pub fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        lock(&self.inner).sandboxes.values().cloned().collect()
    }

    pub fn containers(&self) -> Vec<Arc<Container>> {
        lock(&self.inner).containers.values().cloned().collect()
    }

    pub fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let inner = lock(&self.inner);
        inner.containers.values().filter(|c| c.sandbox.id == sandbox).cloned().collect()
    }
}

/// `Ok(None)` for what does not exist: calls that are idempotent take that for done.
pub fn optional<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn find<T>(all: &BTreeMap<String, Arc<T>>, given: &str, kind: Kind) -> Result<Arc<T>, Error> {
    match resolve(given, all.keys()) {
        Ok(id) => Ok(Arc::clone(&all[id])),
        Err(Unresolved::Missing) => Err(Error::Missing { kind, id: given.into() }),
        Err(Unresolved::Ambiguous(first, second)) => {
            Err(Error::Ambiguous { kind, id: given.into(), first, second })
        }
    }
}

fn reserve<N: Clone + Eq + std::hash::Hash>(
    names: &mut HashMap<N, String>,
    name: &N,
    text: &str,
    id: &str,
    kind: Kind,
) -> Result<(), Error> {
    if let Some(other) = names.get(name) {
        return Err(Error::NameTaken { kind, name: text.into(), id: other.clone() });
    }
    names.insert(name.clone(), id.into());
    Ok(())
}
