//! `pods/exec` and `pods/attach`. Source: kubernetes `pkg/registry/core/pod/rest/subresources.go`.

use corten_streaming::remote_command::Options;
use corten_streaming::upgrade::{is_websocket, websocket_protocols};

use http::Request;

use super::options::flag;
use super::{Connect, go, pod, translate, upgrade};
use crate::api::Body;
use crate::request::Answer;
use crate::status::Result;

/// The version whose half-closes SPDY has and older WebSocket protocols have not.
pub(super) const V5: &str = "v5.channel.k8s.io";

pub(super) async fn exec(connect: Connect<'_>, request: Request<Body>) -> Result<Answer> {
    connect.may_create().await?;
    let (query, info) = (&connect.call.query, &connect.call.info);
    let options = Options {
        stdin: flag(query, "stdin"),
        stdout: flag(query, "stdout"),
        stderr: flag(query, "stderr"),
        tty: flag(query, "tty"),
    };
    let pod = connect.pod().await?;
    let container = pod::container(&pod, query.get("container").unwrap_or_default())?;
    let endpoint = connect.assigned(&pod).await?;
    let flags = [
        ("input", options.stdin),
        ("output", options.stdout),
        ("error", options.stderr),
        ("tty", options.tty),
    ];
    let mut parameters: Vec<(&str, String)> =
        flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| (name, "1".to_owned())).collect();
    if info.subresource == "exec" {
        parameters.extend(query.all("command").map(|word| ("command", word.to_owned())));
    }
    let parameters = go::encode(parameters);
    let question = if parameters.is_empty() { "" } else { "?" };
    let path =
        format!("/{}/{}/{}/{container}{question}{parameters}", info.subresource, pod.namespace(), pod.name());
    let location = connect.location(&endpoint, path);
    let headers = &connect.call.headers;
    let is_v5 = is_websocket(headers) && websocket_protocols(headers).iter().any(|protocol| protocol == V5);
    if is_v5 && !endpoint.takes_websockets {
        return Ok(translate::translate(connect.call, request, location, options));
    }
    upgrade::pass_through(connect.call, request, &location, true).await
}
