//! One request: challenge, redirect, answer. Authorization and a host's own headers go to that host only.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};

use super::auth::{self, Challenge, Credentials};
use super::error::RegistryError;
use super::hosts::{Connection, Host};
use super::{HostSession, Session};

const MAX_REDIRECTS: usize = 5;
const MAX_TOKEN_BYTES: u64 = 64 << 10;
const MAX_ERROR_BYTES: u64 = 4 << 10;
const USER_AGENT: &str = concat!("corten/", env!("CARGO_PKG_VERSION"));
const CLIENT_ID: &str = "corten";

impl Session {
    /// GET `path` (below the host's base) with `headers`; answers challenges and follows redirects.
    pub(super) async fn get(
        &self,
        host: usize,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(String, Response<Incoming>), RegistryError> {
        let session = &self.hosts[host];
        let url = self.url(&session.host, path);
        let mut challenged = false;
        loop {
            let authorization = session.authorization.lock().expect("panics abort").clone();
            let (response, foreign) =
                self.follow(&session.host, &url, headers, authorization.as_ref()).await?;
            if response.status() != StatusCode::UNAUTHORIZED || challenged || foreign {
                return Ok((url, response));
            }
            challenged = true;
            let answer = self.answer(session, &url, response.headers()).await?;
            *session.authorization.lock().expect("panics abort") = Some(answer);
        }
    }

    fn url(&self, host: &Host, path: &str) -> String {
        let Host { scheme, authority, path: base, .. } = host;
        // Mirrors of many registries tell them apart by `ns`, as containerd sends it.
        let namespace = if host.origin {
            String::new()
        } else {
            format!("?ns={}", auth::encode(self.reference.registry()))
        };
        format!("{scheme}://{authority}{base}/{}/{path}{namespace}", self.reference.repository())
    }

    /// Follows redirects. `true`: the answer comes from another origin, which saw no Authorization (CVE-2020-15157).
    async fn follow(
        &self,
        host: &Host,
        url: &str,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response<Incoming>, bool), RegistryError> {
        let mut target: Uri = url.parse().map_err(|_| redirect(url, "the URL is malformed"))?;
        let mut foreign = false;
        for _ in 0..=MAX_REDIRECTS {
            let mut request =
                Request::builder().method(Method::GET).uri(&target).header(header::USER_AGENT, USER_AGENT);
            if let Some(map) = request.headers_mut() {
                map.extend(headers.clone());
                if !foreign {
                    map.extend(host.headers.iter().cloned());
                    authorization.map(|value| map.insert(header::AUTHORIZATION, value.clone()));
                }
            }
            let request = request.body(Full::default()).map_err(|_| redirect(url, "the URL is malformed"))?;
            let plain = Connection { dial_timeout: host.connection.dial_timeout, ..Connection::default() };
            let response = self.request(if foreign { &plain } else { &host.connection }, request).await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok((response, foreign));
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = location
                .and_then(|location| join(&target, location))
                .ok_or_else(|| redirect(url, "no usable Location"))?;
            if target.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(redirect(url, "from https to plain http"));
            }
            foreign |= next.authority() != target.authority() || next.scheme() != target.scheme();
            target = next;
        }
        Err(redirect(url, "more than 5 in a row"))
    }

    async fn request(
        &self,
        connection: &Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let url = without_query(request.uri());
        let sent = self.client.http(connection)?.request(request);
        match tokio::time::timeout(self.no_progress, sent).await {
            Err(_) => Err(RegistryError::Stalled { url, seconds: self.no_progress.as_secs() }),
            Ok(Err(error)) => Err(RegistryError::Connect { url, problem: causes(&error) }),
            Ok(Ok(response)) => Ok(response),
        }
    }

