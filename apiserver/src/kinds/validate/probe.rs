//! Probes and life cycle hooks.

use super::{At, Causes, Check, Rule, names};

const PROBE: &[Rule] = &[
    Rule("initialDelaySeconds", Check::NonNegative),
    Rule("timeoutSeconds", Check::NonNegative),
    Rule("periodSeconds", Check::NonNegative),
    Rule("successThreshold", Check::NonNegative),
    Rule("failureThreshold", Check::NonNegative),
];

const OF_A_PROBE: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const OF_A_HOOK: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

/// A container's probes.
pub fn probes(container: &At<'_>, out: &mut Causes) {
    let liveness = container.field("livenessProbe");
    if liveness.is_set() {
        probe(&liveness, out);
        succeeds_once(&liveness, out);
    }
    let readiness = container.field("readinessProbe");
    if readiness.is_set() {
        probe(&readiness, out);
        let grace = readiness.field("terminationGracePeriodSeconds");
        if grace.is_set() {
            grace.invalid("must not be set for readinessProbes", out);
        }
    }
    let startup = container.field("startupProbe");
    if startup.is_set() {
        probe(&startup, out);
        succeeds_once(&startup, out);
    }
}

fn succeeds_once(probe: &At<'_>, out: &mut Causes) {
    let threshold = probe.field("successThreshold");
    if threshold.int() != 1 {
        threshold.invalid("must be 1", out);
    }
}

fn probe(at: &At<'_>, out: &mut Causes) {
    handler(at, &OF_A_PROBE, None, out);
    at.check(PROBE, out);
    let grace = at.field("terminationGracePeriodSeconds");
    if grace.is_set() && grace.int() <= 0 {
        grace.invalid("must be greater than 0", out);
    }
}

/// `grace`: how long the pod may take to end.
pub fn lifecycle(at: &At<'_>, grace: Option<i64>, out: &mut Causes) {
    for hook in ["postStart", "preStop"] {
        let hook = at.field(hook);
        if hook.is_set() {
            handler(&hook, &OF_A_HOOK, grace, out);
        }
    }
}

fn handler(at: &At<'_>, kinds: &[&'static str], grace: Option<i64>, out: &mut Causes) {
    let mut found = false;
    for kind in kinds {
        let action = at.field(kind);
        if !action.is_set() {
            continue;
        }
        if found {
            action.forbidden("may not specify more than 1 handler type", out);
            continue;
        }
        found = true;
        match *kind {
            "exec" => {
                if action.field("command").is_empty() {
                    action.field("command").required("", out);
                }
            }
            "httpGet" => http_get(&action, out),
            "sleep" => sleep(&action, grace, out),
            _ => action.field("port").port_or_name(out),
        }
    }
    if !found {
        at.required("must specify a handler type", out);
    }
}

fn http_get(at: &At<'_>, out: &mut Causes) {
    if at.field("path").is_empty() {
        at.field("path").required("", out);
    }
    at.field("port").port_or_name(out);
    at.field("scheme").one_of_if_set(&["HTTP", "HTTPS"], out);
    let headers = at.field("httpHeaders");
    for header in headers.items() {
        header.field("name").shown_at(headers.path()).names(names::http_header, out);
    }
}

fn sleep(at: &At<'_>, grace: Option<i64>, out: &mut Causes) {
    let seconds = at.field("seconds").int();
    if let Some(grace) = grace
        && !(0..=grace).contains(&seconds)
    {
        let detail =
            format_args!("must be non-negative and less than terminationGracePeriodSeconds ({grace})")
                .to_string();
        at.invalid_value(&seconds.into(), detail, out);
    }
}
