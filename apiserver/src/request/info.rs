//! What a path and a method ask for. Source: apiserver `pkg/endpoints/request/requestinfo.go`.

use http::Method;

/// The parts of a request, before anybody asks whether such a thing is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    pub is_resource: bool,
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; of a path that is no
    /// resource's the method in lower case.
    pub verb: &'static str,
    /// `api` or `apis`.
    pub api: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Everything from the resource on.
    pub parts: Vec<String>,
}

impl Info {
    /// `watch`: the query has `watch=true`; `name` of it: `metadata.name=` in the field selector of a list.
    pub fn of(method: &Method, path: &str, watch: bool, selected_name: Option<&str>) -> Self {
        let mut info = Self { path: path.to_owned(), verb: lower(method), ..Self::default() };
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let rest = match *parts {
            ["api", version, ref rest @ ..] => {
                version.clone_into(&mut info.version);
                rest
            }
            ["apis", group, version, ref rest @ ..] => {
                group.clone_into(&mut info.group);
                version.clone_into(&mut info.version);
                rest
            }
            _ => return info,
        };
        parts[0].clone_into(&mut info.api);
        if rest.is_empty() {
            return info;
        }
        info.is_resource = true;
        // The old form of a watch: `/api/v1/watch/pods`.
        let (rest, watch) = match *rest {
            ["watch", ref more @ ..] if info.verb == "get" && !more.is_empty() => (more, true),
            _ => (rest, watch),
        };
        let old_watch = watch && parts.get(if info.group.is_empty() { 2 } else { 3 }) == Some(&"watch");
        info.verb = match info.verb {
            "post" => "create",
            "get" | "head" => "get",
            "put" => "update",
            other => other,
        };
        info.take_resource(rest);
        if old_watch {
            info.verb = "watch";
        }
        if info.name.is_empty() {
            match info.verb {
                "get" => {
                    info.verb = if watch { "watch" } else { "list" };
                    selected_name.unwrap_or_default().clone_into(&mut info.name);
                }
                "delete" => info.verb = "deletecollection",
                _ => {}
            }
        }
        info
    }

    fn take_resource(&mut self, rest: &[&str]) {
        // A namespace's own subresources: what comes behind its name is no resource within it.
        const OF_A_NAMESPACE: [&str; 2] = ["status", "finalize"];
        let rest = match *rest {
            ["namespaces", namespace, resource, ref more @ ..]
                if !OF_A_NAMESPACE.contains(&resource) || !more.is_empty() =>
            {
                namespace.clone_into(&mut self.namespace);
                &rest[2..]
            }
            ["namespaces", namespace, ..] => {
                namespace.clone_into(&mut self.namespace);
                rest
            }
            _ => rest,
        };
        self.parts = rest.iter().map(|&part| part.to_owned()).collect();
        let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
        (self.resource, self.name, self.subresource) = (part(0), part(1), part(2));
    }
}

fn lower(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        Method::CONNECT => "connect",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_as_upstream_does() {
        #[rustfmt::skip]
        let table = [
            ("GET", "/api/v1/pods", "list", "", "", "pods", "", ""),
            ("GET", "/api/v1/namespaces/a/pods", "list", "", "a", "pods", "", ""),
            ("GET", "/api/v1/namespaces/a/pods/b", "get", "", "a", "pods", "b", ""),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "get", "", "a", "pods", "b", "log"),
            ("POST", "/api/v1/namespaces/a/pods/b/exec", "create", "", "a", "pods", "b", "exec"),
            ("GET", "/api/v1/namespaces", "list", "", "", "namespaces", "", ""),
            ("GET", "/api/v1/namespaces/a", "get", "", "a", "namespaces", "a", ""),
            ("PUT", "/api/v1/namespaces/a/finalize", "update", "", "a", "namespaces", "a", "finalize"),
            ("PUT", "/api/v1/namespaces/a/status", "update", "", "a", "namespaces", "a", "status"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection", "apps", "a", "deployments", "", ""),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments/b", "delete", "apps", "a", "deployments", "b", ""),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/b/scale", "patch", "apps", "a", "deployments", "b", "scale"),
        ];
        for (method, path, verb, group, namespace, resource, name, subresource) in table {
            let info = Info::of(&method.parse().expect("a method"), path, false, None);
            assert!(info.is_resource, "{path}");
            let got =
                (info.verb, &*info.group, &*info.namespace, &*info.resource, &*info.name, &*info.subresource);
            assert_eq!(got, (verb, group, namespace, resource, name, subresource), "{method} {path}");
        }
        for path in
            ["/", "/healthz", "/api", "/apis", "/apis/apps", "/apis/apps/v1", "/api/v1", "/openapi/v3"]
        {
            assert!(!Info::of(&Method::GET, path, false, None).is_resource, "{path}");
        }
    }
}
