//! ListImages, all or the one the filter names.

use std::sync::Arc;

use corten_cri_api::v1::{ListImagesRequest, ListImagesResponse};

use super::images::{asked, image};
use crate::daemon::Daemon;
use crate::error::Error;
use crate::rpc::image_status::find;

pub async fn list_images(
    daemon: Arc<Daemon>,
    request: ListImagesRequest,
) -> Result<ListImagesResponse, Error> {
    let wanted = asked(request.filter.and_then(|f| f.image));
    let records =
        if wanted.is_empty() { daemon.images.list() } else { find(&daemon, &wanted)?.into_iter().collect() };
    Ok(ListImagesResponse { images: records.iter().map(|r| image(r)).collect() })
}
