//! Records in one redb file. Tables: `records` (revision → record), `leases` (id → seconds), `meta`.
//!
//! Records are appended at the right end of their tree, so the writes of one batch touch few pages. redb checks its
//! pages when the file is opened, records carry checksums of their own that every read checks, and what was answered
//! is known beside the file ([`acknowledged`]).
//!
//! After a failed commit redb takes no more; the file is opened again for the next call. What the failed one may have
//! left is taken out with the next commit.

mod acknowledged;
mod file;
mod meta;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ::redb::{
    Builder, CompactionError, Database, Error, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, TableHandle, WriteTransaction,
};

use super::{Batch, Engine, Loaded, Meta, Record};
use crate::StoreError;
use crate::api::{LeaseId, Revision};
use acknowledged::Acknowledged;
use file::DiskFile;
use meta::Unreadable;

const RECORDS: TableDefinition<'_, i64, &[u8]> = TableDefinition::new("records");
const LEASES: TableDefinition<'_, i64, u64> = TableDefinition::new("leases");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const META_KEY: &str = "corten-store";
const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// Below this a file is not worth shrinking.
const SMALL_BYTES: u64 = 32 << 20;

#[derive(Debug, Clone)]
pub struct RedbOptions {
    /// Pages that redb keeps in memory; the store keeps values itself.
    pub cache_bytes: usize,
}

impl Default for RedbOptions {
    /// 16 MiB.
    fn default() -> Self {
        Self { cache_bytes: 16 << 20 }
    }
}

pub struct Redb {
    path: PathBuf,
    options: RedbOptions,
    state: RwLock<State>,
    /// The last revision of the last commit that succeeded.
    committed: AtomicI64,
    acknowledged: Mutex<Acknowledged>,
}

enum State {
    Open(Database),
    /// A commit failed; it is not known whether it is in the file.
    Failed,
    Closed,
}

