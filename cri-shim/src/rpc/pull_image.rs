//! PullImage. A client that goes away cancels it: what is finished of it stays for the next try.

use std::sync::Arc;
use std::time::Duration;

use corten_cri_api::v1::{AuthConfig, PullImageRequest, PullImageResponse};
use corten_images::{Auth, PullOptions, Reference, StoreError};

use super::images::asked;
use crate::daemon::Daemon;
use crate::error::Error;

pub async fn pull_image(daemon: Arc<Daemon>, request: PullImageRequest) -> Result<PullImageResponse, Error> {
    let reference = Reference::parse(&asked(request.image)).map_err(StoreError::from)?;
    let options = PullOptions { auth: request.auth.map(auth), ..options(&daemon) };
    let record = daemon.images.pull(&reference, options).await.map_err(|e| Error::Pull(Box::new(e)))?;
    Ok(PullImageResponse { image_ref: record.id.to_string() })
}

/// What the configuration says of pulls.
pub fn options(daemon: &Daemon) -> PullOptions {
    let no_progress_timeout = Duration::from_secs(daemon.config.registry.progress_timeout_s);
    PullOptions { no_progress_timeout, ..PullOptions::default() }
}

fn auth(given: AuthConfig) -> Auth {
    Auth {
        username: given.username,
        password: given.password,
        auth: given.auth,
        server_address: given.server_address,
        identity_token: given.identity_token,
        registry_token: given.registry_token,
    }
}
