//! Both sides of exec and port-forward, over both transports, through pipes in memory.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corten_streaming::port_forward;
use corten_streaming::remote_command::{self, Input, Options, Outcome, Session, Size};
use corten_streaming::spdy::{Config, Connection, Headers, OpenError, Reset, Side};
use corten_streaming::upgrade::Upgrade;
use corten_streaming::websocket::{Channels, Protocol, Tunnel, WebSocketRole};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);
const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };

fn spdy(protocol: &str) -> Upgrade {
    Upgrade::Spdy { protocol: protocol.to_owned() }
}

fn websocket(protocol: &str) -> Upgrade {
    Upgrade::WebSocket { protocol: protocol.to_owned(), accept: String::new() }
}

async fn all(input: &mut Input) -> Bytes {
    let mut bytes = BytesMut::new();
    while let Some(piece) = input.recv().await {
        bytes.extend_from_slice(&piece);
    }
    bytes.freeze()
}

/// A command that repeats its input, says `done` to stderr and ends with 7.
async fn cat(mut session: Session) {
    let (mut stdin, mut stdout) =
        (session.stdin.take().expect("stdin"), session.stdout.take().expect("stdout"));
    while let Some(bytes) = stdin.recv().await {
        stdout.send(bytes).await.expect("sent");
    }
    stdout.finish().await.expect("finished");
    session.stderr.as_mut().expect("stderr").send(Bytes::from_static(b"done")).await.expect("sent");
    session.finish(&Outcome::Exit { code: 7, message: "exit code 7".to_owned() }).await;
}

#[tokio::test]
async fn a_command_over_spdy_gets_its_input_to_the_end_and_gives_all_output_and_its_exit_code() {
    let (client, server) = duplex(16 << 10);
    let serving = tokio::spawn(async move {
        cat(remote_command::serve(server, &spdy("v4.channel.k8s.io"), ALL, None).await.expect("served"))
            .await;
    });
    let work = async {
        let mut session =
            remote_command::connect(client, Config::new(Side::Client), ALL).await.expect("connected");
        let (mut stdin, mut stdout, mut stderr) = (
            session.stdin.take().expect("in"),
            session.stdout.take().expect("out"),
            session.stderr.take().expect("err"),
        );
        // More than every queue and window holds.
        let sent: Bytes = (0..8 << 20).map(|at: u32| (at / 7) as u8).collect::<Vec<_>>().into();
        let write = async {
            stdin.send(sent.clone()).await.expect("sent");
            stdin.finish().await.expect("finished");
        };
        let ((), received) = tokio::join!(write, all(&mut stdout));
        assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
        assert_eq!(all(&mut stderr).await, "done");
        let message = "command terminated with exit code 7".to_owned();
        assert_eq!(session.outcome().await, Outcome::Exit { code: 7, message });
        serving.await.expect("served");
    };
    timeout(LIMIT, work).await.expect("in time");
}

async fn websocket_client(client: DuplexStream, protocol: &str) -> Channels {
    let protocol = Protocol::of(protocol).expect("a protocol");
    Channels::start(client, WebSocketRole::Client, protocol, &[false, true, true, true, false], None).await
}

#[tokio::test]
async fn a_command_over_version_5_gets_the_end_of_its_input_by_the_close_message() {
    let (client, server) = duplex(16 << 10);
    let serving = tokio::spawn(async move {
        cat(remote_command::serve(server, &websocket("v5.channel.k8s.io"), ALL, None).await.expect("served"))
            .await;
    });
    let work = async {
        let mut channels = websocket_client(client, "v5.channel.k8s.io").await;
        let mut stdin = channels.writer(0);
        let [mut stdout, mut stderr, mut error] =
            [1, 2, 3].map(|at| channels.take_input(at).expect("a channel"));
        let sent = Bytes::from(vec![b'x'; 3 << 20]);
        let write = async {
            stdin.send(sent.clone()).await.expect("sent");
            stdin.finish().await.expect("finished");
        };
        let ((), received) = tokio::join!(write, all(&mut stdout));
        assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
        assert_eq!(all(&mut stderr).await, "done");
        let outcome = Outcome::of_error_stream(&all(&mut error).await);
        assert!(matches!(outcome, Outcome::Exit { code: 7, .. }), "{outcome:?}");
        serving.await.expect("served");
    };
    timeout(LIMIT, work).await.expect("in time");
}

