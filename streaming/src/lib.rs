//! Streams of exec, attach and port-forward: SPDY/3.1 and WebSocket, for the API server and the CRI daemon.
#![forbid(unsafe_code)]
