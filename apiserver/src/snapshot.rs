//! `snapshot save` and `snapshot restore`.
//!
//! A running server gives a snapshot to whoever may open its socket (DATA-DIR/snapshot.sock, mode 0600): bytes until
//! the end, which say themselves whether they are whole. Without a server the store's file is opened.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use corten_store::{Config, Embedded, Image, RedbOptions, Store};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::net::{UnixListener, UnixStream};

use crate::options::{DataDir, Restore, Save};

/// The store's file of an instance.
pub fn store_file(data: &DataDir) -> PathBuf {
    data.data_dir.join("store.redb")
}

fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("snapshot.sock")
}

/// Saves all objects into a file that is not there yet; it is on disk when this returns.
///
/// # Errors
/// The file is there, the store cannot be read, or the disk is full; then there is no file.
pub async fn save(args: &Save) -> Result<()> {
    let bytes = bytes(&args.data).await?;
    if args.file.exists() {
        bail!("{} is there already; give another name", args.file.display());
    }
    let part = args.file.with_extension("part");
    let written = write(&part, &args.file, &bytes);
    if written.is_err() {
        fs::remove_file(&part).ok();
    }
    written.with_context(|| format!("write {}", args.file.display()))?;
    let image = Image::read(&mut &bytes[..]).await?;
    println!("{}: {} keys at revision {}", args.file.display(), image.kvs.len(), image.revision);
    Ok(())
}

fn write(part: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut out = File::create(part)?;
    // It holds Secrets.
    out.set_permissions(Permissions::from_mode(0o600))?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(part, file)?;
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// A whole snapshot of an instance, running or not.
pub async fn image(data: &DataDir) -> Result<Image> {
    let bytes = bytes(data).await?;
    Ok(Image::read(&mut &bytes[..]).await?)
}

async fn bytes(data: &DataDir) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let path = socket(&data.data_dir);
    match UnixStream::connect(&path).await {
        Ok(mut stream) => {
            tokio::io::copy(&mut stream, &mut bytes)
                .await
                .with_context(|| format!("read {}", path.display()))?;
            Image::read(&mut &bytes[..]).await.context("the server broke off (its log says why)")?;
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            let file = store_file(data);
            if !file.exists() {
                bail!("no server runs on {} and it holds no {}", data.data_dir.display(), file.display());
            }
            let store = Embedded::open(&file, RedbOptions::default(), Config::default())?;
            corten_store::save(&store, &mut bytes).await?;
            store.close().await?;
        }
        Err(error) => return Err(error).with_context(|| format!("connect to {}", path.display())),
    }
    Ok(bytes)
}

/// Makes a new store of a snapshot.
///
/// # Errors
/// There is a store already, or the snapshot is damaged; nothing is changed then.
pub async fn restore(args: &Restore) -> Result<()> {
    let image = read(&args.file).await?;
    fs::create_dir_all(&args.data.data_dir)
        .with_context(|| format!("make {}", args.data.data_dir.display()))?;
    let file = store_file(&args.data);
    Embedded::restore(&file, &image).with_context(|| format!("restore into {}", file.display()))?;
    println!("{}: {} keys at revision {}", file.display(), image.kvs.len(), image.revision);
    Ok(())
}

/// # Errors
/// It cannot be read, or is damaged.
pub async fn read(file: &Path) -> Result<Image> {
    let opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let mut source =
        tokio::io::BufReader::new(tokio::fs::File::from_std(BufReader::new(opened).into_inner()));
    Image::read(&mut source).await.with_context(|| format!("read {}", file.display()))
}

/// Gives snapshots to those who connect, until it is dropped; the socket goes with it.
pub struct Giver {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.task.abort();
        fs::remove_file(&self.path).ok();
    }
}

impl Giver {
    /// Must be called by the one server of a data directory: a socket that is there is of one that was killed.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(data_dir: &Path, store: Arc<dyn Store>) -> Result<Self> {
        let path = socket(data_dir);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        // The data directory is 0700: nobody connects between the two calls.
        let listener = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let mut out = BufWriter::new(stream);
                    match corten_store::save(&*store, &mut out).await {
                        Ok(revision) => tracing::info!(revision, "a snapshot was taken"),
                        Err(error) => tracing::warn!("a snapshot failed: {error}"),
                    }
                    out.shutdown().await.ok();
                });
            }
        });
        Ok(Self { path, task })
    }
}
