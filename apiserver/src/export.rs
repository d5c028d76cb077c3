//! `export --to`: all objects into an etcd, in upstream's key layout, from where a kube-apiserver serves them.

use anyhow::{Context, Result};
use corten_store::EtcdStore;

use crate::options::Export;
use crate::snapshot;

/// # Errors
/// The etcd is not empty, cannot be reached, or the objects cannot be read.
pub async fn run(args: &Export) -> Result<()> {
    let image = match &args.snapshot {
        Some(file) => snapshot::read(file).await?,
        None => snapshot::image(&args.data).await?,
    };
    let mut config = corten_etcd::Config::new(&args.to);
    config.tls = corten_etcd::Tls {
        ca: args.etcd_cafile.clone(),
        identity: args.etcd_certfile.clone().zip(args.etcd_keyfile.clone()),
    };
    let to = args.to.join(",");
    let etcd = EtcdStore::connect(&config).await.with_context(|| format!("connect to {to}"))?;
    etcd.restore(&image).await.with_context(|| format!("export to {to}"))?;
    println!("{} keys are in {to}; start a kube-apiserver with --etcd-servers={to}", image.kvs.len());
    Ok(())
}