impl Redb {
    /// Opens the file or makes it, and checks every page.
    pub fn open(path: &Path, options: RedbOptions) -> Result<Self, StoreError> {
        let new = !path.exists();
        let database = open_database(path, &options)?;
        let acknowledged = Acknowledged::open(path)?;
        if new {
            sync_directory(path)?;
        }
        let redb = Self {
            path: path.to_owned(),
            options,
            state: RwLock::new(State::Open(database)),
            committed: AtomicI64::new(0),
            acknowledged: Mutex::new(acknowledged),
        };
        let meta = redb.with(Self::check_meta)?;
        redb.committed.store(meta.revision, Ordering::Release);
        let acknowledged = redb.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).revision;
        if meta.revision < acknowledged {
            return Err(redb.corrupted(format!(
                "its last revision is {}, but {acknowledged} was answered: its last writes are gone, or an older copy \
                 was put in its place",
                meta.revision
            )));
        }
        Ok(redb)
    }

    /// A new file, made by `fill` under another name.
    pub fn make(
        path: &Path,
        fill: impl FnOnce(&dyn Engine) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if path.exists() || acknowledged::path_of(path).exists() {
            return Err(StoreError::NotEmpty);
        }
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let _ = fs::remove_file(&unfinished);
        let _ = fs::remove_file(acknowledged::path_of(&unfinished));
        let made = Self::open(&unfinished, RedbOptions::default()).and_then(|engine| {
            fill(&engine)?;
            engine.close()
        });
        let _ = fs::remove_file(acknowledged::path_of(&unfinished));
        let named = made.and_then(|()| {
            fs::rename(&unfinished, path).map_err(|error| StoreError::file("name", path, &error))?;
            sync_directory(path)
        });
        if named.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        named
    }

    /// Is it ours? A new file has no tables.
    fn check_meta(database: &Database) -> Result<Meta, Error> {
        let read = database.begin_read()?;
        let tables: Vec<_> = read.list_tables()?.map(|table| table.name().to_owned()).collect();
        if tables.is_empty() {
            return Ok(Meta { revision: 0, ..Meta::default() });
        }
        let foreign = || Error::TableDoesNotExist(format!("meta (it has {})", tables.join(", ")));
        if !tables.iter().any(|table| table == META.name()) {
            return Err(foreign());
        }
        let table = read.open_table(META)?;
        let bytes = table.get(META_KEY)?.ok_or_else(foreign)?;
        match meta::decode(bytes.value()) {
            Ok(meta) => Ok(meta),
            Err(Unreadable::Version(version)) => Err(Error::UpgradeRequired(version.min(255) as u8)),
            Err(Unreadable::Damaged) => Err(Error::Corrupted("the record of its revision is damaged".into())),
        }
    }

    /// Runs `act` on the open database; opens it anew after a failure.
    fn with<T>(&self, act: impl Fn(&Database) -> Result<T, Error>) -> Result<T, StoreError> {
        for _ in 0..2 {
            if let State::Open(database) = &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
                match act(database) {
                    // Another call failed before this one.
                    Err(Error::PreviousIo) => {}
                    outcome => return outcome.map_err(|error| store_error(&self.path, "use", error)),
                }
            }
            self.reopen()?;
        }
        Err(self.corrupted("it fails again and again".into()))
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Closed = &*state {
            return Err(StoreError::Closed);
        }
        // Let go of the file and its lock first.
        *state = State::Failed;
        *state = State::Open(open_database(&self.path, &self.options)?);
        Ok(())
    }

    fn write(transaction: &WriteTransaction, batch: &Batch, committed: Revision) -> Result<(), Error> {
        let mut records = transaction.open_table(RECORDS)?;
        // What a failed commit may have left; nobody was told of it.
        if records.last()?.is_some_and(|(last, _)| last.value() > committed) {
            records.retain_in(committed + 1.., |_, _| false)?;
        }
        for (revision, record) in &batch.records {
            records.insert(revision, record.encode(*revision).as_slice())?;
        }
        for revision in &batch.removed {
            records.remove(revision)?;
        }
        let mut leases = transaction.open_table(LEASES)?;
        for (lease, ttl) in &batch.leases {
            match ttl {
                Some(ttl) => leases.insert(lease.number(), ttl.as_secs())?,
                None => leases.remove(lease.number())?,
            };
        }
        transaction.open_table(META)?.insert(META_KEY, meta::encode(&batch.meta).as_slice())?;
        Ok(())
    }

    fn corrupted(&self, what: String) -> StoreError {
        StoreError::Corrupted { file: self.path.clone(), what }
    }

    fn decode(revision: Revision, bytes: &[u8]) -> Result<Arc<Record>, Error> {
        let record = Record::decode(revision, bytes);
        record
            .map(Arc::new)
            .map_err(|what| Error::Corrupted(format!("the record of revision {revision} {what}")))
    }
}

impl Engine for Redb {
    fn load(&self, each: &mut dyn FnMut(Loaded) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let State::Open(database) = &*state else { return Err(StoreError::Closed) };
        let wrong = |error: Error| store_error(&self.path, "read", error);
        let meta = Self::check_meta(database).map_err(wrong)?;
        if meta.revision == 0 {
            return each(Loaded::Meta(Meta::default()));
        }
        let rows = || -> Result<_, Error> {
            let read = database.begin_read()?;
            Ok((read.open_table(LEASES)?, read.open_table(RECORDS)?))
        };
        let (leases, records) = rows().map_err(wrong)?;
        each(Loaded::Meta(meta))?;
        for row in leases.iter().map_err(|error| wrong(error.into()))? {
            let (lease, seconds) = row.map_err(|error| wrong(error.into()))?;
            if let Some(lease) = LeaseId::of(lease.value()) {
                each(Loaded::Lease(lease, Duration::from_secs(seconds.value())))?;
            }
        }
        for row in records.iter().map_err(|error| wrong(error.into()))? {
            let (revision, bytes) = row.map_err(|error| wrong(error.into()))?;
            let revision = revision.value();
            each(Loaded::Record(revision, Self::decode(revision, bytes.value()).map_err(wrong)?))?;
        }
        Ok(())
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let committed = self.committed.load(Ordering::Acquire);
        let outcome = self.with(|database| {
            let transaction = database.begin_write()?;
            Self::write(&transaction, batch, committed)?;
            Ok(transaction.commit()?)
        });
        if outcome.is_err() {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if matches!(*state, State::Open(_)) {
                *state = State::Failed;
            }
        }
        outcome?;
        self.committed.store(batch.meta.revision, Ordering::Release);
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = acknowledged.set(batch.meta.revision) {
            // It only checks: what is durable is durable.
            tracing::warn!(file = %self.path.display(), %error, "cannot note the last revision beside the store");
        }
        Ok(())
    }

