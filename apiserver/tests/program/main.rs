//! The shipped program: starts and ends, what it keeps, what it says, what runs inside it.

mod custom;
mod garbage;
mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Service, ServiceAccount};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, WatchParams};
use kube::{Api, Client, ResourceExt};
use rustix::process::Signal;
use server::{Server, free_port, run, until};

fn map(name: &str) -> ConfigMap {
    let meta = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let data = Some(BTreeMap::from([("a".to_owned(), name.to_owned())]));
    ConfigMap { metadata: meta, data, ..ConfigMap::default() }
}

fn namespace(name: &str) -> Namespace {
    let meta = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    Namespace { metadata: meta, ..Namespace::default() }
}

async fn names(client: &Client) -> Vec<String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let list = maps.list(&ListParams::default()).await.expect("a list");
    let names = list.items.iter().map(ResourceExt::name_any);
    names.filter(|name| name != "kube-root-ca.crt").collect()
}

#[tokio::test]
async fn the_first_start_makes_everything_the_second_keeps_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let mut first = Server::on(directory.path(), port, &[]).await;
    let client = first.client().await;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        Api::<Namespace>::all(client.clone()).get(name).await.expect("a namespace of the system");
    }
    until("the Service kubernetes has this server's address", || async {
        let here: Api<Endpoints> = Api::namespaced(client.clone(), "default");
        let service: Api<Service> = Api::namespaced(client.clone(), "default");
        let address = service.get("kubernetes").await.ok().and_then(|one| one.spec?.cluster_ip);
        let subsets = here.get("kubernetes").await.ok().and_then(|one| one.subsets).unwrap_or_default();
        address.as_deref() == Some("10.96.0.1") && subsets.len() == 1
    })
    .await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    maps.create(&PostParams::default(), &map("kept")).await.expect("created");
    let ca = std::fs::read(first.data.join("pki/ca.crt")).expect("an authority");
    first.signal(Signal::TERM);
    assert_eq!(first.ended().await, Some(0));
    let second = Server::on(directory.path(), port, &[]).await;
    assert_eq!(std::fs::read(second.data.join("pki/ca.crt")).expect("an authority"), ca);
    assert_eq!(names(&second.client().await).await, ["kept"]);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let mut made = Vec::new();
    for round in 0..3 {
        let mut server = Server::on(directory.path(), port, &[]).await;
        let client = server.client().await;
        let mut have = names(&client).await;
        have.sort();
        for name in &made {
            assert!(have.binary_search(name).is_ok(), "{name} is lost");
        }
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        let writing = async {
            for at in 0..1000 {
                let name = format!("m-{round}-{at}");
                match maps.create(&PostParams::default(), &map(&name)).await {
                    Ok(_) => made.push(name),
                    Err(_) => return,
                }
            }
        };
        let killing = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.signal(Signal::KILL);
        };
        tokio::join!(writing, killing);
        server.ended().await;
    }
    assert!(!made.is_empty());
}

#[tokio::test]
async fn a_snapshot_taken_while_it_serves_comes_back_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &[]).await;
    let client = server.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let created = maps.create(&PostParams::default(), &map("before")).await.expect("created");
    let file = directory.path().join("snapshot");
    let file = file.to_str().expect("UTF-8");
    let data = format!("--data-dir={}", server.data.display());
    let (fine, said) = run(&["snapshot", "save", file, &data]);
    assert!(fine, "{said}");
    let (fine, said) = run(&["snapshot", "save", file, &data]);
    assert!(!fine && said.contains("is there already"), "{said}");
    maps.create(&PostParams::default(), &map("after")).await.expect("created");
    let (fine, said) = run(&["snapshot", "restore", file, &data]);
    assert!(!fine, "into a store that is in use: {said}");
    drop(server);

    let elsewhere = tempfile::tempdir().expect("a directory");
    let (fine, said) =
        run(&["snapshot", "restore", file, &format!("--data-dir={}", elsewhere.path().join("d").display())]);
    assert!(fine, "{said}");
    let restored = Server::start(elsewhere.path(), &[]).await;
    let client = restored.client().await;
    assert_eq!(names(&client).await, ["before"]);
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let back = maps.get("before").await.expect("restored");
    assert_eq!((back.uid(), back.resource_version()), (created.uid(), created.resource_version()));
    // Without a server it is taken from the file.
    let mut restored = restored;
    restored.signal(Signal::TERM);
    restored.ended().await;
    let second = elsewhere.path().join("second");
    let data = format!("--data-dir={}", restored.data.display());
    let (fine, said) = run(&["snapshot", "save", second.to_str().expect("UTF-8"), &data]);
    assert!(fine, "{said}");
}

