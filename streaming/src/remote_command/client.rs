//! The side that asks for the command, over SPDY. Source: client-go `tools/remotecommand/{spdy,v4}.go`.

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Input, Options, Outcome, Output, Size};
use crate::Closed;
use crate::spdy::{Config, Connection, Headers, OpenError, Stream};

/// What a Status may be long.
const MAX_STATUS: usize = 64 << 10;

pub struct ClientSession {
    pub stdin: Option<Output>,
    pub stdout: Option<Input>,
    pub stderr: Option<Input>,
    resize: Option<Output>,
    error: Input,
    connection: Connection,
    /// Kept until the end: half of a stream that is dropped is reset.
    _inputs: Vec<Input>,
    _outputs: Vec<Output>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot open the stream {kind}: {error}")]
pub struct ClientError {
    pub kind: &'static str,
    pub error: OpenError,
}

/// Opens the streams of version 4 on a connection that has been upgraded.
pub async fn connect<T>(io: T, config: Config, options: Options) -> Result<ClientSession, ClientError>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let connection = Connection::new(io, config);
    let open = async |wanted: bool, kind: &'static str| -> Result<Option<Stream>, ClientError> {
        if !wanted {
            return Ok(None);
        }
        let headers = Headers::default().with("streamType", kind);
        connection.open(headers).await.map(Some).map_err(|error| ClientError { kind, error })
    };
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let error = open(true, "error").await?;
    let stdin = open(options.stdin, "stdin").await?;
    let stdout = open(options.stdout, "stdout").await?;
    let stderr = open(options.stderr && !options.tty, "stderr").await?;
    let resize = open(options.tty, "resize").await?;
    let mut reader = |stream: Option<Stream>| {
        let stream = stream?;
        outputs.push(Output::Spdy(stream.output));
        Some(stream.input)
    };
    let error = reader(error).expect("it was opened");
    let (stdout, stderr) = (reader(stdout), reader(stderr));
    let mut writer = |stream: Option<Stream>| {
        let stream = stream?;
        inputs.push(stream.input);
        Some(Output::Spdy(stream.output))
    };
    let (stdin, resize) = (writer(stdin), writer(resize));
    Ok(ClientSession { stdin, stdout, stderr, resize, error, connection, _inputs: inputs, _outputs: outputs })
}

impl ClientSession {
    /// Tells the size of the terminal.
    ///
    /// # Errors
    /// The peer is gone, or there is no terminal.
    pub async fn resize(&mut self, size: Size) -> Result<(), Closed> {
        self.resize.as_mut().ok_or(Closed)?.send(size_message(size)).await
    }

    /// What resizes go through, for who has another task for them.
    pub fn take_resize(&mut self) -> Option<Output> {
        self.resize.take()
    }

    /// How it ended; after that the connection is closed.
    pub async fn outcome(mut self) -> Outcome {
        let mut status = BytesMut::new();
        while let Some(bytes) = self.error.recv().await {
            if status.len() + bytes.len() > MAX_STATUS {
                break;
            }
            status.extend_from_slice(&bytes);
        }
        self.connection.close().await;
        Outcome::of_error_stream(&status)
    }
}

/// A size as it goes through a stream.
pub fn size_message(size: Size) -> Bytes {
    format!("{}\n", json!({"Width": size.width, "Height": size.height})).into()
}
