//! How an API server is reached: a kubeconfig, a URL, or a pod's service account.
//! Source: client-go `tools/clientcmd`, `BuildConfigFromFlags`, which flannel uses.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// `--kubeconfig-file` and `--kube-api-url`; the URL counts more than the file's. Neither: inside a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KubeAccess {
    pub url: Option<String>,
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("--kube-api-url {0} is no URL such as https://10.0.0.1:6443")]
    Url(String),
    #[error("--kubeconfig-file {}: {}", file.display(), causes(error))]
    Kubeconfig { file: PathBuf, error: kube::config::KubeconfigError },
    #[error("neither --kubeconfig-file nor --kube-api-url is given, and this is no pod with a service account: {}", causes(.0))]
    NoPod(kube::config::InClusterError),
    #[error("cannot use what the API server is reached by: {}", causes(.0))]
    Client(kube::Error),
}

/// A client; nothing is asked yet.
pub async fn connect(access: &KubeAccess) -> Result<Client, AccessError> {
    let url = access.url.as_ref().map(|url| {
        let parsed =
            url.parse::<http::Uri>().ok().filter(|uri| uri.scheme().is_some() && uri.host().is_some());
        parsed.ok_or_else(|| AccessError::Url(url.clone()))
    });
    let url = url.transpose()?;
    let config = match (&access.kubeconfig, url) {
        (Some(file), url) => {
            let at = |error| AccessError::Kubeconfig { file: file.clone(), error };
            let kubeconfig = Kubeconfig::read_from(file).map_err(at)?;
            let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(at)?;
            if let Some(url) = url {
                config.cluster_url = url;
            }
            config
        }
        (None, Some(url)) => Config::new(url),
        (None, None) => Config::incluster().map_err(AccessError::NoPod)?,
    };
    Client::try_from(config).map_err(AccessError::Client)
}

/// An error with all that caused it.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(url: Option<&str>, kubeconfig: Option<&str>) -> String {
        let access = KubeAccess { url: url.map(Into::into), kubeconfig: kubeconfig.map(Into::into) };
        connect(&access).await.err().expect("refused").to_string()
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        assert!(refused(None, None).await.contains("neither --kubeconfig-file nor --kube-api-url"));
        assert!(refused(Some("10.0.0.1"), None).await.contains("--kube-api-url 10.0.0.1 is no URL"));
        let error = refused(None, Some("/no/such/file")).await;
        assert!(error.contains("/no/such/file") && error.contains("No such file"), "{error}");
    }
}
