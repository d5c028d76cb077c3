//! How kubelets are reached: which address of a node, with which certificate. Source: kubernetes
//! `pkg/kubelet/client/kubelet_client.go`.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::object::Object;
use crate::status::Status;

/// Default of `--kubelet-preferred-address-types`.
const ADDRESSES: [&str; 5] = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"];
const PORT: u16 = 10_250;
/// What a node of 1.36 declares when its kubelet takes WebSockets itself.
const TAKES_WEBSOCKETS: &str = "ExtendWebSocketsToKubelet";

pub struct Kubelets {
    /// Checks the kubelet's certificate, where an authority is known.
    pub(super) checking: Arc<ClientConfig>,
    /// For logs with `insecureSkipTLSVerifyBackend`.
    pub(super) trusting: Arc<ClientConfig>,
    /// With no certificate of ours: for what is proxied to.
    pub(super) anonymous: Arc<ClientConfig>,
    addresses: Vec<String>,
    pub(super) timeout: Duration,
}

/// One node's kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub host: String,
    pub port: u16,
    pub takes_websockets: bool,
}

impl Default for Kubelets {
    /// Without a certificate, taking any kubelet's.
    fn default() -> Self {
        Self::new(None, None, ADDRESSES.map(str::to_owned).to_vec(), Duration::from_secs(5))
            .expect("our versions of TLS go with our ciphers")
    }
}

impl Kubelets {
    /// Of files in PEM: our certificate and key, and the authority of the kubelets' certificates.
    pub fn load(
        (certificate, key): (&Path, &Path),
        authority: Option<&Path>,
        addresses: Vec<String>,
        timeout: Duration,
    ) -> Result<Self> {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
        let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
            let all = CertificateDer::pem_slice_iter(read(path)?.as_bytes()).collect::<Result<_, _>>();
            all.with_context(|| format!("{} is no certificate (PEM)", path.display()))
        };
        let pkcs8 = crate::pki::pkcs8(&read(key)?).map_err(anyhow::Error::msg);
        let pkcs8 = pkcs8.with_context(|| key.display().to_string())?;
        let identity = (certificates(certificate)?, PrivateKeyDer::Pkcs8(pkcs8.into()));
        let mut roots = None;
        if let Some(path) = authority {
            let mut store = RootCertStore::empty();
            for one in certificates(path)? {
                store.add(one).with_context(|| format!("{} is no authority", path.display()))?;
            }
            roots = Some(store);
        }
        Ok(Self::new(Some(identity), roots, addresses, timeout)?)
    }

    /// `authority`: `None` takes any certificate.
    pub fn new(
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        authority: Option<RootCertStore>,
        addresses: Vec<String>,
        timeout: Duration,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(crypto::ring::default_provider());
        let config = |authority: Option<RootCertStore>, is_ours: bool| {
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()?;
            let builder = if let Some(roots) = authority {
                builder.with_root_certificates(roots)
            } else {
                let any = Arc::new(AnyCertificate(Arc::clone(&provider)));
                builder.dangerous().with_custom_certificate_verifier(any)
            };
            match &identity {
                Some((chain, key)) if is_ours => {
                    builder.with_client_auth_cert(chain.clone(), key.clone_key()).map(Arc::new)
                }
                _ => Ok(Arc::new(builder.with_no_client_auth())),
            }
        };
        Ok(Self {
            checking: config(authority, true)?,
            trusting: config(None, true)?,
            anonymous: config(None, false)?,
            addresses,
            timeout,
        })
    }

    /// Where a node's kubelet is.
    pub(super) fn endpoint(&self, node: &Object) -> Result<Endpoint, Status> {
        let list = |path: &[&str]| {
            node.get(path).and_then(|list| list.as_array()).map(Vec::as_slice).unwrap_or_default()
        };
        let known: Vec<(&str, &str)> = list(&["status", "addresses"])
            .iter()
            .filter_map(|one| Some((one["type"].as_str()?, one["address"].as_str()?)))
            .collect();
        let preferred = |wanted: &String| known.iter().find(|(kind, _)| kind == wanted);
        let Some((_, host)) = self.addresses.iter().find_map(preferred) else {
            let shown: Vec<String> =
                known.iter().map(|(kind, address)| format!("{{{kind} {address}}}")).collect();
            let message = format!("no preferred addresses found; known addresses: [{}]", shown.join(" "));
            return Err(Status::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", message));
        };
        let port = node.get(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
        let port = port.and_then(serde_json::Value::as_u64).and_then(|port| u16::try_from(port).ok());
        Ok(Endpoint {
            host: (*host).to_owned(),
            port: port.filter(|port| *port > 0).unwrap_or(PORT),
            takes_websockets: list(&["status", "declaredFeatures"])
                .iter()
                .any(|feature| feature == TAKES_WEBSOCKETS),
        })
    }
}

/// Whoever it is, it has the key of what it shows.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
