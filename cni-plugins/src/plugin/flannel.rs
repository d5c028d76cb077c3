//! flannel: the node's subnet, which the flannel daemon tells in a file, becomes a configuration for another plugin
//! (bridge, unless the network says otherwise), and that plugin does the work.
//!
//! The rendered configuration is recorded before the other plugin runs: DEL, CHECK and GC use the record, since the
//! subnet may have changed meanwhile. The record stays until the other plugin's DEL has succeeded.

mod config;
mod record;
mod render;
mod subnet;

use serde_json::Value;

use self::config::Config;
use self::record::{Record, Records};
use self::subnet::Subnet;
use super::Plugin;
use crate::delegate::{Delegate, Role};
use crate::error::{Code, Error, all};
use crate::skel::{Args, Attachment, Network, ValidAttachment};
use crate::{Result, files};

pub static PLUGIN: Plugin = Plugin {
    name: "flannel",
    about: "gives bridge the subnet of this node (subnet.env)",
    add,
    del,
    check,
    gc,
    status,
};

static ROLE: Role = Role {
    title: "delegate",
    key: "delegate.type",
    built_in: "bridge",
    exec_variable: "CORTEN_CNI_EXEC_BRIDGE",
};

/// The plugin a rendered configuration is for.
fn delegate_of(rendered: &Value) -> Result<Delegate> {
    Delegate::new(&ROLE, rendered.get("type").and_then(Value::as_str).unwrap_or_default())
}

fn add(network: &Network, attachment: &Attachment) -> Result<Value> {
    let config = Config::load(network)?;
    let subnet = Subnet::read(&config.subnet_file).map_err(|e| e.into_error(Code::TryAgainLater))?;
    let rendered = render::delegate(network, &config, Some(&subnet));
    let delegate = delegate_of(&rendered)?;
    let records = Records::create(&config.data_dir)?;
    let existed = records.write(attachment, &rendered)?;
    let rendered = render::network(network, rendered);
    delegate.add(&rendered, attachment).map_err(|error| {
        // An attachment that exists already is refused; its record is that of the first ADD.
        if existed { error } else { undo(&delegate, &rendered, attachment, &records, error) }
    })
}

/// Ours undoes its own ADD and says when it could not; a foreign one has to be told (CNI specification, section
/// "Delegated Plugins"). The record stays for the runtime's DEL unless all is undone.
fn undo(
    delegate: &Delegate,
    rendered: &Network,
    attachment: &Attachment,
    records: &Records,
    error: Error,
) -> Error {
    let undone = match delegate.ours() {
        Some(_) if error.left_behind => return error,
        Some(_) => Ok(()),
        None => delegate.del(rendered, attachment),
    };
    let undone = undone.and_then(|()| records.remove(attachment));
    error.and(undone.err())
}

/// No record: ADD never came that far, or DEL is done.
fn del(network: &Network, attachment: &Attachment) -> Result<()> {
    let records = Records::open(&config::data_dir(network));
    let rendered = match records.read(attachment)? {
        Record::None => return Ok(()),
        Record::Rendered(rendered) => rendered,
        // Half a file after a power cut. What DEL needs of it stands in our own configuration.
        Record::Unreadable => render::delegate(network, &Config::lenient(network), None),
    };
    let delegate = delegate_of(&rendered)?;
    let rendered = render::network(network, render::with_prev_result(rendered, network));
    // In upstream the record goes even when this fails, and the retry finds nothing to do.
    delegate.del(&rendered, attachment)?;
    records.remove(attachment)
}

fn check(network: &Network, attachment: &Attachment) -> Result<()> {
    let config = Config::load(network)?;
    let Record::Rendered(recorded) = Records::open(&config.data_dir).read(attachment)? else {
        let text = format!("no record of interface {:?} of this container", attachment.ifname);
        let details = format!("ADD writes it to {}", config.data_dir.display());
        return Err(Error::new(Code::UnknownContainer, text).details(details));
    };
    let subnet = Subnet::read(&config.subnet_file).map_err(|e| e.into_error(Code::TryAgainLater))?;
    render::refuse_difference(&recorded, &render::delegate(network, &config, Some(&subnet)))
        .map_err(|e| e.details(format!("{} has changed since ADD", config.subnet_file.display())))?;
    let delegate = delegate_of(&recorded)?;
    let recorded = render::network(network, render::with_prev_result(recorded, network));
    delegate.check(&recorded, attachment)
}

/// DEL for every record that belongs to no valid attachment, then the other plugin's own GC.
fn gc(network: &Network, valid: &[ValidAttachment]) -> Result<()> {
    let config = Config::load(network)?;
    let records = Records::open(&config.data_dir);
    let stale = records.stale(&network.name, valid)?;
    let mut outcomes: Vec<Result<()>> = stale
        .into_iter()
        .map(|stale| {
            // Without an interface's name (upstream's records) there is only the other plugin's GC.
            if let Some(ifname) = stale.ifname {
                let attachment = Attachment {
                    container_id: stale.container_id,
                    ifname,
                    netns: String::new(),
                    args: Args::default(),
                    netns_doomed: false,
                };
                let delegate = delegate_of(&stale.rendered)?;
                delegate.del(&render::network(network, stale.rendered), &attachment)?;
            }
            files::remove(&stale.file)
        })
        .collect();
    let subnet = Subnet::read(&config.subnet_file).ok();
    let rendered = render::delegate(network, &config, subnet.as_ref());
    let delegate = delegate_of(&rendered)?;
    outcomes.push(delegate.gc(&render::network(network, render::with_valid(rendered, network)), valid));
    all(outcomes)
}

fn status(network: &Network) -> Result<()> {
    let config = Config::load(network)?;
    let subnet = Subnet::read(&config.subnet_file).map_err(|e| e.into_error(Code::NotAvailable))?;
    Records::create(&config.data_dir)
        .map_err(|e| Error::new(Code::NotAvailable, format!("no record can be kept: {e}")))?;
    let rendered = render::delegate(network, &config, Some(&subnet));
    delegate_of(&rendered)?.status(&render::network(network, rendered))
}