#[tokio::test]
async fn a_stop_ends_watches_cleanly_and_reports_not_ready_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(directory.path(), &["--shutdown-delay-duration=500ms"]).await;
    let client = server.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let mut watch = maps.watch(&WatchParams::default(), "0").await.expect("a watch").boxed();
    let began = Instant::now();
    server.signal(Signal::TERM);
    until("it is not ready", || async { !server.is_ready().await }).await;
    while let Some(event) = watch.next().await {
        event.expect("the watch ends without an error");
    }
    assert_eq!(server.ended().await, Some(0));
    assert!(began.elapsed() >= Duration::from_millis(500), "it served on during the delay");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_audit_log_says_who_did_what() {
    let directory = tempfile::tempdir().expect("a directory");
    let policy = directory.path().join("policy.yaml");
    std::fs::write(
        &policy,
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
         - {level: RequestResponse, resources: [{group: '', resources: [configmaps]}], users: [kubernetes-super-admin]}\n\
         - {level: None}\n",
    )
    .expect("written");
    let log = directory.path().join("audit.log");
    let arguments =
        [format!("--audit-log-path={}", log.display()), format!("--audit-policy-file={}", policy.display())];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let server = Server::start(directory.path(), &arguments).await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await, "default");
    maps.create(&PostParams::default(), &map("a")).await.expect("created");
    maps.get("no-such").await.expect_err("not there");
    let text = std::fs::read_to_string(&log).expect("a log");
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let [create, get] = &events[..] else { panic!("{text}") };
    assert_eq!(create["kind"], "Event");
    assert_eq!(create["apiVersion"], "audit.k8s.io/v1");
    assert_eq!(create["verb"], "create");
    assert_eq!(create["stage"], "ResponseComplete");
    assert_eq!(create["user"]["username"], "kubernetes-super-admin");
    assert_eq!(create["objectRef"]["resource"], "configmaps");
    assert_eq!(create["requestObject"]["data"]["a"], "a");
    assert!(create["responseObject"]["metadata"]["uid"].is_string());
    assert_eq!(create["responseStatus"]["code"], 201);
    assert_eq!(get["responseStatus"]["code"], 404);
    assert_eq!(get["responseStatus"]["reason"], "NotFound");
    assert!(
        get["requestURI"]
            .as_str()
            .expect("a URI")
            .starts_with("/api/v1/namespaces/default/configmaps/no-such")
    );
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    for (flag, said) in [
        (
            "--oidc-issuer-url=https://a",
            "--oidc-issuer-url is not served by corten-apiserver: OpenID Connect",
        ),
        ("--feature-gates=A=true", "--feature-gates is not served by corten-apiserver"),
        ("--authorization-mode=Webhook", "--authorization-mode Webhook is not"),
        ("--no-such-flag", "--no-such-flag"),
    ] {
        let (fine, text) = run(&[flag]);
        assert!(!fine && text.contains(said), "{flag}: {text}");
    }
    assert!(run(&["--help"]).1.contains("corten-apiserver snapshot save"));
    assert!(run(&["version"]).1.starts_with("corten-apiserver "));
    assert!(run(&["completions", "bash"]).1.contains("corten-apiserver"));
    assert!(run(&["man"]).1.contains("corten\\-apiserver\\-run"));
}

#[tokio::test]
async fn a_kubeconfig_lets_its_user_in() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &[]).await;
    let data = format!("--data-dir={}", server.data.display());
    let url = format!("--server=https://127.0.0.1:{}", server.port);
    let output = Command::new(server::PROGRAM)
        .args(["kubeconfig", "--user=jane", "--group=system:masters", &data, &url])
        .stderr(Stdio::inherit())
        .output()
        .expect("it runs");
    let file: kube::config::Kubeconfig =
        kube::config::Kubeconfig::from_yaml(&String::from_utf8(output.stdout).expect("text")).expect("YAML");
    let how = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(file, &how);
    let client = Client::try_from(config.await.expect("a config")).expect("a client");
    Api::<Namespace>::all(client).list(&ListParams::default()).await.expect("jane may");
}

