//! The audit log: who did what, one JSON line an event. Source: apiserver `pkg/audit`, `pkg/apis/audit/v1`.
//!
//! [`policy`] says how much of a request is recorded, [`event`] makes its line, [`log`] writes it and begins new files.

mod event;
mod log;
mod policy;

use anyhow::{Context, Result};
use http::StatusCode;

use crate::hooks::{self, Level, Stage};
use crate::options::run::Audit as Options;
use crate::request::Call;
use log::Log;
use policy::Policy;

/// Records as a policy says, into a file.
pub struct Audit {
    policy: Policy,
    log: Log,
}

impl Audit {
    /// # Errors
    /// The policy cannot be read or is none; the file cannot be opened.
    pub fn open(options: &Options) -> Result<Self> {
        let policy = match &options.policy {
            None => Policy::metadata(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("read --audit-policy-file {}", file.display()))?;
                Policy::parse(&text).with_context(|| format!("--audit-policy-file {}", file.display()))?
            }
        };
        Ok(Self { policy, log: Log::open(options)? })
    }
}

impl hooks::Audit for Audit {
    fn level(&self, call: &Call) -> Level {
        self.policy.decide(&policy::Attributes::of(call)).0
    }

    fn record(&self, stage: Stage, call: &Call, code: Option<StatusCode>) {
        let (level, omitted) = self.policy.decide(&policy::Attributes::of(call));
        if level == Level::None || omitted.contains(&event::name(stage)) {
            return;
        }
        self.log.write(&event::line(level, stage, call, code));
    }
}
