//! Handing the notification descriptor to whoever answers for the container (runtime-spec, "The Container Process
//! State").

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use corten_sys::{Context as _, Failure, scm};
use serde::Serialize;

/// How the descriptor is called in the message's list of descriptors.
const FD_NAME: &str = "seccompFd";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a, S> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a S,
}

/// Send `listener` to the socket at `path`, with the state of the container and the process that is filtered.
/// `pid` is the process in the runtime's pid namespace, `state` what the `state` command prints.
pub fn send_listener(
    path: &Path,
    listener: BorrowedFd<'_>,
    oci_version: &str,
    pid: i32,
    metadata: Option<&str>,
    state: &impl Serialize,
) -> Result<(), Failure> {
    let what = || format!("hand the seccomp listener to {}", path.display());
    let message = ContainerProcessState { oci_version, fds: [FD_NAME], pid, metadata, state };
    let message = serde_json::to_vec(&message).map_err(std::io::Error::from).tried(what)?;
    let socket = UnixStream::connect(path).tried(what)?;
    scm::send(&socket, &message, &[listener]).tried(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn the_agent_gets_the_state_and_the_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let agent = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let file = tempfile::tempfile().unwrap();
        let state = serde_json::json!({"id": "c1", "status": "creating"});
        send_listener(&path, file.as_fd(), "1.2.0", 42, Some("mine"), &state).unwrap();
        let (peer, _) = agent.accept().unwrap();
        let mut buffer = [0; 4096];
        let (length, fds) = scm::receive(&peer, &mut buffer).unwrap();
        let message: serde_json::Value = serde_json::from_slice(&buffer[..length]).unwrap();
        let expected = serde_json::json!({
            "ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": 42, "metadata": "mine", "state": state,
        });
        assert_eq!((message, fds.len()), (expected, 1));
    }

    #[test]
    fn nobody_listening_is_named() {
        let file = tempfile::tempfile().unwrap();
        let error =
            send_listener(Path::new("/nonexistent/agent"), file.as_fd(), "1.2.0", 1, None, &()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/agent: ENOENT"), "{error}");
    }
}
