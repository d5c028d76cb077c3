//! Images as CRI shows them.

use corten_cri_api::v1;
use tonic::Code;

use crate::node::{IMAGE, Node};

fn spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_listed_described_and_removed_and_an_absent_one_is_no_error() {
    let Some(node) = Node::start().await else { return };
    let mut images = node.images().await;
    let list = images.list_images(v1::ListImagesRequest::default()).await.unwrap().into_inner().images;
    assert_eq!((list.len(), list[0].repo_tags.as_slice()), (1, &[IMAGE.to_owned()][..]));
    let status = |image: &str| v1::ImageStatusRequest { image: Some(spec(image)), verbose: true };
    for name in [IMAGE, &list[0].id] {
        let answer = images.image_status(status(name)).await.unwrap().into_inner();
        assert_eq!(answer.image.unwrap(), list[0]);
        assert!(answer.info["info"].contains("imageSpec"));
    }
    let usage = images.image_fs_info(v1::ImageFsInfoRequest {}).await.unwrap().into_inner();
    let filesystem = &usage.image_filesystems[0];
    assert!(std::path::Path::new(&filesystem.fs_id.as_ref().unwrap().mountpoint).is_dir());
    assert!(filesystem.used_bytes.unwrap().value > 1_000_000);
    for _ in 0..2 {
        images.remove_image(v1::RemoveImageRequest { image: Some(spec(IMAGE)) }).await.unwrap();
        assert!(images.image_status(status(IMAGE)).await.unwrap().into_inner().image.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_reference_is_refused() {
    let Some(node) = Node::start().await else { return };
    let request = v1::PullImageRequest { image: Some(spec("UPPER/case:x y")), ..Default::default() };
    let error = node.images().await.pull_image(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}
