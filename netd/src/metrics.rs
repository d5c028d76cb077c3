//! Numbers in Prometheus' text format 0.0.4.
//!
//! Nothing is registered: whoever has numbers writes them when they are asked for, so none is ever stale.

use std::fmt::{Display, Write as _};

/// The text of one answer.
#[derive(Debug, Default)]
pub struct Metrics {
    text: String,
}

/// Labels and value of one line.
pub type Sample<'a> = (&'a [(&'a str, &'a str)], f64);

impl Metrics {
    /// A value that goes up and down. `name` and label names are constants of ours, `help` is one line.
    pub fn gauge(&mut self, name: &str, help: &str, samples: &[Sample<'_>]) {
        self.family(name, "gauge", help, samples);
    }

    /// A value that only grows, by convention named `..._total`.
    pub fn counter(&mut self, name: &str, help: &str, samples: &[Sample<'_>]) {
        self.family(name, "counter", help, samples);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str, samples: &[Sample<'_>]) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}=\"{}\"", Escaped(value))).collect();
            let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.text, "{name}{braces} {value}");
        }
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut metrics = Metrics::default();
        metrics.gauge("corten_netd_ready", "Pods can talk.", &[(&[], 1.0)]);
        metrics.counter(
            "corten_netd_packets_total",
            "Packets.",
            &[(&[("way", "fast"), ("why", "a\"b\\c\n")], 12.0), (&[("way", "slow")], 0.5)],
        );
        assert_eq!(
            metrics.into_text(),
            "# HELP corten_netd_ready Pods can talk.\n# TYPE corten_netd_ready gauge\ncorten_netd_ready 1\n\
             # HELP corten_netd_packets_total Packets.\n# TYPE corten_netd_packets_total counter\n\
             corten_netd_packets_total{way=\"fast\",why=\"a\\\"b\\\\c\\n\"} 12\n\
             corten_netd_packets_total{way=\"slow\"} 0.5\n"
        );
    }
}