#[tokio::test]
async fn older_protocols_and_base64_are_served_too() {
    for name in Protocol::NAMES {
        let (client, server) = duplex(16 << 10);
        let options = Options { stdin: false, stderr: false, ..ALL };
        let serving = tokio::spawn(async move {
            let session = remote_command::serve(server, &websocket(name), options, None).await;
            let mut session = session.expect("served");
            session.stdout.as_mut().expect("stdout").send(Bytes::from_static(b"hi\n")).await.expect("sent");
            session.finish(&Outcome::Success).await;
        });
        let work = async {
            let mut channels = websocket_client(client, name).await;
            let [mut stdout, mut error] = [1, 3].map(|at| channels.take_input(at).expect("a channel"));
            assert_eq!(stdout.recv().await.expect("a message"), "", "{name}: the first message is empty");
            assert_eq!(all(&mut stdout).await, "hi\n", "{name}");
            assert_eq!(Outcome::of_error_stream(&all(&mut error).await), Outcome::Success, "{name}");
            serving.await.expect("served");
        };
        timeout(LIMIT, work).await.expect("in time");
    }
}

#[tokio::test]
async fn sizes_of_the_terminal_arrive() {
    let (client, server) = duplex(16 << 10);
    let options = Options { tty: true, stderr: false, ..ALL };
    let serving = tokio::spawn(async move {
        let mut session =
            remote_command::serve(server, &spdy("v4.channel.k8s.io"), options, None).await.expect("served");
        let size = session.resizes.as_mut().expect("a terminal").next().await;
        session.finish(&Outcome::Success).await;
        size
    });
    let mut session =
        remote_command::connect(client, Config::new(Side::Client), options).await.expect("connected");
    session.resize(Size { width: 80, height: 24 }).await.expect("sent");
    assert_eq!(timeout(LIMIT, session.outcome()).await.expect("in time"), Outcome::Success);
    assert_eq!(serving.await.expect("served"), Some(Size { width: 80, height: 24 }));
}

/// A port that repeats what it gets; no other port has anybody.
async fn forward_ports(server: DuplexStream, upgrade: Upgrade) {
    let mut server = port_forward::Server::new(server, &upgrade, None).await;
    while let Some(forward) = server.accept().await {
        let port = forward.port;
        tokio::spawn(forward.run(async move {
            if port != 80 {
                return Err("connection refused");
            }
            let (near, far) = duplex(4096);
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(far);
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
            Ok(near)
        }));
    }
}

async fn pair(connection: &Connection, port: &str, request: &str) -> [corten_streaming::spdy::Stream; 2] {
    let headers = |kind: &str| {
        Headers::default().with("streamType", kind).with("port", port).with("requestID", request)
    };
    let error = connection.open(headers("error")).await.expect("opened");
    let data = connection.open(headers("data")).await.expect("opened");
    [error, data]
}

async fn use_ports(connection: Connection) {
    let mut echoes = Vec::new();
    for request in 0..20_u8 {
        let [mut error, mut data] = pair(&connection, "80", &request.to_string()).await;
        echoes.push(async move {
            let sent = Bytes::from(vec![request; 300_000]);
            let write = async {
                data.output.send(sent.clone()).await.expect("sent");
                data.output.finish().await.expect("finished");
            };
            let ((), received) = tokio::join!(write, all(&mut data.input));
            assert!(received == sent, "request {request}");
            assert_eq!(all(&mut error.input).await, "");
        });
    }
    futures::future::join_all(echoes).await;
    let [mut error, _data] = pair(&connection, "81", "x").await;
    assert_eq!(all(&mut error.input).await, "error forwarding port 81 to pod: connection refused");
    let wrong = Headers::default().with("streamType", "data").with("port", "0");
    assert!(matches!(connection.open(wrong).await, Err(OpenError::Reset)));
    connection.close().await;
}

