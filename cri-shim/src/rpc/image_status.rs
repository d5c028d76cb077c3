//! ImageStatus: an image that is not there is an empty answer, not an error.

use std::collections::HashMap;
use std::sync::Arc;

use corten_cri_api::v1::{ImageStatusRequest, ImageStatusResponse};
use corten_images::{ImageRecord, StoreError};

use super::images::{asked, image};
use crate::daemon::Daemon;
use crate::error::Error;

pub async fn image_status(
    daemon: Arc<Daemon>,
    request: ImageStatusRequest,
) -> Result<ImageStatusResponse, Error> {
    let wanted = asked(request.image);
    if wanted.is_empty() {
        return Err(Error::argument("image.image", "an image is needed"));
    }
    let Some(record) = find(&daemon, &wanted)? else { return Ok(ImageStatusResponse::default()) };
    let mut info = HashMap::new();
    if request.verbose {
        let config = daemon.images.image_config(record.id)?;
        let text = serde_json::json!({"imageSpec": config, "layers": record.layers});
        info.insert("info".to_owned(), text.to_string());
    }
    Ok(ImageStatusResponse { image: Some(image(&record)), info })
}

/// `None` for what is not there.
pub fn find(daemon: &Daemon, wanted: &str) -> Result<Option<Arc<ImageRecord>>, Error> {
    match daemon.images.get(wanted) {
        Ok(record) => Ok(Some(record)),
        Err(StoreError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
