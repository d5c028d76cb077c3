//! `pods/proxy`, `services/proxy`, `nodes/proxy`: HTTP to what they are. Source: kubernetes
//! `pkg/registry/core/{pod,service,node}`, apimachinery `pkg/util/proxy`.
//!
//! Links within HTML are not rewritten; a Location header is.

use std::net::IpAddr;

use corten_streaming::upgrade::is_upgrade;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use serde_json::Value;

use super::dial::Location;
use super::{Connect, upgrade};
use crate::api::Body;
use crate::object::Object;
use crate::request::{Answer, Call};
use crate::status::{Result, Status};

/// Of one connection, not of what it carries. Source: RFC 9110 section 7.6.1.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
const CORS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

/// `name`, `name:port` or `scheme:name:port`.
struct Target<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Target<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match *parts {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        (!name.is_empty() && matches!(scheme, "" | "http" | "https")).then_some(Self { scheme, name, port })
    }
}

pub(super) async fn proxy(connect: Connect<'_>, request: Request<Body>) -> Result<Answer> {
    let path = onward_path(request.uri()).to_owned();
    let mut location = connect.target().await?;
    if path.is_empty()
        && !is_upgrade(&connect.call.headers)
        && matches!(connect.call.method, Method::GET | Method::HEAD)
    {
        return Ok(Answer::Raw(to_slash(request.uri())?));
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    location.path = format!("{}{query}", if path.is_empty() { "/" } else { &*path });
    if is_upgrade(&connect.call.headers) {
        return upgrade::pass_through(connect.call, request, &location, false).await;
    }
    forward(connect.call, request, &location).await
}

/// What stands behind `proxy`, as it was written.
fn onward_path(uri: &Uri) -> &str {
    let path = uri.path();
    // /api/v1/nodes/N/proxy, /api/v1/namespaces/NS/pods/N/proxy.
    let before = if path.starts_with("/api/v1/namespaces/") { 7 } else { 5 };
    path.match_indices('/').nth(before).map_or("", |(at, _)| &path[at..])
}

/// Source: `proxyRedirectsforRootPath`.
fn to_slash(uri: &Uri) -> Result<Response<Body>> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(&format!("{}/{query}", uri.path())).map_err(Status::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

async fn forward(call: &Call, request: Request<Body>, location: &Location) -> Result<Answer> {
    let (parts, body) = request.into_parts();
    let mut onward = Request::new(body);
    *onward.method_mut() = call.method.clone();
    *onward.uri_mut() = location.path.parse().map_err(Status::internal)?;
    let length = call.headers.get(header::CONTENT_LENGTH).cloned();
    *onward.headers_mut() = without_hops(upgrade::forwarded_headers(call, location));
    if let Some(length) = length {
        onward.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    let prefix = parts.uri.path().strip_suffix(onward_path(&parts.uri)).unwrap_or_default().to_owned();
    let host = call.header("host").to_owned();
    for (name, value) in
        [("x-forwarded-uri", parts.uri.path()), ("x-forwarded-host", &host), ("x-forwarded-proto", "https")]
    {
        if let Ok(value) = HeaderValue::from_str(value) {
            onward.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    let response = location.send(onward).await.map_err(|error| {
        let message = format!("error trying to reach service: {error}");
        Status::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    })?;
    let (mut head, body) = response.into_parts();
    head.headers = without_hops(head.headers);
    for name in CORS {
        head.headers.remove(name);
    }
    if let Some(to) = head.headers.get(header::LOCATION).and_then(|to| to.to_str().ok())
        && let Some(value) = rewritten(to, &prefix, &host, &location.authority())
    {
        head.headers.insert(header::LOCATION, value);
    }
    head.extensions.clear();
    Ok(Answer::Raw(Response::from_parts(head, body.map_err(Into::into).boxed_unsync())))
}

/// A redirect within the same host stays within the proxy; `None`: it goes elsewhere, or is relative.
fn rewritten(to: &str, prefix: &str, host: &str, backend: &str) -> Option<HeaderValue> {
    let uri: Uri = to.parse().ok()?;
    let elsewhere =
        uri.authority().is_some_and(|authority| authority.as_str() != backend && authority.as_str() != host);
    if elsewhere || !uri.path().starts_with('/') {
        return None;
    }
    let path = if uri.path().starts_with(prefix) {
        uri.path().to_owned()
    } else {
        format!("{prefix}{}", uri.path())
    };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    HeaderValue::from_str(&format!("https://{host}{path}{query}")).ok()
}

fn without_hops(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in HOP_BY_HOP.into_iter().chain(named.iter().map(String::as_str)) {
        headers.remove(name);
    }
    headers
}

impl Connect<'_> {
    async fn target(&self) -> Result<Location> {
        let (id, plural) = (&*self.call.info.name, &*self.served.resource.plural);
        let what = plural.trim_end_matches('s');
        let target = Target::parse(id)
            .ok_or_else(|| Status::bad_request(format!("invalid {what} request \"{id}\"")))?;
        match plural {
            "pods" => self.pod_target(&target).await,
            "services" => self.service_target(&target, id).await,
            _ => self.node_target(&target).await,
        }
    }

    fn plain(&self, scheme: &str, host: String, port: u16) -> Location {
        let tls = (scheme == "https").then(|| self.api.kubelets.anonymous.clone());
        Location { tls, host, port, path: String::new(), timeout: self.api.kubelets.timeout.max(DIAL) }
    }

    async fn pod_target(&self, target: &Target<'_>) -> Result<Location> {
        let pod = self.read("pods", &self.call.info.namespace, target.name).await?;
        let containers = pod.get(&["spec", "containers"]).and_then(Value::as_array);
        let first = || containers?.iter().find_map(|one| one["ports"][0]["containerPort"].as_u64());
        let default = if target.scheme == "https" { 443 } else { 80 };
        let port = match target.port {
            "" => first().and_then(|port| u16::try_from(port).ok()).unwrap_or(default),
            port => number(port)?,
        };
        let ip = pod_ip(&pod).to_owned();
        allowed(&ip)?;
        Ok(self.plain(target.scheme, ip, port))
    }

    async fn node_target(&self, target: &Target<'_>) -> Result<Location> {
        let node = self.read("nodes", "", target.name).await?;
        let endpoint = self.api.kubelets.endpoint(&node)?;
        let addresses = tokio::net::lookup_host((&*endpoint.host, endpoint.port)).await;
        for address in addresses.map_err(|error| Status::bad_request(error.to_string()))? {
            allowed(&address.ip().to_string())?;
        }
        if target.port.is_empty() || target.port == endpoint.port.to_string() {
            return Ok(self.location(&endpoint, String::new()));
        }
        Ok(self.plain(target.scheme, endpoint.host, number(target.port)?))
    }

    /// Any address that is ready and really a pod's.
    async fn service_target(&self, target: &Target<'_>, id: &str) -> Result<Location> {
        let unavailable =
            |message: String| Status::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        let namespace = &self.call.info.namespace;
        let mut port_name = target.port.to_owned();
        if let Ok(number) = target.port.parse::<u64>() {
            let service = self.read("services", namespace, target.name).await?;
            let ports = service.get(&["spec", "ports"]).and_then(Value::as_array);
            let found = ports.into_iter().flatten().find(|port| port["port"] == number);
            let found = found.ok_or_else(|| {
                unavailable(format!("no service port {number} found for service \"{}\"", target.name))
            })?;
            found["name"].as_str().unwrap_or_default().clone_into(&mut port_name);
        }
        let endpoints = self.read("endpoints", namespace, target.name).await?;
        let subsets =
            endpoints.get(&["subsets"]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if subsets.is_empty() {
            return Err(unavailable(format!("no endpoints available for service \"{}\"", target.name)));
        }
        for subset in subsets {
            let list = |key: &str| subset[key].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_it = |port: &&Value| port["name"].as_str().unwrap_or_default() == port_name;
            let Some(port) = list("ports").iter().find(is_it).and_then(|port| port["port"].as_u64()) else {
                continue;
            };
            let port = u16::try_from(port).map_err(Status::internal)?;
            for address in list("addresses") {
                if let Some(ip) = self.pods_address(address).await {
                    return Ok(self.plain(target.scheme, ip, port));
                }
            }
        }
        Err(unavailable(format!("no endpoints available for service \"{id}\"")))
    }

    /// The IP of an endpoint, when the pod that it names has it: nobody is reached by made-up endpoints.
    async fn pods_address(&self, address: &Value) -> Option<String> {
        let reference = &address["targetRef"];
        let (ip, name) = (address["ip"].as_str()?, reference["name"].as_str()?);
        let namespace = reference["namespace"].as_str()?;
        let pod = self.read("pods", namespace, name).await.ok()?;
        let all = pod.get(&["status", "podIPs"]).and_then(Value::as_array);
        let has = pod_ip(&pod) == ip || all.into_iter().flatten().any(|one| one["ip"] == ip);
        (has && allowed(ip).is_ok()).then(|| ip.to_owned())
    }
}

const DIAL: std::time::Duration = std::time::Duration::from_secs(30);

fn pod_ip(pod: &Object) -> &str {
    match pod.text(&["status", "podIP"]) {
        "" => pod.get(&["status", "podIPs"]).and_then(|all| all[0]["ip"].as_str()).unwrap_or_default(),
        ip => ip,
    }
}

fn number(port: &str) -> Result<u16> {
    port.parse().map_err(|_| {
        let message = format!("error trying to reach service: lookup tcp/{port}: unknown port");
        Status::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    })
}

/// Loopback and link-local addresses are the server's own, which a pod's status must not lead to. Source: kubernetes
/// `pkg/proxy/util` IsProxyableIP (CVE-2020-8559's neighbourhood), Go's `IsGlobalUnicast`.
fn allowed(ip: &str) -> Result<()> {
    let is_allowed = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_link_local()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local())
        }
    };
    match ip.parse() {
        Ok(ip) if is_allowed(ip) => Ok(()),
        _ => Err(Status::bad_request("address not allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_paths_are_taken_as_upstream_takes_them() {
        for (id, scheme, name, port) in [
            ("a", "", "a", ""),
            ("a:80", "", "a", "80"),
            ("https:a:web", "https", "a", "web"),
            ("http:a:", "http", "a", ""),
        ] {
            let target = Target::parse(id).expect("a target");
            assert_eq!((target.scheme, target.name, target.port), (scheme, name, port), "{id}");
        }
        for wrong in ["", ":80", "ftp:a:80", "a:b:c:d"] {
            assert!(Target::parse(wrong).is_none(), "{wrong}");
        }
        #[rustfmt::skip]
        let table = [
            ("/api/v1/namespaces/d/pods/a/proxy", ""),
            ("/api/v1/namespaces/d/pods/a/proxy/", "/"),
            ("/api/v1/namespaces/d/pods/a/proxy/x%20y/z/", "/x%20y/z/"),
            ("/api/v1/nodes/a/proxy/metrics", "/metrics"),
            ("/api/v1/nodes/a/proxy", ""),
        ];
        for (path, onward) in table {
            assert_eq!(onward_path(&path.parse().expect("a path")), onward, "{path}");
        }
    }

    #[test]
    fn the_servers_own_addresses_are_not_reached() {
        for ip in [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "x",
            "",
        ] {
            assert!(allowed(ip).is_err(), "{ip}");
        }
        for ip in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1"] {
            assert!(allowed(ip).is_ok(), "{ip}");
        }
    }

    #[test]
    fn a_redirect_stays_within_the_proxy() {
        let prefix = "/api/v1/nodes/a/proxy";
        let to = |to: &str| {
            rewritten(to, prefix, "api:6443", "10.0.0.1:80")
                .map(|value| value.to_str().expect("text").to_owned())
        };
        assert_eq!(to("/x?y=1").as_deref(), Some("https://api:6443/api/v1/nodes/a/proxy/x?y=1"));
        assert_eq!(to("http://10.0.0.1:80/x").as_deref(), Some("https://api:6443/api/v1/nodes/a/proxy/x"));
        assert_eq!(to("http://elsewhere/x"), None);
    }
}