#[tokio::test]
async fn ports_are_forwarded_side_by_side_over_spdy() {
    let (client, server) = duplex(16 << 10);
    let serving = tokio::spawn(forward_ports(server, spdy(port_forward::PROTOCOL)));
    timeout(LIMIT, use_ports(Connection::new(client, Config::new(Side::Client)))).await.expect("in time");
    timeout(LIMIT, serving).await.expect("in time").expect("the server ends with the client");
}

#[tokio::test]
async fn ports_are_forwarded_through_a_tunnel_in_a_websocket() {
    let (client, server) = duplex(16 << 10);
    let serving = tokio::spawn(forward_ports(server, websocket(port_forward::TUNNELLED)));
    let tunnel = Tunnel::new(client, WebSocketRole::Client).await;
    timeout(LIMIT, use_ports(Connection::new(tunnel, Config::new(Side::Client)))).await.expect("in time");
    timeout(LIMIT, serving).await.expect("in time").expect("the server ends with the client");
}

#[tokio::test]
async fn a_connection_without_traffic_is_closed_and_a_pinged_one_is_not() {
    for pinged in [false, true] {
        let (client, server) = duplex(4096);
        let idle = Some(Duration::from_millis(300));
        let mut server = Connection::new(server, Config { idle, ..Config::new(Side::Server) });
        let ping = pinged.then_some(Duration::from_millis(50));
        let client = Connection::new(client, Config { ping, ..Config::new(Side::Client) });
        let over = timeout(Duration::from_secs(1), server.accept()).await;
        assert_eq!(over.is_err(), pinged);
        drop(client);
    }
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_a_reset_one_makes_room() {
    let (client, server) = duplex(4096);
    let mut server = Connection::new(server, Config { max_streams: 2, ..Config::new(Side::Server) });
    let serving = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Some(incoming) = server.accept().await {
            streams.push(incoming.accept().await.expect("accepted"));
        }
    });
    let client = Connection::new(client, Config::new(Side::Client));
    let first = client.open(Headers::default()).await.expect("opened");
    let _second = client.open(Headers::default()).await.expect("opened");
    assert!(matches!(client.open(Headers::default()).await, Err(OpenError::Reset)));
    first.output.reset(Reset::Cancel);
    client.open(Headers::default()).await.expect("opened");
    drop(client);
    timeout(LIMIT, serving).await.expect("in time").expect("the server ends with the client");
}

#[tokio::test]
async fn garbage_ends_the_connection() {
    #[rustfmt::skip]
    let table: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n and more and more",
        &[0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2],
        &[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1],
        &[0x80, 3, 0, 6, 0, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for garbage in table {
        let (mut client, server) = duplex(4096);
        let mut server = Connection::new(server, Config::new(Side::Server));
        client.write_all(garbage).await.expect("written");
        if garbage[0] == b'G' {
            // Read as a frame of many bytes of data for nobody; it ends with the client.
            client.shutdown().await.expect("closed");
        }
        assert!(timeout(LIMIT, server.accept()).await.expect("in time").is_none());
        let mut rest = Vec::new();
        timeout(LIMIT, client.read_to_end(&mut rest)).await.expect("in time").expect("closed");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_the_writer_back() {
    let (client, server) = duplex(4096);
    let mut server = Connection::new(server, Config::new(Side::Server));
    let client = Connection::new(client, Config::new(Side::Client));
    let (opened, incoming) = tokio::join!(client.open(Headers::default()), async {
        server.accept().await.expect("a stream").accept().await.expect("accepted")
    });
    let (mut opened, mut incoming) = (opened.expect("opened"), incoming);
    let sent = 64 << 20;
    let much = opened.output.send(Bytes::from(vec![0; sent]));
    tokio::pin!(much);
    timeout(Duration::from_millis(300), &mut much).await.expect_err("it waits");
    // The other way is free, and reading lets it go on.
    incoming.output.send(Bytes::from_static(b"hello")).await.expect("sent");
    let mut received = 0;
    let read = async {
        while received < sent {
            received += incoming.input.recv().await.expect("more").len();
        }
    };
    let (written, ()) = timeout(LIMIT, async { tokio::join!(much, read) }).await.expect("in time");
    written.expect("written");
    assert_eq!(opened.input.recv().await.expect("a piece"), "hello");
}