#[tokio::test]
async fn a_namespace_has_its_defaults_and_ends_with_all_it_holds() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &["--storage=memory"]).await;
    let client = server.client().await;
    let all: Api<Namespace> = Api::all(client.clone());
    all.create(&PostParams::default(), &namespace("n")).await.expect("created");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "n");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "n");
    let has_both = || async {
        accounts.get_opt("default").await.expect("an answer").is_some()
            && maps.get_opt("kube-root-ca.crt").await.expect("an answer").is_some()
    };
    until("the default objects are there", has_both).await;
    accounts.delete("default", &DeleteParams::default()).await.expect("deleted");
    let mut root = maps.get("kube-root-ca.crt").await.expect("there");
    let right = root.data.clone();
    root.data = Some(BTreeMap::new());
    maps.replace("kube-root-ca.crt", &PostParams::default(), &root).await.expect("changed");
    until("they are as before", || async {
        has_both().await && maps.get("kube-root-ca.crt").await.expect("there").data == right
    })
    .await;
    for at in 0..20 {
        maps.create(&PostParams::default(), &map(&format!("m-{at}"))).await.expect("created");
    }
    let mut held = map("held");
    held.metadata.finalizers = Some(vec!["example.org/hold".to_owned()]);
    maps.create(&PostParams::default(), &held).await.expect("created");
    all.delete("n", &DeleteParams::default()).await.expect("deleted");
    until("it says what holds it", || async {
        let status = all.get("n").await.expect("still there").status.unwrap_or_default();
        status.phase.as_deref() == Some("Terminating")
            && status.conditions.unwrap_or_default().iter().any(|one| {
                one.type_ == "NamespaceFinalizersRemaining"
                    && one
                        .message
                        .as_deref()
                        .is_some_and(|said| said.contains("example.org/hold in 1 resource instances"))
            })
    })
    .await;
    let mut held = maps.get("held").await.expect("held");
    held.metadata.finalizers = None;
    maps.replace("held", &PostParams::default(), &held).await.expect("released");
    until("it is gone", || async { all.get_opt("n").await.expect("an answer").is_none() }).await;
}

#[tokio::test]
async fn what_is_exported_to_an_etcd_is_all_there() {
    if !Path::new("/usr/bin/etcd").exists() {
        println!("SKIP: no /usr/bin/etcd (Debian's etcd-server)");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &[]).await;
    let (clients, peers) = (free_port(), free_port());
    let (clients, peers) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
    let etcd = Command::new("/usr/bin/etcd")
        .arg(format!("--data-dir={}", directory.path().join("etcd").display()))
        .args(["--log-level=error", "--name=e", &format!("--initial-cluster=e={peers}")])
        .args([format!("--listen-client-urls={clients}"), format!("--advertise-client-urls={clients}")])
        .args([format!("--listen-peer-urls={peers}"), format!("--initial-advertise-peer-urls={peers}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd starts");
    let mut etcd = Killed(etcd);
    let config = corten_etcd::Config::new([&clients]);
    until("etcd answers", || async { corten_store::EtcdStore::connect(&config).await.is_ok() }).await;
    let data = format!("--data-dir={}", server.data.display());
    let (fine, said) = run(&["export", &format!("--to={clients}"), &data]);
    assert!(fine, "{said}");
    let (fine, said) = run(&["export", &format!("--to={clients}"), &data]);
    assert!(!fine && said.contains("not empty"), "{said}");
    drop(server);
    // And it serves from there.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let server = Server::start(elsewhere.path(), &[&format!("--etcd-servers={clients}")]).await;
    let all: Api<Namespace> = Api::all(server.client().await);
    assert!(all.list(&ListParams::default()).await.expect("a list").items.len() >= 4);
    drop(server);
    etcd.0.kill().ok();
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
