//! Flags of kube-apiserver 1.36 that this server does not have, and what to do instead.

const WEBHOOKS: &str = "webhooks are not served; use certificates, ServiceAccount tokens and RBAC";
const OIDC: &str = "OpenID Connect is not served; use certificates or ServiceAccount tokens";
const GATES: &str = "what is served is fixed: what kube-apiserver 1.36 has on by default";
const LOGGING: &str = "use --log-level and --logging-format";
const ONE_LOG: &str = "the audit log is written line by line; use --audit-log-path, --audit-log-maxsize, --audit-log-maxbackup and --audit-log-maxage";
const AGGREGATION: &str = "aggregated API servers are not served; leave it out";
const PEERS: &str = "servers do not talk to each other; leave it out";
const CACHE: &str = "there is no watch cache to be tuned; leave it out";
const ENCRYPTION: &str = "objects are not encrypted at rest; put --data-dir on an encrypted file system";
const ETCD_CHECKS: &str = "the store reports by itself when it fails; leave it out";
const LEADERSHIP: &str = "coordinated leader election is alpha; use Leases";
const PROFILING: &str = "there is no profiler inside; use perf on the process";
const TLS: &str =
    "TLS 1.3 and 1.2 are served with ciphers that are all safe; put a proxy before it for others";

#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    ("admission-control", "use --enable-admission-plugins"),
    ("admission-control-config-file", "plugins have no configuration; use --enable-admission-plugins"),
    ("aggregator-reject-forwarding-redirect", AGGREGATION),
    ("allow-metric-labels", "labels of metrics are fixed; drop them when scraping"),
    ("allow-metric-labels-manifest", "labels of metrics are fixed; drop them when scraping"),
    ("audit-log-batch-buffer-size", ONE_LOG),
    ("audit-log-batch-max-size", ONE_LOG),
    ("audit-log-batch-max-wait", ONE_LOG),
    ("audit-log-batch-throttle-burst", ONE_LOG),
    ("audit-log-batch-throttle-enable", ONE_LOG),
    ("audit-log-batch-throttle-qps", ONE_LOG),
    ("audit-log-compress", "compress rotated files by a timer"),
    ("audit-log-truncate-enabled", ONE_LOG),
    ("audit-log-truncate-max-batch-size", ONE_LOG),
    ("audit-log-truncate-max-event-size", ONE_LOG),
    ("audit-webhook-batch-buffer-size", ONE_LOG),
    ("audit-webhook-batch-max-size", ONE_LOG),
    ("audit-webhook-batch-max-wait", ONE_LOG),
    ("audit-webhook-batch-throttle-burst", ONE_LOG),
    ("audit-webhook-batch-throttle-enable", ONE_LOG),
    ("audit-webhook-batch-throttle-qps", ONE_LOG),
    ("audit-webhook-config-file", ONE_LOG),
    ("audit-webhook-initial-backoff", ONE_LOG),
    ("audit-webhook-mode", ONE_LOG),
    ("audit-webhook-truncate-enabled", ONE_LOG),
    ("audit-webhook-truncate-max-batch-size", ONE_LOG),
    ("audit-webhook-truncate-max-event-size", ONE_LOG),
    ("audit-webhook-version", ONE_LOG),
    ("authentication-config", OIDC),
    ("authentication-token-webhook-cache-ttl", WEBHOOKS),
    ("authentication-token-webhook-config-file", WEBHOOKS),
    ("authentication-token-webhook-version", WEBHOOKS),
    ("authorization-config", "use --authorization-mode"),
    ("authorization-policy-file", "ABAC is not served; use RBAC"),
    ("authorization-webhook-cache-authorized-ttl", WEBHOOKS),
    ("authorization-webhook-cache-unauthorized-ttl", WEBHOOKS),
    ("authorization-webhook-config-file", WEBHOOKS),
    ("authorization-webhook-version", WEBHOOKS),
    ("contention-profiling", PROFILING),
    ("coordinated-leadership-lease-duration", LEADERSHIP),
    ("coordinated-leadership-renew-deadline", LEADERSHIP),
    ("coordinated-leadership-retry-period", LEADERSHIP),
    ("cors-allowed-origins", "browsers of other origins are not served; put a proxy before it"),
    ("debug-socket-path", PROFILING),
    ("delete-collection-workers", "a collection is deleted as fast as the store goes; leave it out"),
    ("disable-http2-serving", "HTTP/2 and HTTP/1.1 are both served; clients choose"),
    ("disabled-metrics", "metrics are fixed; drop them when scraping"),
    ("egress-selector-config-file", "kubelets are reached directly; use routes"),
    ("emulated-version", GATES),
    ("emulation-forward-compatible", GATES),
    ("enable-aggregator-routing", AGGREGATION),
    ("enable-garbage-collector", "use --controllers=*,-garbage-collector-controller"),
    ("enable-logs-handler", "logs go to standard error; leave it out"),
    ("enable-priority-and-fairness", "use --max-requests-inflight and --max-mutating-requests-inflight"),
    ("encryption-provider-config", ENCRYPTION),
    ("encryption-provider-config-automatic-reload", ENCRYPTION),
    ("etcd-count-metric-poll-period", ETCD_CHECKS),
    ("etcd-db-metric-poll-interval", ETCD_CHECKS),
    ("etcd-healthcheck-timeout", ETCD_CHECKS),
    ("etcd-readycheck-timeout", ETCD_CHECKS),
    ("etcd-servers-overrides", "all resources are in one store; use --etcd-servers"),
    ("external-hostname", "use --advertise-address, and --tls-san for more names in the certificate"),
    ("feature-gates", GATES),
    ("goaway-chance", "put a proxy before several servers to spread clients"),
    ("http2-max-streams-per-connection", "the number of streams is fixed; leave it out"),
    ("lease-reuse-duration-seconds", "leases are shared for a minute; leave it out"),
    ("livez-grace-period", "it serves within a second or says why not; leave it out"),
    ("log-flush-frequency", LOGGING),
    ("log-json-info-buffer-size", LOGGING),
    ("log-json-split-stream", LOGGING),
    ("log-text-info-buffer-size", LOGGING),
    ("log-text-split-stream", LOGGING),
    ("max-connection-bytes-per-sec", "connections are not slowed down; shape traffic with tc"),
    ("min-compatibility-version", GATES),
    ("oidc-ca-file", OIDC),
    ("oidc-client-id", OIDC),
    ("oidc-groups-claim", OIDC),
    ("oidc-groups-prefix", OIDC),
    ("oidc-issuer-url", OIDC),
    ("oidc-required-claim", OIDC),
    ("oidc-signing-algs", OIDC),
    ("oidc-username-claim", OIDC),
    ("oidc-username-prefix", OIDC),
    ("peer-advertise-ip", PEERS),
    ("peer-advertise-port", PEERS),
    ("peer-ca-file", PEERS),
    ("permit-address-sharing", "one server listens on an address; give each its own"),
    ("permit-port-sharing", "one server listens on a port; give each its own"),
    ("proxy-client-cert-file", AGGREGATION),
    ("proxy-client-key-file", AGGREGATION),
    ("runtime-config", GATES),
    ("runtime-config-emulation-forward-compatible", GATES),
    ("service-account-lookup", "tokens of deleted ServiceAccounts are never believed; leave it out"),
    ("service-account-signing-endpoint", "use --service-account-signing-key-file"),
    ("show-hidden-metrics-for-version", "metrics are fixed; leave it out"),
    ("shutdown-send-retry-after", "connections are closed in order: clients come back by themselves; leave it out"),
    ("storage-initialization-timeout", "the embedded store opens at once, etcd is waited for; leave it out"),
    ("strict-transport-security-directives", "put a proxy before it that adds the header"),
    ("tls-cipher-suites", TLS),
    ("tls-curve-preferences", TLS),
    ("tls-min-version", TLS),
    ("tls-sni-cert-key", "one certificate is served; add names to it with --tls-san"),
    ("token-auth-file", "static tokens are not served; use `corten-apiserver kubeconfig` or ServiceAccount tokens"),
    ("tracing-config-file", "use --log-level debug"),
    ("vmodule", LOGGING),
    ("watch-cache", CACHE),
    ("watch-cache-sizes", CACHE),
];

/// What to do instead of a flag that upstream has and we have not.
pub fn remedy(flag: &str) -> Option<&'static str> {
    let at = REFUSED.binary_search_by(|(name, _)| (*name).cmp(flag)).ok()?;
    Some(REFUSED[at].1)
}

#[cfg(test)]
pub fn all() -> impl Iterator<Item = &'static str> {
    REFUSED.iter().map(|(name, _)| *name)
}
