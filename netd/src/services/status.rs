//! What there is to tell about Services.

use corten_ebpf_layout::service::Counter;
use serde::Serialize;

use crate::metrics::Metrics;

/// Refusals shown one by one; of more only the number.
pub const SHOWN: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Programs of the node and its pods are served at their sockets, everybody else by nf_tables.
    SocketsAndPackets,
    /// nf_tables serves everybody.
    PacketsOnly { why: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    pub mode: Mode,
    /// Everything the last objects say is in force.
    pub in_force: bool,
    pub services: usize,
    pub frontends: usize,
    pub endpoints: usize,
    /// Of objects, or parts of them, that are not in force: up to 32, each with its reason.
    pub refused: Vec<String>,
    pub refused_total: usize,
    /// Why the objects may be old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_fault: Option<String>,
    /// What the last pass could not do; it is tried again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What of this node keeps some connection from working though everything is in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    pub done: Done,
    /// What the programs at the sockets have counted.
    pub sockets: Vec<(&'static str, u64)>,
}

/// Since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Done {
    pub passes: u64,
    pub failures: u64,
    /// Elements of nf_tables deleted and added.
    pub elements: u64,
    /// How often the table was made, or made anew.
    pub tables: u64,
    /// UDP flows forgotten because their backend was gone.
    pub flows: u64,
    /// Connected UDP sockets ended for the same reason.
    pub ended: u64,
}

impl Status {
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            in_force: false,
            services: 0,
            frontends: 0,
            endpoints: 0,
            refused: Vec::new(),
            refused_total: 0,
            source_fault: None,
            errors: Vec::new(),
            warnings: Vec::new(),
            done: Done::default(),
            sockets: Vec::new(),
        }
    }

    pub(super) fn count_sockets(&mut self, counters: impl IntoIterator<Item = (Counter, u64)>) {
        self.sockets = counters.into_iter().map(|(counter, value)| (counter.name(), value)).collect();
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let by = match &self.mode {
            Mode::SocketsAndPackets => "at sockets and by nf_tables".to_owned(),
            Mode::PacketsOnly { why } => format!("by nf_tables alone ({why})"),
        };
        let Self { services, frontends, endpoints, .. } = self;
        let in_force = if self.in_force { "" } else { "; not all in force" };
        format!("services   {services} with {frontends} frontends and {endpoints} endpoints, {by}{in_force}")
    }

    /// What is not as wished.
    pub fn problems(&self) -> Vec<String> {
        let all = self.source_fault.iter().chain(&self.refused).chain(&self.errors).chain(&self.warnings);
        all.map(|problem| format!("Services: {problem}")).collect()
    }

    pub fn metrics(&self, metrics: &mut Metrics) {
        let flag = |value: bool| f64::from(u8::from(value));
        let sockets = matches!(self.mode, Mode::SocketsAndPackets);
        metrics.gauge(
            "corten_netd_services_in_force",
            "Whether everything the last objects say is in force.",
            &[(&[], flag(self.in_force))],
        );
        metrics.gauge(
            "corten_netd_services_at_sockets",
            "Whether Services are served at sockets of the node and its pods.",
            &[(&[], flag(sockets))],
        );
        metrics.gauge(
            "corten_netd_services",
            "Services, their frontends and endpoints, and what is refused of them.",
            &[
                (&[("of", "service")], number(self.services as u64)),
                (&[("of", "frontend")], number(self.frontends as u64)),
                (&[("of", "endpoint")], number(self.endpoints as u64)),
                (&[("of", "refused")], number(self.refused_total as u64)),
            ],
        );
        let done = &self.done;
        metrics.counter(
            "corten_netd_services_done_total",
            "What keeping Services in force has done.",
            &[
                (&[("what", "pass")], number(done.passes)),
                (&[("what", "failed_pass")], number(done.failures)),
                (&[("what", "element")], number(done.elements)),
                (&[("what", "table")], number(done.tables)),
                (&[("what", "forgotten_flow")], number(done.flows)),
                (&[("what", "ended_socket")], number(done.ended)),
            ],
        );
        let labels: Vec<_> =
            self.sockets.iter().map(|(name, value)| ([("what", *name)], number(*value))).collect();
        let samples: Vec<_> = labels.iter().map(|(labels, value)| (&labels[..], *value)).collect();
        metrics.counter(
            "corten_netd_services_sockets_total",
            "What the programs at the sockets did.",
            &samples,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers, and 2^53 is far")]
fn number(value: u64) -> f64 {
    value as f64
}
