use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair};
use x509_parser::certificate::X509Certificate;

use super::*;

fn settings(root: &Path) -> Settings {
    Settings {
        certificates: root.join("pki"),
        kubeconfigs: root.to_owned(),
        server: "https://192.0.2.7:6443".to_owned(),
        advertise: [192, 0, 2, 7].into(),
        service: [10, 96, 0, 1].into(),
        dns_domain: "cluster.local".to_owned(),
        node_name: Some("node-a".to_owned()),
        extra_names: vec!["api.example".to_owned()],
    }
}

fn made() -> (tempfile::TempDir, Settings) {
    let root = tempfile::tempdir().expect("a directory");
    let settings = settings(root.path());
    ensure(&settings, SystemTime::now()).expect("files");
    (root, settings)
}

fn with<T>(settings: &Settings, file: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let path = settings.certificates.join(file);
    let pem = fs::read_to_string(&path).expect("a certificate");
    look(&check::parse(&path, &check::der(&path, &pem).expect("PEM")).expect("DER"))
}

fn refused(settings: &Settings, now: SystemTime) -> String {
    ensure(settings, now).expect_err("an error").to_string()
}

#[test]
fn a_first_start_makes_kubeadms_files() {
    let (_root, settings) = made();
    for file in ["ca", "apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client", "sa"]
    {
        let mode = |path: PathBuf| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode(settings.certificates.join(format!("{file}.key"))), 0o600);
        let public = if file == "sa" { "pub" } else { "crt" };
        assert_eq!(mode(settings.certificates.join(format!("{file}.{public}"))), 0o644);
    }
    for (file, ..) in kubeconfig::FILES {
        let mode = fs::metadata(settings.kubeconfigs.join(file)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    with(&settings, "ca.crt", |ca| {
        assert_eq!(ca.subject().to_string(), "CN=kubernetes");
        assert!(ca.is_ca());
        let usage = ca.key_usage().expect("one").expect("key usage").value;
        assert!(usage.key_cert_sign() && usage.digital_signature() && usage.key_encipherment());
        let days = (ca.validity().not_after.timestamp() - check::seconds(SystemTime::now())) / 86400;
        assert!((3649..=3650).contains(&days), "{days}");
    });
    with(&settings, "apiserver.crt", |server| {
        assert_eq!(server.subject().to_string(), "CN=kube-apiserver");
        let usages = server.extended_key_usage().expect("one").expect("usages").value;
        assert!(usages.server_auth && !usages.client_auth);
        let days = (server.validity().not_after.timestamp() - check::seconds(SystemTime::now())) / 86400;
        assert!((364..=365).contains(&days), "{days}");
        let names = &server.subject_alternative_name().expect("one").expect("names").value.general_names;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 10, "{names:?}");
        assert!(!server.is_ca());
    });
    with(&settings, "apiserver-kubelet-client.crt", |client| {
        assert_eq!(client.subject().to_string(), "CN=kube-apiserver-kubelet-client");
        assert!(client.extended_key_usage().expect("one").expect("usages").value.client_auth);
    });
}

#[test]
fn kubeconfigs_name_kubeadms_users_and_groups() {
    let (_root, settings) = made();
    for (file, user, groups) in kubeconfig::FILES {
        let text = fs::read_to_string(settings.kubeconfigs.join(file)).expect("a kubeconfig");
        let config: serde_json::Value = serde_yaml_ng::from_str(&text).expect("YAML");
        assert_eq!(config["clusters"][0]["cluster"]["server"], settings.server);
        assert_eq!(config["current-context"], format!("{user}@kubernetes"));
        let data = config["users"][0]["user"]["client-certificate-data"].as_str().expect("data");
        let pem = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, data).expect("base64");
        let path = Path::new(file);
        let der = check::der(path, std::str::from_utf8(&pem).expect("text")).expect("PEM");
        let certificate = check::parse(path, &der).expect("DER");
        let subject = certificate.subject();
        let names: Vec<_> = subject.iter_common_name().filter_map(|name| name.as_str().ok()).collect();
        assert_eq!(names, [user]);
        let orgs: Vec<_> = subject.iter_organization().filter_map(|name| name.as_str().ok()).collect();
        assert_eq!(orgs, groups);
    }
}

#[test]
fn a_second_start_changes_nothing() {
    let (_root, settings) = made();
    let files = || -> Vec<(PathBuf, Vec<u8>)> {
        let mut all: Vec<_> = [&settings.certificates, &settings.kubeconfigs]
            .into_iter()
            .flat_map(|directory| fs::read_dir(directory).expect("a directory"))
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), fs::read(path).expect("a file")))
            .collect();
        all.sort();
        all
    };
    let before = files();
    assert_eq!(ensure(&settings, SystemTime::now()).expect("good files"), []);
    assert_eq!(files(), before);
}

#[test]
fn a_leaf_that_runs_out_is_renewed_and_told() {
    let (_root, settings) = made();
    let key = fs::read(settings.certificates.join("apiserver.key")).expect("a key");
    let later = SystemTime::now() + CERTIFICATE_VALIDITY;
    let changes = ensure(&settings, later).expect("renewed");
    assert_eq!(changes.len(), 3 + kubeconfig::FILES.len(), "{changes:?}");
    assert!(changes.iter().all(|change| matches!(change, Change::Renewed { .. })), "{changes:?}");
    assert_eq!(fs::read(settings.certificates.join("apiserver.key")).expect("a key"), key);
    assert_eq!(ensure(&settings, later).expect("good files"), []);
}

