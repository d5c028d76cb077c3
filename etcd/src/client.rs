//! The connection: which endpoint, who we are, and what is asked again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::config::chain;
use crate::error::token_is_stale;
use crate::proto::auth_client::AuthClient;
use crate::proto::maintenance_client::MaintenanceClient;
use crate::proto::{
    AuthEnableRequest, AuthUserAddRequest, AuthUserGrantRoleRequest, AuthenticateRequest, StatusRequest,
};
use crate::{Config, EtcdError};

/// A connection to a cluster; clones share it.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    endpoints: Vec<(String, Endpoint)>,
    user: Option<(String, String)>,
    request_timeout: Duration,
    connected: Mutex<Connected>,
}

#[derive(Default)]
struct Connected {
    /// The endpoint that is, or is to be, spoken to.
    place: usize,
    link: Option<Link>,
}

/// One endpoint, connected and logged in.
#[derive(Clone)]
pub(crate) struct Link {
    pub url: String,
    pub channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    /// Tells one connection from the next to the same endpoint.
    number: Arc<()>,
}

impl Link {
    /// A request as this user.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// May a request be sent twice?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

impl Client {
    /// Connects to the first endpoint that answers, and logs in.
    pub async fn connect(config: &Config) -> Result<Self, EtcdError> {
        let client = Self {
            shared: Arc::new(Shared {
                endpoints: config.endpoints()?,
                user: config.user.clone(),
                request_timeout: config.request_timeout,
                connected: Mutex::default(),
            }),
        };
        client.link().await?;
        Ok(client)
    }

    /// The present connection, or a new one to the next endpoint that takes one.
    pub(crate) async fn link(&self) -> Result<Link, EtcdError> {
        let mut connected = self.shared.connected.lock().await;
        if let Some(link) = &connected.link {
            return Ok(link.clone());
        }
        let mut tried = Vec::new();
        let count = self.shared.endpoints.len();
        for place in (0..count).map(|step| (connected.place + step) % count) {
            let (url, endpoint) = &self.shared.endpoints[place];
            match endpoint.connect().await {
                Ok(channel) => match self.log_in(url, channel).await {
                    Ok(link) => {
                        *connected = Connected { place, link: Some(link.clone()) };
                        return Ok(link);
                    }
                    Err(error) if error.is_unavailable() => tried.push(error.to_string()),
                    Err(error) => return Err(error),
                },
                Err(error) => tried.push(format!("{url}: {}", chain(&error))),
            }
        }
        Err(EtcdError::Unreachable { tried: tried.join("; ") })
    }

    async fn log_in(&self, url: &str, channel: Channel) -> Result<Link, EtcdError> {
        let mut link = Link { url: url.to_owned(), channel, token: None, number: Arc::default() };
        let Some((name, password)) = &self.shared.user else { return Ok(link) };
        let mut request =
            Request::new(AuthenticateRequest { name: name.clone(), password: password.clone() });
        request.set_timeout(self.shared.request_timeout);
        let refused = |why: String| EtcdError::Authentication { user: name.clone(), why };
        match AuthClient::new(link.channel.clone()).authenticate(request).await {
            Ok(answer) => {
                let token = answer.into_inner().token;
                link.token = Some(token.parse().map_err(|_| refused("its token is not ASCII".into()))?);
                Ok(link)
            }
            // A cluster whose authentication is off takes everybody.
            Err(status) if status.message().contains("authentication is not enabled") => Ok(link),
            Err(status) => match EtcdError::of(url, &status) {
                error if error.is_unavailable() => Err(error),
                _ => Err(refused(status.message().to_owned())),
            },
        }
    }

    /// Gives up `link`, unless somebody did before; `next`: for the endpoint after it.
    pub(crate) async fn drop_link(&self, link: &Link, next: bool) {
        let mut connected = self.shared.connected.lock().await;
        if connected.link.as_ref().is_some_and(|present| Arc::ptr_eq(&present.number, &link.number)) {
            connected.link = None;
            connected.place = (connected.place + usize::from(next)) % self.shared.endpoints.len();
        }
    }

    /// Sends one request; see the crate's text for what is sent again.
    pub(crate) async fn call<T, F>(&self, kind: Kind, send: impl Fn(Link) -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut left = self.shared.endpoints.len();
        let mut logged_in_again = false;
        loop {
            let link = self.link().await?;
            let answer = tokio::time::timeout(self.shared.request_timeout, send(link.clone()));
            let status = match answer.await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!(
                    "no answer from {} within {:?}",
                    link.url, self.shared.request_timeout
                )),
            };
            if token_is_stale(&status) && !logged_in_again && self.shared.user.is_some() {
                logged_in_again = true;
                self.drop_link(&link, false).await;
                continue;
            }
            let error = EtcdError::of(&link.url, &status);
            if !error.is_unavailable() {
                return Err(error);
            }
            self.drop_link(&link, true).await;
            left -= 1;
            if kind == Kind::Write || left == 0 {
                return Err(error);
            }
        }
    }

    /// The version of the member that is spoken to, such as `3.5.13`.
    pub async fn version(&self) -> Result<String, EtcdError> {
        let status = self.call(Kind::Read, |link| async move {
            let mut maintenance = MaintenanceClient::new(link.channel.clone());
            maintenance.status(link.request(StatusRequest {})).await.map(tonic::Response::into_inner)
        });
        Ok(status.await?.version)
    }

    /// Turns authentication on, with a user `root` of all rights who has this password.
    pub async fn enable_authentication(&self, root_password: &str) -> Result<(), EtcdError> {
        self.call(Kind::Write, |link| async move {
            let mut auth = AuthClient::new(link.channel.clone());
            let root = || "root".to_owned();
            let user = AuthUserAddRequest { name: root(), password: root_password.to_owned() };
            auth.user_add(link.request(user)).await?;
            auth.user_grant_role(link.request(AuthUserGrantRoleRequest { user: root(), role: root() }))
                .await?;
            auth.auth_enable(link.request(AuthEnableRequest {})).await
        })
        .await
        .map(|_| ())
    }
}
