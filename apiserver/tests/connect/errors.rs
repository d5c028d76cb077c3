//! What is refused, and in which words.

use std::sync::Arc;

use corten_apiserver::auth::{Attributes, Decision, User};
use corten_apiserver::hooks::Authorizer;
use futures::future::BoxFuture;

use crate::cluster::{Authority, Cluster, kubelets};
use crate::kubelet::Kubelet;

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn wrong_requests_are_refused_in_upstreams_words() {
    let cluster = Cluster::start(false).await;
    #[rustfmt::skip]
    let table = [
        ("GET", "/none/log", 404, "pods \"none\" not found"),
        ("GET", "/two/log", 400, "a container name must be specified for pod two, choose one of: [one other]"),
        ("GET", "/a/log?container=x", 400, "container x is not valid for pod a"),
        ("GET", "/a/log?tailLines=-1", 422, "PodLogOptions \"a\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("GET", "/a/log?limitBytes=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("POST", "/a/log", 405, "the server does not allow this method on the requested resource"),
        ("GET", "/waiting/log", 400, "container \"main\" in pod \"waiting\" is waiting to start: ContainerCreating"),
        ("GET", "/gone/log", 404, "the server could not find the requested resource ( pods/log gone)"),
        ("POST", "/a/exec?command=true&stdout=true", 400, "Upgrade request required"),
        ("POST", "/a/exec?dryRun=All", 400, "dryRun is not supported"),
        ("POST", "/free/exec?command=true", 400, "pod free does not have a host assigned"),
        ("POST", "/free/portforward", 400, "pod free does not have a host assigned"),
        ("POST", "/two/attach", 400, "a container name must be specified for pod two, choose one of: [one other]"),
        ("DELETE", "/a/exec", 405, "the server does not allow this method on the requested resource"),
    ];
    for (method, path, code, message) in table {
        assert_eq!(
            cluster.refused(method, &format!("{PODS}{path}")).await,
            (code, message.to_owned()),
            "{path}"
        );
    }
    let (code, body) = cluster.ask("GET", &format!("{PODS}/free/log")).await;
    assert_eq!((code.as_u16(), &*body), (204, ""));
}

#[tokio::test]
async fn a_kubelet_that_is_not_there_or_is_somebody_else_is_said() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    // Its certificate is from somebody else's authority.
    let kubelet = Kubelet::start(ours.server(&["127.0.0.1"]), false).await;
    let port = kubelet.port;
    let cluster = Cluster::with(kubelet, kubelets(&ours, &theirs), false).await;
    let url = format!("https://127.0.0.1:{port}/containerLogs/default/a/main");
    let (code, message) = cluster.refused("GET", &format!("{PODS}/a/log")).await;
    let why = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert_eq!((code, message), (500, format!("Get \"{url}\": {why}")));
    let (code, _) = cluster.ask("GET", &format!("{PODS}/a/log?insecureSkipTLSVerifyBackend=true")).await;
    assert_eq!(code.as_u16(), 200, "logs may be read from whoever it is, when that is asked for");
    // We are not let in.
    let kubelet = Kubelet::start(ours.server(&["127.0.0.1"]), false).await;
    let cluster = Cluster::with(kubelet, kubelets(&theirs, &ours), false).await;
    assert_eq!(cluster.refused("GET", &format!("{PODS}/a/log")).await.0, 500);
    // Nobody listens.
    let kubelet = Kubelet::start(ours.server(&["127.0.0.1"]), false).await;
    let port = kubelet.port;
    let mut cluster = Cluster::with(kubelet, kubelets(&ours, &ours), false).await;
    let other = Kubelet::start(ours.server(&["127.0.0.1"]), false).await;
    drop(std::mem::replace(&mut cluster.kubelet, other));
    let expected = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let (code, message) = cluster.refused("GET", &format!("{PODS}/a/log")).await;
        if code == 500 && message.ends_with(&expected) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{code} {message}");
        tokio::task::yield_now().await;
    }
}

/// Lets everybody read, and nobody create.
struct ReadOnly;

impl Authorizer for ReadOnly {
    fn authorize<'a>(&'a self, _: &'a User, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        let decision = match &*attributes.verb {
            "get" => Decision::Allow,
            _ => Decision::NoOpinion("no".to_owned()),
        };
        Box::pin(std::future::ready(decision))
    }
}

#[tokio::test]
async fn who_may_only_read_pods_cannot_exec_by_a_websockets_get() {
    let mut cluster = Cluster::start(false).await;
    let store = Arc::clone(&cluster.api.store);
    let mut api = corten_apiserver::api::Api::new(store, corten_apiserver::registry::Registry::built_in());
    api.authorizer = Box::new(ReadOnly);
    cluster.api = Arc::new(api);
    for subresource in ["exec", "attach", "portforward"] {
        let (code, message) = cluster.refused("GET", &format!("{PODS}/a/{subresource}")).await;
        assert_eq!((code, &*message), (403, "pods \"a\" is forbidden: no"), "{subresource}");
    }
}
