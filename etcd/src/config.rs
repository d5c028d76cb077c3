//! Where etcd is and who we are there.

use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::EtcdError;

#[derive(Debug, Clone)]
pub struct Config {
    /// `http://` or `https://` URLs; asked in this order.
    pub endpoints: Vec<String>,
    pub tls: Tls,
    /// Name and password, when etcd's authentication is on.
    pub user: Option<(String, String)>,
    /// Of one endpoint.
    pub connect_timeout: Duration,
    /// Of one request at one endpoint; a watch has none.
    pub request_timeout: Duration,
}

/// For `https://` endpoints. All files are PEM.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Authorities that the server's certificate must be from; the system's unless given.
    pub ca: Option<PathBuf>,
    /// Certificate and key that we show.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Config {
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: Tls::default(),
            user: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
        }
    }

    /// Reads the files and checks the URLs. Opens no connection.
    pub(crate) fn endpoints(&self) -> Result<Vec<(String, Endpoint)>, EtcdError> {
        if self.endpoints.is_empty() {
            return Err(EtcdError::NoEndpoint);
        }
        let any_tls = self.endpoints.iter().any(|url| url.starts_with("https://"));
        let tls = if any_tls { Some(self.tls()?) } else { None };
        self.endpoints.iter().map(|url| Ok((url.clone(), self.endpoint(url, tls.as_ref())?))).collect()
    }

    fn endpoint(&self, url: &str, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, EtcdError> {
        let wrong = |why: String| EtcdError::Endpoint { url: url.to_owned(), why };
        let secure = url.starts_with("https://");
        if !secure && !url.starts_with("http://") {
            return Err(wrong("write http:// or https:// before it".into()));
        }
        if !secure && (self.tls.identity.is_some() || self.tls.ca.is_some()) {
            return Err(wrong("certificates are given but it is not encrypted; write https://".into()));
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| wrong(error.to_string()))?
            .connect_timeout(self.connect_timeout)
            // etcd hangs up on who pings more often than every 5 s, or without a stream.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .tcp_keepalive(Some(Duration::from_secs(30)));
        match tls.filter(|_| secure) {
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| wrong(chain(&error))),
            None => Ok(endpoint),
        }
    }

    fn tls(&self) -> Result<ClientTlsConfig, EtcdError> {
        let read = |file: &PathBuf| {
            std::fs::read(file).map_err(|error| EtcdError::File { file: file.clone(), error })
        };
        let mut tls = ClientTlsConfig::new();
        tls = match &self.tls.ca {
            Some(file) => tls.ca_certificate(Certificate::from_pem(read(file)?)),
            None => tls.with_native_roots(),
        };
        if let Some((certificate, key)) = &self.tls.identity {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(tls)
    }
}

/// An error with all that caused it, which tonic's own text leaves out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
