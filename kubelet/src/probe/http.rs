//! Probe by an HTTP GET: success is a status from 200 to 399, as upstream (`probe/http`). HTTPS certificates are not
//! verified: a probe asks whether the server lives, not who it is. The response is hostile: bounded and discarded.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{HOST, LOCATION};
use hyper::{Request, Response, Uri, body::Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};

use super::{Answer, authority, port};

const MAX_BODY_BYTES: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;
const USER_AGENT: &str = concat!("kube-probe/1.36 corten/", env!("CARGO_PKG_VERSION"));

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("no such port")]
    Port,
    #[error("Get {url:?}: {why}")]
    Get { url: String, why: String },
    #[error("Get {url:?}: no answer within {seconds}s")]
    Timeout { url: String, seconds: u64 },
}

pub async fn ask(get: &HTTPGetAction, container: &Container, pod_ip: &str, timeout: Duration) -> Answer {
    match self::get(get, container, pod_ip, timeout).await {
        Ok(200..=399) => Answer::Success,
        Ok(status) => Answer::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Err(HttpError::Port) => Answer::Unknown(HttpError::Port.to_string()),
        Err(error) => Answer::Failure(error.to_string()),
    }
}

/// The status of what is found at the end of all redirects that stay on the same host.
pub async fn get(
    get: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    timeout: Duration,
) -> Result<u16, HttpError> {
    let port = port(&get.port, container).ok_or(HttpError::Port)?;
    let host = get.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let path = get.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!("{scheme}://{}{slash}{path}", authority(host, port));
    tokio::time::timeout(timeout, follow(get, url.clone()))
        .await
        .unwrap_or(Err(HttpError::Timeout { url, seconds: timeout.as_secs() }))
}

async fn follow(get: &HTTPGetAction, mut url: String) -> Result<u16, HttpError> {
    for _ in 0..=MAX_REDIRECTS {
        let response = once(get, &url).await?;
        let status = response.status();
        let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
        // Read so that the server sees its answer taken; what is in it does not matter.
        let _ = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        match location.filter(|_| status.is_redirection()).and_then(|to| same_host(&url, &to)) {
            Some(next) => url = next,
            None => return Ok(status.as_u16()),
        }
    }
    Err(HttpError::Get { url, why: format!("stopped after {MAX_REDIRECTS} redirects") })
}

async fn once(get: &HTTPGetAction, url: &str) -> Result<Response<Incoming>, HttpError> {
    let failed = |why: String| HttpError::Get { url: url.to_owned(), why };
    let mut request = Request::get(url).header("connection", "close");
    let headers = get.http_headers.iter().flatten();
    let given = |name: &str| get.http_headers.iter().flatten().any(|h| h.name.eq_ignore_ascii_case(name));
    for header in headers {
        let name =
            if header.name.eq_ignore_ascii_case("host") { HOST.as_str() } else { header.name.as_str() };
        request = request.header(name, header.value.as_str());
    }
    for (name, value) in [("user-agent", USER_AGENT), ("accept", "*/*")] {
        if !given(name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| failed(e.to_string()))?;
    CLIENT.request(request).await.map_err(|e| failed(root_cause(&e)))
}

/// The last error of a chain says what happened: `ECONNREFUSED`, not `client error (Connect)`.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.downcast_ref::<std::io::Error>().map_or_else(|| last.to_string(), crate::errno_name)
}

/// The absolute URL of a redirect, when it leads to the same host.
fn same_host(from: &str, to: &str) -> Option<String> {
    let from: Uri = from.parse().ok()?;
    if to.starts_with('/') && !to.starts_with("//") {
        return Some(format!("{}://{}{to}", from.scheme_str()?, from.authority()?));
    }
    let target: Uri = to.parse().ok()?;
    (target.host()? == from.host()?).then(|| to.to_owned())
}

static CLIENT: LazyLock<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anyone::Anyone(provider)))
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
});

mod anyone {
    //! Accepts any certificate, but checks that the server has its key.
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub struct Anyone(pub Arc<CryptoProvider>);

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::HTTPHeader;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Serves `answer` to every request and returns the port and what was asked.
    async fn server(answer: &'static str) -> (u16, tokio::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (tx, rx) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 4096];
                let n = stream.read(&mut buffer).await.unwrap_or(0);
                let _ = tx.send(String::from_utf8_lossy(&buffer[..n]).into_owned()).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (port, rx)
    }

    async fn probe(port: u16, get: HTTPGetAction) -> Answer {
        let get = HTTPGetAction { port: IntOrString::Int(i32::from(port)), ..get };
        ask(&get, &Container::default(), "127.0.0.1", Duration::from_millis(500)).await
    }

    #[tokio::test]
    async fn status_decides() {
        for (answer, good) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false),
            ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", false),
            ("gibberish\r\n\r\n", false),
        ] {
            let (port, _asked) = server(answer).await;
            assert_eq!(probe(port, HTTPGetAction::default()).await == Answer::Success, good, "{answer}");
        }
    }

    #[tokio::test]
    async fn the_request_is_as_the_probe_says() {
        let (port, mut asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let header = |name: &str, value: &str| HTTPHeader { name: name.into(), value: value.into() };
        let headers = vec![header("Host", "web.example"), header("X-A", "1")];
        let get = HTTPGetAction {
            path: Some("health?x=1".into()),
            http_headers: Some(headers),
            ..Default::default()
        };
        assert_eq!(probe(port, get).await, Answer::Success);
        let text = asked.recv().await.expect("request");
        assert!(text.starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("host: web.example\r\n") && text.contains("x-a: 1\r\n"), "{text}");
        assert!(text.contains("user-agent: kube-probe/1.36"), "{text}");
    }

    #[tokio::test]
    async fn silence_and_refusal_are_failures_with_their_cause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let Answer::Failure(why) = probe(port, HTTPGetAction::default()).await else { panic!("silence") };
        assert!(why.contains("no answer within"), "{why}");
        drop(listener);
        let Answer::Failure(why) = probe(port, HTTPGetAction::default()).await else { panic!("refusal") };
        assert!(why.contains("ECONNREFUSED"), "{why}");
    }

    #[test]
    fn redirects_stay_on_the_host() {
        assert_eq!(same_host("http://a:1/x", "/y").as_deref(), Some("http://a:1/y"));
        assert_eq!(same_host("http://a:1/x", "http://a:2/y").as_deref(), Some("http://a:2/y"));
        assert_eq!(same_host("http://a:1/x", "http://b/y"), None);
        assert_eq!(same_host("http://a:1/x", "//b/y"), None);
    }
}