    fn read(&self, revisions: &[Revision]) -> Result<Vec<Option<Arc<Record>>>, StoreError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let read = |revision: &Revision| match table.get(revision)? {
                Some(bytes) => Self::decode(*revision, bytes.value()).map(Some),
                None => Ok(None),
            };
            revisions.iter().map(read).collect()
        })
    }

    fn scan(&self, from: Revision, limit: usize) -> Result<Vec<(Revision, Arc<Record>)>, StoreError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let mut found = Vec::new();
            for row in table.range(from..)?.take(limit) {
                let (revision, bytes) = row?;
                found.push((revision.value(), Self::decode(revision.value(), bytes.value())?));
            }
            Ok(found)
        })
    }

    /// When the file is more than four times what it holds: redb reuses free pages but does not give them back.
    fn shrink(&self, live_bytes: u64) -> Result<(), StoreError> {
        let size =
            fs::metadata(&self.path).map_err(|error| StoreError::file("look at", &self.path, &error))?.len();
        if size < SMALL_BYTES || size / 4 < live_bytes {
            return Ok(());
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State::Open(database) = &mut *state else { return Ok(()) };
        let compacted = database.compact().map_err(|error| match error {
            CompactionError::Storage(error) => store_error(&self.path, "shrink", error.into()),
            other => StoreError::Refused(format!("cannot shrink {}: {other}", self.path.display())),
        });
        if compacted.is_err() {
            *state = State::Failed;
        }
        compacted.map(|_| ())
    }

    fn close(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Closed) {
            State::Open(database) => {
                database.close().map_err(|error| store_error(&self.path, "close", error.into()))
            }
            State::Failed | State::Closed => Ok(()),
        }
    }
}

fn open_database(path: &Path, options: &RedbOptions) -> Result<Database, StoreError> {
    let disk = DiskFile::open(path)?;
    let magic = disk.magic().map_err(|error| StoreError::file("read", path, &error))?;
    if !magic.is_empty() && magic != MAGIC {
        let what = "it is no redb file".to_owned();
        return Err(StoreError::Foreign { file: path.to_owned(), what });
    }
    let length = disk.len().map_err(|error| StoreError::file("read", path, &error))?;
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes).set_check_integrity_on_open(length > 0);
    builder.create_with_backend(disk).map_err(|error| store_error(path, "open", error.into()))
}

/// The new file's name is durable too.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| StoreError::file("sync the directory of", path, &error))
}

fn store_error(path: &Path, doing: &'static str, error: Error) -> StoreError {
    let file = path.to_owned();
    match error {
        Error::Io(error) => StoreError::file(doing, path, &error),
        Error::Corrupted(what) => StoreError::Corrupted { file, what },
        Error::UpgradeRequired(version) => {
            StoreError::Foreign { file, what: format!("it has the format {version} of another release") }
        }
        Error::TableDoesNotExist(what) => {
            StoreError::Foreign { file, what: format!("it has no table {what}") }
        }
        error @ (Error::TableTypeMismatch { .. }
        | Error::TableIsMultimap(_)
        | Error::TypeDefinitionChanged { .. }) => StoreError::Foreign { file, what: error.to_string() },
        Error::DatabaseAlreadyOpen => StoreError::InUse { file },
        Error::DatabaseClosed => StoreError::Closed,
        error => StoreError::File { doing, file, error: error.to_string() },
    }
}