    /// The Authorization that meets a 401's challenge.
    async fn answer(
        &self,
        host: &HostSession,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, RegistryError> {
        let failed = |problem: String| RegistryError::Auth { url: url.to_owned(), problem };
        let offered: Vec<_> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(auth::challenges)
            .collect();
        let text = match (&host.credentials, offered.first()) {
            (Some(Credentials::RegistryToken(token)), _) => format!("Bearer {token}"),
            (_, Some(Challenge::Bearer { realm, service, scope })) => {
                let token = self.token(host, realm, service.as_deref(), scope.as_deref()).await?;
                format!("Bearer {token}")
            }
            (Some(Credentials::Basic { username, password }), Some(Challenge::Basic)) => {
                auth::basic(username, password)
            }
            (_, Some(Challenge::Basic)) => {
                return Err(failed("it wants a user name and password; none were given for it".into()));
            }
            (_, None) => return Err(failed("it refused and offers neither Basic nor Bearer".into())),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| failed("credentials hold characters no header may".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn token(
        &self,
        host: &HostSession,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<String, RegistryError> {
        let failed =
            |problem: &str| RegistryError::Auth { url: realm.to_owned(), problem: problem.to_owned() };
        let uri: Uri = realm.parse().map_err(|_| failed("the realm is no URL"))?;
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(failed("the realm is no absolute URL"));
        }
        // The realm is the registry's own choice and may be elsewhere (Docker Hub's is), but never in clear text when
        // the registry itself is not.
        if uri.scheme_str() != Some("https") && host.host.scheme == "https" {
            return Err(failed("the realm is plain http, the registry https: refused"));
        }
        let own_scope = format!("repository:{}:pull", self.reference.repository());
        let scope = auth::encode(scope.unwrap_or(&own_scope));
        let service =
            service.map(|service| format!("&service={}", auth::encode(service))).unwrap_or_default();
        let request = Request::builder().header(header::USER_AGENT, USER_AGENT);
        let request = match &host.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let token = auth::encode(token);
                let form = format!(
                    "grant_type=refresh_token&client_id={CLIENT_ID}&scope={scope}{service}&refresh_token={token}"
                );
                request
                    .method(Method::POST)
                    .uri(realm)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Full::from(form))
            }
            credentials => {
                let separator = if uri.query().is_some() { '&' } else { '?' };
                let request =
                    request.method(Method::GET).uri(format!("{realm}{separator}scope={scope}{service}"));
                match credentials {
                    Some(Credentials::Basic { username, password }) => {
                        request.header(header::AUTHORIZATION, auth::basic(username, password))
                    }
                    _ => request,
                }
                .body(Full::default())
            }
        };
        let request = request.map_err(|_| failed("the realm or the credentials make no request"))?;
        // The host's own certificates count only for the host itself.
        let same = uri.authority().is_some_and(|authority| authority.as_str() == host.host.authority);
        let plain = Connection { dial_timeout: host.host.connection.dial_timeout, ..Connection::default() };
        let response = self.request(if same { &host.host.connection } else { &plain }, request).await?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(RegistryError::Denied { url: realm.to_owned(), status: status.as_u16() });
        }
        let body = self.body(realm, response, MAX_TOKEN_BYTES).await?;
        if !status.is_success() {
            return Err(RegistryError::Status { url: realm.to_owned(), status: status.as_u16(), text: None });
        }
        #[derive(serde::Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| failed("the answer is not JSON with a token"))?;
        answer.token.or(answer.access_token).ok_or_else(|| failed("the answer holds no token"))
    }

    /// A whole body of at most `limit` bytes.
    pub(super) async fn body(
        &self,
        url: &str,
        response: Response<Incoming>,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(data) = self.frame(url, &mut body).await? {
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(RegistryError::TooLarge { url: url.to_owned(), limit });
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }

    /// The next piece of a body.
    pub(super) async fn frame(&self, url: &str, body: &mut Incoming) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let frame = tokio::time::timeout(self.no_progress, body.frame()).await.map_err(|_| {
                RegistryError::Stalled { url: url.to_owned(), seconds: self.no_progress.as_secs() }
            })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(RegistryError::Connect { url: url.to_owned(), problem: causes(&error) });
                }
                // Trailers are of no interest.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Turns an answer that is no success into an error, with the start of what the registry says.
    pub(super) async fn refusal(&self, url: &str, response: Response<Incoming>) -> RegistryError {
        let (url, status) = (url.split('?').next().unwrap_or_default().to_owned(), response.status());
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { url },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RegistryError::Denied { url, status: status.as_u16() }
            }
            _ => {
                let text = self.body(&url, response, MAX_ERROR_BYTES).await.ok();
                let text = text.map(|text| String::from_utf8_lossy(&text).escape_debug().take(300).collect());
                RegistryError::Status {
                    url,
                    status: status.as_u16(),
                    text: text.filter(|text: &String| !text.is_empty()),
                }
            }
        }
    }
}

fn redirect(url: &str, problem: &'static str) -> RegistryError {
    RegistryError::Redirect { url: url.to_owned(), problem }
}

/// Signed URLs carry secrets in their query.
fn without_query(uri: &Uri) -> String {
    format!(
        "{}://{}{}",
        uri.scheme_str().unwrap_or_default(),
        uri.authority().map_or("", |a| a.as_str()),
        uri.path()
    )
}

fn join(base: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let uri: Uri = absolute.parse().ok()?;
    (matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some()).then_some(uri)
}

/// An error with its causes: hyper's own text says only "client error (Connect)".
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        let base: Uri = "https://r.example:5000/v2/a/blobs/x?y=1".parse().unwrap();
        let cases = [
            ("https://cdn.example/b?sig=1", Some("https://cdn.example/b?sig=1")),
            ("/other", Some("https://r.example:5000/other")),
            ("//cdn.example/b", Some("https://cdn.example/b")),
            ("z", Some("https://r.example:5000/v2/a/blobs/z")),
            ("file:///etc/passwd", None),
            ("https://", None),
        ];
        for (location, want) in cases {
            assert_eq!(join(&base, location).map(|uri| uri.to_string()).as_deref(), want, "{location}");
        }
    }
}
