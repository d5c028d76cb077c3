//! ImageFsInfo: one file system for images and containers. Its mountpoint is a real path, which the kubelet measures.

use std::sync::Arc;

use corten_cri_api::v1::{
    FilesystemIdentifier, FilesystemUsage, ImageFsInfoRequest, ImageFsInfoResponse, UInt64Value,
};
use corten_images::FsUsage;

use crate::daemon::{Daemon, blocking, now_ns};
use crate::error::Error;

pub async fn image_fs_info(daemon: Arc<Daemon>, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse, Error> {
    let usage = blocking(move || daemon.images.fs_usage()).await;
    let filesystem = filesystem(&usage);
    Ok(ImageFsInfoResponse {
        image_filesystems: vec![filesystem.clone()],
        container_filesystems: vec![filesystem],
    })
}

fn filesystem(usage: &FsUsage) -> FilesystemUsage {
    FilesystemUsage {
        timestamp: now_ns(),
        fs_id: Some(FilesystemIdentifier { mountpoint: usage.mountpoint.display().to_string() }),
        used_bytes: Some(UInt64Value { value: usage.used.bytes }),
        inodes_used: Some(UInt64Value { value: usage.used.inodes }),
    }
}