#[test]
fn a_server_certificate_without_a_name_is_made_anew() {
    let (_root, mut settings) = made();
    settings.extra_names.push("198.51.100.9".to_owned());
    let changes = ensure(&settings, SystemTime::now()).expect("renewed");
    let [Change::Renewed { path, why }] = &*changes else { panic!("{changes:?}") };
    assert!(path.ends_with("apiserver.crt") && why.contains("198.51.100.9"), "{why}");
    let external = settings.certificates.join("ca.key");
    fs::rename(&external, settings.certificates.join("elsewhere")).expect("moved");
    settings.extra_names.push("more.example".to_owned());
    let message = refused(&settings, SystemTime::now());
    assert!(message.contains("apiserver.crt is not for more.example"), "{message}");
}

#[test]
fn an_authority_whose_key_is_elsewhere_serves_what_it_signed() {
    let (_root, settings) = made();
    fs::remove_file(settings.certificates.join("ca.key")).expect("removed");
    assert_eq!(ensure(&settings, SystemTime::now()).expect("good files"), []);
    fs::remove_file(settings.kubeconfigs.join("scheduler.conf")).expect("removed");
    let message = refused(&settings, SystemTime::now());
    assert!(message.contains("scheduler.conf must be made") && message.contains("ca.key"), "{message}");
    let message = refused(&settings, SystemTime::now() + CERTIFICATE_VALIDITY);
    assert!(message.contains("apiserver.crt ended on"), "{message}");
}

#[test]
fn a_certificate_of_another_authority_is_refused_and_kept() {
    let (_root, settings) = made();
    let (_other_root, other) = made();
    for file in ["apiserver.crt", "apiserver.key"] {
        fs::copy(other.certificates.join(file), settings.certificates.join(file)).expect("copied");
    }
    let before = fs::read(settings.certificates.join("apiserver.crt")).expect("a file");
    let message = refused(&settings, SystemTime::now());
    assert!(message.contains("apiserver.crt was not issued by"), "{message}");
    assert_eq!(fs::read(settings.certificates.join("apiserver.crt")).expect("a file"), before);
}

#[test]
fn a_kubeconfig_of_another_cluster_is_refused() {
    let (_root, settings) = made();
    let (_other_root, other) = made();
    fs::copy(other.kubeconfigs.join("admin.conf"), settings.kubeconfigs.join("admin.conf")).expect("copied");
    let message = refused(&settings, SystemTime::now());
    assert!(message.contains("admin.conf was not issued by"), "{message}");
}

#[test]
fn a_missing_or_wrong_key_is_refused() {
    let (_root, settings) = made();
    let key = settings.certificates.join("apiserver.key");
    fs::remove_file(&key).expect("removed");
    let message = refused(&settings, SystemTime::now());
    assert!(message.contains("apiserver.crt is there and its key"), "{message}");
    fs::write(&key, KeyPair::generate().expect("a key").serialize_pem()).expect("written");
    let message = refused(&settings, SystemTime::now());
    assert!(message.contains("apiserver.key is not the key of"), "{message}");
    fs::write(&key, "nonsense").expect("written");
    let message = refused(&settings, SystemTime::now());
    assert!(message.contains("apiserver.key: no private key in PEM"), "{message}");
}

#[test]
fn an_expired_authority_is_refused() {
    let (_root, settings) = made();
    let message = refused(&settings, SystemTime::now() + AUTHORITY_VALIDITY);
    assert!(message.contains("the authority") && message.contains("ended on"), "{message}");
    let message = refused(&settings, SystemTime::now() - CERTIFICATE_VALIDITY);
    assert!(message.contains("clock"), "{message}");
}

#[test]
fn a_leaf_in_the_place_of_an_authority_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let settings = settings(root.path());
    fs::create_dir(&settings.certificates).expect("made");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::default().self_signed(&key).expect("a certificate");
    fs::write(settings.certificates.join("ca.crt"), leaf.pem()).expect("written");
    fs::write(settings.certificates.join("ca.key"), key.serialize_pem()).expect("written");
    assert!(refused(&settings, SystemTime::now()).contains("no authority's certificate"));
}

#[test]
fn a_start_that_ended_between_key_and_certificate_goes_on() {
    let root = tempfile::tempdir().expect("a directory");
    let settings = settings(root.path());
    fs::create_dir(&settings.certificates).expect("made");
    let pem = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(settings.certificates.join("ca.key"), &pem).expect("written");
    ensure(&settings, SystemTime::now()).expect("files");
    assert_eq!(fs::read_to_string(settings.certificates.join("ca.key")).expect("a key"), pem);
    assert_eq!(ensure(&settings, SystemTime::now()).expect("good files"), []);
}

/// As kubeadm writes them: `openssl ecparam -genkey` and `openssl genrsa -traditional`.
#[test]
fn keys_of_other_tools_are_read() {
    for pem in [include_str!("testdata/sec1.key"), include_str!("testdata/pkcs1.key")] {
        private_key(pem).expect("a key");
    }
    assert!(private_key("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_err());
}
