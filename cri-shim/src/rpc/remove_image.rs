//! RemoveImage: all names of the image go with it. Absent is removed.

use std::sync::Arc;

use corten_cri_api::v1::{RemoveImageRequest, RemoveImageResponse};
use corten_images::StoreError;

use super::images::asked;
use crate::daemon::{Daemon, blocking};
use crate::error::Error;

pub async fn remove_image(
    daemon: Arc<Daemon>,
    request: RemoveImageRequest,
) -> Result<RemoveImageResponse, Error> {
    let wanted = asked(request.image);
    if wanted.is_empty() {
        return Err(Error::argument("image.image", "an image is needed"));
    }
    match blocking(move || daemon.images.remove(&wanted)).await {
        Ok(_) | Err(StoreError::NotFound(_)) => Ok(RemoveImageResponse {}),
        Err(error) => Err(error.into()),
    }
}
