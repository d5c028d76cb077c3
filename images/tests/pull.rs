//! Pulls from registries that misbehave in every way a test server can, and what is left behind: nothing.
#![forbid(unsafe_code)]

mod common;

use std::time::Duration;

use common::{Answer, Image, Server, store, store_with_hosts};
use corten_images::{Auth, InstallError, LayerState, PullOptions, Reference, RegistryError, StoreError};

fn options() -> PullOptions {
    PullOptions { no_progress_timeout: Duration::from_secs(5), ..PullOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_by_tag_and_by_digest_and_shares_its_layers() {
    let image = Image::new(&[("one", b"1"), ("two", b"2")]);
    let server = Server::start(image.routes("app", "v1")).await;
    let (top, store) = store();
    let reference = server.reference("app:v1");
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&seen);
    let progress: corten_images::ProgressFn =
        std::sync::Arc::new(move |progress| sink.lock().unwrap().push(progress));
    let record = store.pull(&reference, PullOptions { progress: Some(progress), ..options() }).await.unwrap();
    assert_eq!(record.id, image.config_digest());
    assert_eq!(record.repo_tags.first(), Some(&reference.to_string()));
    assert_eq!(record.repo_digests.first(), Some(&reference.at(image.manifest_digest()).to_string()));
    let done = seen.lock().unwrap().iter().filter(|progress| progress.state == LayerState::Done).count();
    assert_eq!(done, 2);
    let mount = store.prepare_snapshot(record.id, "c").unwrap();
    assert_eq!(std::fs::read(mount.lower[0].join("two")).unwrap(), b"2");
    assert_eq!(std::fs::read(mount.lower[1].join("one")).unwrap(), b"1");

    let requests = server.requests();
    let by_digest = reference.at(image.manifest_digest());
    assert_eq!(store.pull(&by_digest, options()).await.unwrap().id, record.id);
    let new: Vec<_> = server.requests().split_off(requests.len());
    assert!(!new.iter().any(|request| request.contains(&image.layers[0].digest.to_string())), "{new:?}");
    common::assert_no_ingest(top.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_image_is_named_and_leaves_nothing() {
    let server = Server::start(Image::new(&[("f", b"x")]).routes("app", "v1")).await;
    let (top, store) = store();
    let error = store.pull(&server.reference("app:v2"), options()).await.unwrap_err();
    assert!(matches!(&error.source, InstallError::Registry(error) if error.not_found()), "{error}");
    assert!(error.to_string().contains("app:v2"), "{error}");
    assert!(matches!(store.get("app:v2"), Err(StoreError::NotFound(_))));
    common::assert_empty(top.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_digest_of_manifest_config_or_layer_is_refused() {
    let image = Image::new(&[("f", b"right")]);
    let other = Image::new(&[("f", b"wrong")]);
    let blob = |image: &Image| format!("/v2/app/blobs/{}", image.layers[0].digest);
    let config = |image: &Image| format!("/v2/app/blobs/{}", image.config_digest());
    let manifest = format!("/v2/app/manifests/{}", image.manifest_digest());
    for (what, path, bytes) in [
        ("layer", blob(&image), other.layers[0].blob.clone()),
        ("config", config(&image), other.config.clone()),
        ("manifest", manifest, other.manifest.clone()),
    ] {
        let mut bytes = bytes;
        let mut routes = image.routes("app", "v1");
        if what == "layer" {
            // As long as the right one, so that only the digest tells.
            bytes.resize(image.layers[0].blob.len(), 0);
        }
        let content_type = routes.get(&path).and_then(|answer| answer.content_type.clone());
        routes.insert(path, Answer { content_type, ..Answer::bytes(bytes) });
        let server = Server::start(routes).await;
        let (top, store) = store();
        let reference = server.reference("app:v1").at(image.manifest_digest());
        let error = store.pull(&reference, options()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("wrong digest") || text.contains("more than"), "{what}: {text}");
        common::assert_empty(top.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_diff_id_is_refused() {
    let image = Image::with_config(&[("f", b"x")], |config| {
        let at = config.find("diff_ids").unwrap() + "diff_ids\":[\"sha256:".len();
        config.replace_range(at..at + 8, "00000000");
    });
    let server = Server::start(image.routes("app", "v1")).await;
    let (top, store) = store();
    let error = store.pull(&server.reference("app:v1"), options()).await.unwrap_err();
    assert!(error.to_string().contains("diff id"), "{error}");
    common::assert_empty(top.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_layer_is_told_from_a_broken_connection() {
    let image = Image::new(&[("f", &common::noise(200_000))]);
    let mut routes = image.routes("app", "v1");
    let path = format!("/v2/app/blobs/{}", image.layers[0].digest);
    routes.get_mut(&path).unwrap().body.truncate(1000);
    let server = Server::start(routes).await;
    let (top, store) = store();
    let error = store.pull(&server.reference("app:v1"), options()).await.unwrap_err();
    assert!(error.to_string().contains("ended after 1000 of"), "{error}");
    common::assert_empty(top.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_down_mid_layer_is_resumed_by_range() {
    let image = Image::new(&[("f", &common::noise(3_000_000))]);
    let mut routes = image.routes("app", "v1");
    let path = format!("/v2/app/blobs/{}", image.layers[0].digest);
    routes.get_mut(&path).unwrap().break_after = Some(700_000);
    let server = Server::start(routes).await;
    let (_top, store) = store();
    let record = store.pull(&server.reference("app:v1"), options()).await.unwrap();
    assert_eq!(record.layers.len(), 1);
    let ranges: Vec<_> =
        server.requests().into_iter().filter(|request| request.contains("range: bytes=")).collect();
    assert!(ranges.len() >= 3, "{ranges:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_range_is_resumed_by_skipping() {
    let image = Image::new(&[("f", &common::noise(1_000_000))]);
    let mut routes = image.routes("app", "v1");
    let answer = routes.get_mut(&format!("/v2/app/blobs/{}", image.layers[0].digest)).unwrap();
    (answer.break_after, answer.breaks, answer.no_range) = (Some(400_000), 2, true);
    let server = Server::start(routes).await;
    let (_top, store) = store();
    store.pull(&server.reference("app:v1"), options()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_without_progress_is_cancelled() {
    let image = Image::new(&[("f", &common::noise(100_000))]);
    let mut routes = image.routes("app", "v1");
    routes.get_mut(&format!("/v2/app/blobs/{}", image.layers[0].digest)).unwrap().stall_after = Some(5000);
    let server = Server::start(routes).await;
    let (top, store) = store();
    let options = PullOptions { no_progress_timeout: Duration::from_millis(300), ..options() };
    let error = store.pull(&server.reference("app:v1"), options).await.unwrap_err();
    assert!(error.to_string().contains("no byte in"), "{error}");
    common::assert_no_ingest(top.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_leaves_no_ingest() {
    let image = Image::new(&[("f", &common::noise(100_000))]);
    let mut routes = image.routes("app", "v1");
    routes.get_mut(&format!("/v2/app/blobs/{}", image.layers[0].digest)).unwrap().stall_after = Some(5000);
    let server = Server::start(routes).await;
    let (top, store) = store();
    let reference = server.reference("app:v1");
    let pull = store.pull(&reference, options());
    assert!(tokio::time::timeout(Duration::from_millis(300), pull).await.is_err());
    common::wait_for("the ingest to go", || common::ingest_is_empty(top.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_of_one_image_fetch_each_layer_once() {
    let image = Image::new(&[("a", &common::noise(300_000)), ("b", &common::noise(200_000))]);
    let server = Server::start(image.routes("app", "v1")).await;
    let (_top, store) = store();
    let reference = server.reference("app:v1");
    let (first, second) = tokio::join!(store.pull(&reference, options()), store.pull(&reference, options()));
    assert_eq!(first.unwrap().id, second.unwrap().id);
    for layer in &image.layers {
        let path = format!("/blobs/{}", layer.digest);
        assert_eq!(server.requests().iter().filter(|request| request.contains(&path)).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_spares_a_pull_in_flight() {
    let image = Image::new(&[("a", b"quick"), ("b", &common::noise(3_000_000))]);
    let mut routes = image.routes("app", "v1");
    let slow = routes.get_mut(&format!("/v2/app/blobs/{}", image.layers[1].digest)).unwrap();
    slow.break_after = Some(400_000);
    let server = Server::start(routes).await;
    let (_top, store) = store();
    let reference = server.reference("app:v1");
    let collecting = store.clone();
    let collector = tokio::spawn(async move {
        loop {
            collecting.gc().unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let record = store.pull(&reference, options()).await.unwrap();
    collector.abort();
    let mount = store.prepare_snapshot(record.id, "c").unwrap();
    assert!(mount.lower.iter().all(|layer| layer.is_dir()));
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_manifests_are_refused() {
    let mut routes = Image::new(&[("f", b"x")]).routes("app", "v1");
    routes.get_mut("/v2/app/manifests/v1").unwrap().body = vec![b' '; 5 << 20];
    let server = Server::start(routes).await;
    let (top, store) = store();
    let error = store.pull(&server.reference("app:v1"), options()).await.unwrap_err();
    assert!(error.to_string().contains("larger than 4194304 bytes"), "{error}");
    common::assert_empty(top.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_tried_in_order_and_the_next_one_mends_a_broken_one() {
    let image = Image::new(&[("f", &common::noise(50_000))]);
    let mut broken = image.routes("library/app", "v1");
    let path = format!("/v2/library/app/blobs/{}", image.layers[0].digest);
    broken.get_mut(&path).unwrap().body[20_000] ^= 1;
    let (empty, broken) =
        (Server::start(std::collections::BTreeMap::new()).await, Server::start(broken).await);
    let whole = Server::start(image.routes("library/app", "v1")).await;
    let down = common::closed_port().await;
    let hosts = [&down, &empty.address, &broken.address, &whole.address];
    let text = hosts
        .map(|host| {
            format!(
                "[host.\"http://{host}\"]
"
            )
        })
        .concat();
    let (_top, store) = store_with_hosts("docker.io", &format!("server = \"http://{down}\"\n{text}"));
    let record = store.pull(&Reference::parse("app:v1").unwrap(), options()).await.unwrap();
    assert_eq!(record.repo_tags.first().unwrap(), "docker.io/library/app:v1");
    assert!(broken.requests().iter().any(|request| request.contains("ns=docker.io")));
    assert!(whole.requests().iter().any(|request| request.contains("/blobs/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2020_15157_a_redirect_to_another_host_sees_no_credentials() {
    let image = Image::new(&[("f", b"x")]);
    let storage = Server::start(image.routes("app", "v1")).await;
    let mut routes = image.routes("app", "v1");
    let path = format!("/v2/app/blobs/{}", image.layers[0].digest);
    routes.insert(path.clone(), Answer::redirect(&format!("http://{}{path}?signature=s", storage.address)));
    for answer in routes.values_mut() {
        answer.basic = Some("user:secret".to_owned());
    }
    let server = Server::start(routes).await;
    let (_top, store) = store();
    let auth = Auth { username: "user".into(), password: "secret".into(), ..Auth::default() };
    store.pull(&server.reference("app:v1"), PullOptions { auth: Some(auth), ..options() }).await.unwrap();
    assert!(server.requests().iter().any(|request| request.contains("authorization: Basic")));
    let leaked =
        storage.requests().into_iter().find(|request| request.to_lowercase().contains("authorization"));
    assert_eq!(leaked, None);
    assert!(!storage.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2020_15157_a_mirror_sees_no_credentials_of_the_registry() {
    let image = Image::new(&[("f", b"x")]);
    let mut routes = image.routes("library/app", "v1");
    for answer in routes.values_mut() {
        answer.basic = Some("user:secret".to_owned());
    }
    let mirror = Server::start(routes).await;
    let down = common::closed_port().await;
    let hosts = format!("server = \"http://{down}\"\n[host.\"http://{}\"]\n", mirror.address);
    let (_top, store) = store_with_hosts("docker.io", &hosts);
    let auth = Auth { username: "user".into(), password: "secret".into(), ..Auth::default() };
    let reference = Reference::parse("app:v1").unwrap();
    let error =
        store.pull(&reference, PullOptions { auth: Some(auth.clone()), ..options() }).await.unwrap_err();
    assert!(matches!(&error.source, InstallError::Registry(error) if error.denied()), "{error}");
    assert!(!mirror.requests().iter().any(|request| request.contains("authorization:")));
    let named = Auth { server_address: mirror.address.clone(), ..auth };
    store.pull(&reference, PullOptions { auth: Some(named), ..options() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_token_is_fetched_with_scope_and_credentials_and_used() {
    let image = Image::new(&[("f", b"x")]);
    let server = Server::start(image.routes("app", "v1")).await;
    server.want_token("app", "user:secret");
    let (_top, store) = store();
    let auth = Auth { username: "user".into(), password: "secret".into(), ..Auth::default() };
    store.pull(&server.reference("app:v1"), PullOptions { auth: Some(auth), ..options() }).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.iter().filter(|request| request.contains("/token?")).count(), 1, "{requests:?}");
    assert!(requests.iter().any(|request| request.contains("scope=repository%3Aapp%3Apull&service=test")));
    let error = store.pull(&server.reference("app:v1"), options()).await.unwrap_err();
    assert!(
        matches!(
            &error.source,
            InstallError::Registry(RegistryError::AllHosts(_) | RegistryError::Denied { .. })
        ),
        "{error}"
    );
    let wrong = Auth { username: "user".into(), password: "hunter2".into(), ..Auth::default() };
    let error = store
        .pull(&server.reference("app:v1"), PullOptions { auth: Some(wrong), ..options() })
        .await
        .unwrap_err();
    assert!(matches!(&error.source, InstallError::Registry(error) if error.denied()), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged_by_post() {
    let image = Image::new(&[("f", b"x")]);
    let server = Server::start(image.routes("app", "v1")).await;
    server.want_token("app", "refresh_token=identity");
    let (_top, store) = store();
    let auth = Auth { identity_token: "identity".into(), ..Auth::default() };
    store.pull(&server.reference("app:v1"), PullOptions { auth: Some(auth), ..options() }).await.unwrap();
    assert!(server.requests().iter().any(|request| request.starts_with("POST /token")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_that_escapes_is_refused_and_leaves_nothing() {
    let image = Image::from_layers(&[common::escaping_layer()], |_| {});
    let server = Server::start(image.routes("app", "v1")).await;
    let (top, store) = store();
    let error = store.pull(&server.reference("app:v1"), options()).await.unwrap_err();
    assert!(error.to_string().contains("escapes the image"), "{error}");
    common::assert_empty(top.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_is_named_and_leaves_nothing() {
    let Some(disk) = common::SmallDisk::mount() else { return };
    let image = Image::new(&[("small", b"x"), ("big", &common::noise(8 << 20))]);
    let server = Server::start(image.routes("app", "v1")).await;
    let store = common::open(&disk.path().join("images"));
    let error = store.pull(&server.reference("app:v1"), options()).await.unwrap_err();
    assert!(error.to_string().contains("ENOSPC"), "{error}");
    common::assert_empty(&disk.path().join("images"));
    let fits = Image::new(&[("small", b"x")]);
    let server = Server::start(fits.routes("app", "v1")).await;
    store.pull(&server.reference("app:v1"), options()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_the_damaged_image_and_not_the_start() {
    let server = Server::start(Image::new(&[("f", b"one")]).routes("app", "v1")).await;
    let other = Server::start(Image::new(&[("f", b"two")]).routes("app", "v2")).await;
    let (top, store) = store();
    let lost = store.pull(&server.reference("app:v1"), options()).await.unwrap();
    let kept = store.pull(&other.reference("app:v2"), options()).await.unwrap();
    drop(store);
    std::fs::write(top.path().join(format!("images/{}.json", lost.id.hex())), "{ half a rec").unwrap();
    std::fs::create_dir_all(top.path().join("layers/unfinished/fs/deep")).unwrap();
    std::fs::create_dir_all(top.path().join("ingest/of-a-dead-process/fs")).unwrap();
    std::fs::write(top.path().join("blobs/sha256").join("0".repeat(64)), "not that").unwrap();
    let store = common::open(top.path());
    assert_eq!(store.list().iter().map(|image| image.id).collect::<Vec<_>>(), [kept.id]);
    assert!(!top.path().join("layers/unfinished").exists());
    common::assert_no_ingest(top.path());
    std::fs::remove_dir_all(top.path().join("layers").join(kept.layers[0].chain_id.hex())).unwrap();
    drop(store);
    let store = common::open(top.path());
    assert!(store.list().is_empty());
    store.pull(&server.reference("app:v1"), options()).await.unwrap();
}
