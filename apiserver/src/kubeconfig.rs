//! `kubeconfig`: a client certificate of our authority, and the file around it.

use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::options::Kubeconfig;
use crate::pki::{Authority, Credentials, Layout, Leaf, issue, render_kubeconfig};

/// # Errors
/// The authority or its key is not there.
pub fn text(args: &Kubeconfig) -> Result<String> {
    let now = SystemTime::now();
    let layout = Layout(args.cert_dir.clone().unwrap_or_else(|| args.data.data_dir.join("pki")));
    let authority = Authority::load(&layout.ca(), &layout.ca_key(), now)
        .context("no certificate can be issued (the server makes its authority at the first start)")?;
    let groups: Vec<_> = args.group.iter().map(String::as_str).collect();
    let (certificate, key) = issue(&Leaf::client(&args.user, &groups), &authority, now)?;
    let credentials = Credentials { user: &args.user, certificate: &certificate, key: &key };
    Ok(render_kubeconfig(&args.server, &authority.pem, &credentials))
}
