//! The socket: made private, served until a signal comes. Pods do not notice the end of it.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::daemon::{Daemon, StartError};
use crate::recover::recover;
use crate::rpc::{Router, Service};
use crate::sandbox::janitor;
use crate::{config::Config, error::Error};

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("recover: {0}")]
    Recover(Error),
    #[error("socket {path} is served by another program; stop it, or give this one another --listen")]
    SocketInUse { path: PathBuf },
    #[error("socket {path}: {}", crate::error::io_text(source))]
    Socket { path: PathBuf, source: io::Error },
    #[error("serve {path}: {source}")]
    Serve { path: PathBuf, source: tonic::transport::Error },
}

/// Runs the daemon until `stop` is done.
pub async fn serve(config: Config, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    let path = config.socket();
    let daemon = Daemon::open(config)?;
    // Before recovery: a wrong --listen must not cost it, and no client may ask before it.
    refuse_live(&path).await?;
    recover(&daemon).await.map_err(ServeError::Recover)?;
    let listener = listen(&path)?;
    tokio::spawn(janitor::run(Arc::clone(&daemon)));
    tracing::info!(socket = %path.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    let served = Server::builder().serve_with_incoming_shutdown(
        Router::new(Service { daemon }),
        UnixListenerStream::new(listener),
        stop,
    );
    let served = served.await.map_err(|source| ServeError::Serve { path: path.clone(), source });
    let _ = std::fs::remove_file(&path);
    served
}

/// A socket that answers belongs to somebody; one that does not is a leftover.
async fn refuse_live(path: &Path) -> Result<(), ServeError> {
    match UnixStream::connect(path).await {
        Ok(_) => Err(ServeError::SocketInUse { path: path.into() }),
        Err(_) => Ok(()),
    }
}

/// A path socket that only root can reach, from the moment it exists (CVE-2020-15257).
fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let wrong = |source| ServeError::Socket { path: path.into(), source };
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(wrong)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(wrong)?,
        Ok(_) => {
            return Err(wrong(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is there",
            )));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(wrong(e)),
    }
    // Bound under another name in the same directory and made private before it gets its own.
    let staged = path.with_extension(format!("sock.{}", std::process::id()));
    let _ = std::fs::remove_file(&staged);
    let listener = UnixListener::bind(&staged).map_err(wrong)?;
    std::fs::set_permissions(&staged, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
    std::fs::rename(&staged, path).map_err(wrong)?;
    Ok(listener)
}
