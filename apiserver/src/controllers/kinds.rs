//! What a server serves, by its discovery.

use kube::Client;
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope, verbs};

/// Resources whose objects can be listed, watched and deleted, one version each.
///
/// # Errors
/// The server does not tell.
pub async fn deletable(client: &Client) -> kube::Result<Vec<(ApiResource, ApiCapabilities)>> {
    let known = Discovery::new(client.clone()).run_aggregated().await?;
    let all = known.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
    let of_use = |(resource, can): &(ApiResource, ApiCapabilities)| {
        can.supports_operation(verbs::DELETE)
            && can.supports_operation(verbs::LIST)
            && can.supports_operation(verbs::WATCH)
            // Told twice, owned by nobody, gone after an hour. Source: kubernetes `cmd/kube-controller-manager`.
            && resource.plural != "events"
    };
    Ok(all.filter(of_use).collect())
}

/// Resources with objects in namespaces that can be listed and deleted.
///
/// # Errors
/// As [`deletable`].
pub async fn in_namespaces(client: &Client) -> kube::Result<Vec<(ApiResource, ApiCapabilities)>> {
    let known = Discovery::new(client.clone()).run_aggregated().await?;
    let all = known.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
    let of_use = |(_, can): &(ApiResource, ApiCapabilities)| {
        can.scope == Scope::Namespaced
            && can.supports_operation(verbs::DELETE)
            && can.supports_operation(verbs::LIST)
    };
    Ok(all.filter(of_use).collect())
}
