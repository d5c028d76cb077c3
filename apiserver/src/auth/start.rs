//! From flags and files to [`Auth`].

use std::path::PathBuf;
use std::sync::Arc;

use corten_store::Store;

use super::Auth;
use super::authn::{Authenticator, ClientCa, ClientCaError, RequestHeader, RequestHeaderConfig};
use super::authz::{Authorizer, Mode};
use super::lookup::Lookup;
use super::tokens::{KeyError, PublicKeys, ServiceAccountTokens, Signer, TokenConfig};
use crate::registry::Registry;

/// Names are kube-apiserver's flags'.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    pub client_ca_file: Option<PathBuf>,
    /// `--requestheader-client-ca-file` and its kin.
    pub request_header: Option<(PathBuf, RequestHeaderConfig)>,
    pub tokens: TokenConfig,
    pub service_account_signing_key_file: PathBuf,
    pub service_account_key_files: Vec<PathBuf>,
    pub bootstrap_tokens: bool,
    pub anonymous: bool,
    pub authorization_modes: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error(transparent)]
    ClientCa(#[from] ClientCaError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("--authorization-mode: {0}")]
    Mode(String),
    #[error("roles and bindings are not among the resources that are served")]
    NoRoles,
}

impl Auth {
    /// Reads keys and authorities, and begins to follow roles, bindings and pods; nothing is decided before all of
    /// them are known. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A file is missing or wrong; a mode is unknown.
    pub async fn start(
        config: AuthConfig,
        store: &Arc<dyn Store>,
        registry: &Arc<Registry>,
    ) -> Result<Self, AuthError> {
        let modes: Vec<Mode> = config
            .authorization_modes
            .iter()
            .map(|mode| mode.parse().map_err(AuthError::Mode))
            .collect::<Result<_, _>>()?;
        let signer = Signer::load(&config.service_account_signing_key_file)?;
        let keys = PublicKeys::load(config.service_account_key_files.iter().map(PathBuf::as_path))?;
        let tokens = ServiceAccountTokens::new(config.tokens, signer, keys);
        let request_header = match config.request_header {
            Some((file, config)) => Some(RequestHeader { ca: ClientCa::load(&file)?, config }),
            None => None,
        };
        let authenticator = Authenticator {
            lookup: Lookup::new(Arc::clone(store), Arc::clone(registry)),
            client_ca: config.client_ca_file.as_deref().map(ClientCa::load).transpose()?,
            request_header,
            tokens: Some(Arc::clone(&tokens)),
            bootstrap_tokens: config.bootstrap_tokens,
            anonymous: config.anonymous,
        };
        let authorizer = Authorizer::start(modes, store, registry).ok_or(AuthError::NoRoles)?;
        authorizer.wait_ready().await;
        Ok(Self {
            authenticator: Arc::new(authenticator),
            authorizer: Arc::new(authorizer),
            tokens: Some(tokens),
        })
    }
}
