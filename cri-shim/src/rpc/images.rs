//! What the image RPCs and the containers' answers share: how an image reads in CRI.

use corten_cri_api::v1;
use corten_images::ImageRecord;

use crate::daemon::Daemon;

/// The name an image is asked for by.
pub fn asked(image: Option<v1::ImageSpec>) -> String {
    image.map(|i| i.image).unwrap_or_default()
}

/// `Image` of CRI. The image's USER is hostile: a number that does not fit is a name.
pub fn image(record: &ImageRecord) -> v1::Image {
    let user = record.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i32>().ok().filter(|uid| *uid >= 0);
    v1::Image {
        id: record.id.to_string(),
        repo_tags: record.repo_tags.iter().cloned().collect(),
        repo_digests: record.repo_digests.iter().cloned().collect(),
        size: record.size_bytes,
        uid: uid
            .map(|uid| v1::Int64Value { value: uid.into() })
            .or_else(|| user.is_empty().then(v1::Int64Value::default)),
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        spec: None,
        pinned: record.pinned,
    }
}

/// What a container's status calls its image: by repository and digest where it has one, else by id.
pub fn image_ref(daemon: &Daemon, id: &str) -> String {
    let digest = daemon.images.get(id).ok().and_then(|i| i.repo_digests.first().cloned());
    digest.unwrap_or_else(|| id.to_owned())
}

/// The first tag of the image, else what the container was created with.
pub fn image_name(daemon: &Daemon, id: &str, asked: Option<&v1::ImageSpec>) -> String {
    let tag = daemon.images.get(id).ok().and_then(|i| i.repo_tags.first().cloned());
    tag.or_else(|| asked.map(|a| a.image.clone())).unwrap_or_else(|| id.to_owned())
}
