//! Volumes, what mounts them, and paths.

use std::collections::HashSet;

use serde_json::Value;

use super::pod::Pod;
use super::{At, Causes, Check, Rule, container, labels, names};
use crate::kinds::claims;
use crate::kinds::quantity::Quantity;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Upstream's names of the kinds of volumes, in its order, where it tells "more than one" and where the rest, and what
/// must hold for it.
const SOURCES: &[(&str, &str, Check)] = &[
    ("emptyDir", "emptyDir", Check::By(empty_dir)),
    ("hostPath", "hostPath", Check::By(host_path)),
    ("gitRepo", "gitRepo", Check::By(git_repo)),
    (
        "gcePersistentDisk",
        "persistentDisk",
        Check::In(&[Rule("pdName", Check::Required), Rule("partition", Check::By(partition))]),
    ),
    (
        "awsElasticBlockStore",
        "awsElasticBlockStore",
        Check::In(&[Rule("volumeID", Check::Required), Rule("partition", Check::By(partition))]),
    ),
    ("secret", "secret", Check::By(secret)),
    ("nfs", "nfs", Check::By(nfs)),
    ("iscsi", "iscsi", Check::By(iscsi)),
    (
        "glusterfs",
        "glusterfs",
        Check::In(&[Rule("endpoints", Check::Required), Rule("path", Check::By(required_descending))]),
    ),
    ("flocker", "flocker", Check::By(flocker)),
    ("persistentVolumeClaim", "persistentVolumeClaim", Check::In(&[Rule("claimName", Check::Required)])),
    ("rbd", "rbd", Check::In(&[Rule("monitors", Check::Required), Rule("image", Check::Required)])),
    ("cinder", "cinder", Check::In(&[Rule("volumeID", Check::Required)])),
    ("cephfs", "cephfs", Check::In(&[Rule("monitors", Check::Required)])),
    ("quobyte", "quobyte", Check::In(&[Rule("registry", Check::Required), Rule("volume", Check::Required)])),
    ("downwardAPI", "downwardAPI", Check::By(downward_api)),
    ("fc", "fc", Check::By(fc)),
    ("flexVolume", "flexVolume", Check::In(&[Rule("driver", Check::Required)])),
    ("configMap", "configMap", Check::By(config_map)),
    (
        "azureFile",
        "azureFile",
        Check::In(&[Rule("secretName", Check::Required), Rule("shareName", Check::Required)]),
    ),
    ("vsphereVolume", "vsphereVolume", Check::In(&[Rule("volumePath", Check::Required)])),
    ("photonPersistentDisk", "photonPersistentDisk", Check::In(&[Rule("pdID", Check::Required)])),
    ("portworxVolume", "portworxVolume", Check::In(&[Rule("volumeID", Check::Required)])),
    ("azureDisk", "azureDisk", Check::By(azure_disk)),
    ("storageos", "storageos", Check::In(&[Rule("volumeName", Check::RequiredText(names::dns_label))])),
    ("projected", "projected", Check::By(projected)),
    (
        "scaleIO",
        "scaleIO",
        Check::In(&[
            Rule("gateway", Check::Required),
            Rule("system", Check::Required),
            Rule("volumeName", Check::Required),
        ]),
    ),
    ("csi", "csi", Check::By(csi)),
    ("ephemeral", "ephemeral", Check::By(ephemeral)),
    ("image", "image", Check::By(image)),
];

/// The volumes of a pod; the names of the good ones. `pod_name`: of a pod, not of a template.
pub fn volumes<'v>(at: &At<'v>, pod_name: &str, out: &mut Causes) -> Vec<(&'v str, At<'v>)> {
    let mut good: Vec<(&str, At<'_>)> = Vec::new();
    let made: Vec<String> = at
        .items()
        .filter(|volume| !pod_name.is_empty() && volume.has("ephemeral"))
        .map(|volume| format!("{pod_name}-{}", volume.field("name").text()))
        .collect();
    for volume in at.items() {
        let before = out.len();
        let name = volume.field("name");
        source(&volume, pod_name, out);
        if name.is_empty() {
            name.required("", out);
        } else {
            name.names(names::dns_label, out);
        }
        if good.iter().any(|(other, _)| *other == name.text()) {
            name.duplicate(out);
        }
        if out.len() == before {
            good.push((name.text(), volume.clone()));
        }
        let claim = volume.down(&["persistentVolumeClaim", "claimName"]);
        if made.iter().any(|one| one == claim.text()) {
            claim.invalid("must not reference a PVC that gets created for an ephemeral volume", out);
        }
    }
    good
}

fn source(at: &At<'_>, pod_name: &str, out: &mut Causes) {
    let mut found = false;
    for (field, shown, check) in SOURCES {
        let source = at.field(field);
        if !source.is_set() {
            continue;
        }
        if found {
            source.forbidden("may not specify more than 1 volume type", out);
            continue;
        }
        found = true;
        let source = source.shown_at(at.path().field(shown));
        match check {
            Check::In(rules) => source.check(rules, out),
            Check::By(function) => function(&source, out),
            _ => {}
        }
        if *field == "image" && !pod_name.is_empty() && source.field("reference").is_empty() {
            source.field("reference").required("", out);
        }
        let name = at.field("name");
        if *field == "ephemeral" && !pod_name.is_empty() && !name.is_empty() {
            let claim = format!("{pod_name}-{}", name.text());
            for detail in names::dns_subdomain(&claim) {
                name.invalid(format_args!("PVC name \"{claim}\": {detail}"), out);
            }
        }
    }
    if !found {
        at.required("must specify a volume type", out);
    }
}

pub fn azure_disk(at: &At<'_>, out: &mut Causes) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    const RULES: &[Rule] = &[
        Rule("diskName", Check::Required),
        Rule("diskURI", Check::Required),
        Rule("cachingMode", Check::OneOfIfSet(&["None", "ReadOnly", "ReadWrite"])),
        Rule("kind", Check::OneOfIfSet(&["Dedicated", "Managed", "Shared"])),
    ];
    at.check(RULES, out);
    let (kind, uri) = (at.field("kind"), at.field("diskURI"));
    let (start, form) =
        if kind.text() == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if kind.is_set() && !uri.text().starts_with(start) {
        uri.unsupported(&[form], out);
    }
}

fn partition(at: &At<'_>, out: &mut Causes) {
    if at.is_set() && !(0..=255).contains(&at.int()) {
        at.invalid("must be between 1 and 255, inclusive", out);
    }
}

fn mode(at: &At<'_>, out: &mut Causes) {
    if at.is_set() && !(0..=0o777).contains(&at.int()) {
        at.invalid(MODE, out);
    }
}

fn empty_dir(at: &At<'_>, out: &mut Causes) {
    let limit = at.field("sizeLimit");
    if Quantity::of(limit.value()).is_some_and(Quantity::is_negative) {
        limit.forbidden("SizeLimit field must be a valid resource quantity", out);
    }
}

pub fn host_path(at: &At<'_>, out: &mut Causes) {
    const TYPES: &[&str] = &[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let path = at.field("path");
    if path.is_empty() {
        return path.required("", out);
    }
    no_backsteps(&path, out);
    at.field("type").one_of_if_set(TYPES, out);
}

fn git_repo(at: &At<'_>, out: &mut Causes) {
    at.check(&[Rule("repository", Check::Required)], out);
    descending(&at.field("directory"), out);
}

fn flocker(at: &At<'_>, out: &mut Causes) {
    let (name, id) = (at.field("datasetName"), at.field("datasetUUID"));
    if name.is_empty() && id.is_empty() {
        at.required("one of datasetName and datasetUUID is required", out);
    }
    if !name.is_empty() && !id.is_empty() {
        at.invalid_value(
            &"resource".into(),
            "datasetName and datasetUUID can not be specified simultaneously",
            out,
        );
    }
    if name.text().contains('/') {
        name.invalid("must not contain '/'", out);
    }
}

pub fn nfs(at: &At<'_>, out: &mut Causes) {
    at.check(&[Rule("server", Check::Required), Rule("path", Check::Required)], out);
    let path = at.field("path");
    if !path.text().starts_with('/') {
        path.invalid_value(&path.text().into(), "must be an absolute path", out);
    }
}

fn iscsi(at: &At<'_>, out: &mut Causes) {
    at.check(&[Rule("targetPortal", Check::Required), Rule("iqn", Check::Required)], out);
    let lun = at.field("lun");
    if !(0..=255).contains(&lun.int()) {
        lun.range(0, 255, out);
    }
    let secret = at.field("secretRef");
    if (at.field("chapAuthDiscovery").flag() || at.field("chapAuthSession").flag()) && !secret.is_set() {
        secret.required("", out);
    }
}

fn fc(at: &At<'_>, out: &mut Causes) {
    let (targets, wide, lun) = (at.field("targetWWNs"), at.field("wwids"), at.field("lun"));
    if targets.is_empty() && wide.is_empty() {
        targets.required("must specify either targetWWNs or wwids, but not both", out);
    }
    if !targets.is_empty() && !wide.is_empty() {
        targets.invalid("targetWWNs and wwids can not be specified simultaneously", out);
    }
    if !targets.is_empty() {
        if lun.is_set() {
            lun.range(0, 255, out);
        } else {
            lun.required("lun is required if targetWWNs is specified", out);
        }
    }
}

fn secret(at: &At<'_>, out: &mut Causes) {
    at.check(
        &[
            Rule("secretName", Check::Required),
            Rule("defaultMode", Check::By(mode)),
            Rule("items", Check::EachBy(key_to_path)),
        ],
        out,
    );
}

fn config_map(at: &At<'_>, out: &mut Causes) {
    at.check(
        &[
            Rule("name", Check::Required),
            Rule("defaultMode", Check::By(mode)),
            Rule("items", Check::EachBy(key_to_path)),
        ],
        out,
    );
}

fn key_to_path(at: &At<'_>, out: &mut Causes) {
    const RULES: &[Rule] = &[
        Rule("key", Check::Required),
        Rule("path", Check::Required),
        Rule("path", Check::By(local_path)),
        Rule("mode", Check::By(mode)),
    ];
    at.check(RULES, out);
}

const FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

fn downward_api(at: &At<'_>, out: &mut Causes) {
    mode(&at.field("defaultMode"), out);
    for file in at.field("items").items() {
        downward_file(&file.shown_at(at.path()), out);
    }
}

fn downward_file(at: &At<'_>, out: &mut Causes) {
    at.check(&[Rule("path", Check::Required), Rule("path", Check::By(local_path))], out);
    let (field, resource) = (at.field("fieldRef"), at.field("resourceFieldRef"));
    if field.is_set() {
        container::field_ref(&field, FIELDS, out);
        if resource.is_set() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            at.invalid_value(&"resource".into(), detail, out);
        }
    } else if resource.is_set() {
        container::resource_ref(&resource, true, out);
    } else {
        at.required("one of fieldRef and resourceFieldRef is required", out);
    }
    mode(&at.field("mode"), out);
}

fn projected(at: &At<'_>, out: &mut Causes) {
    mode(&at.field("defaultMode"), out);
    let mut paths = HashSet::new();
    let mut once = |path: &str, shown: &Value, out: &mut Causes| {
        if !path.is_empty() && !paths.insert(path.to_owned()) {
            at.invalid_value(shown, "conflicting duplicate paths", out);
        }
    };
    for source in at.field("sources").items() {
        let mut found = 0;
        for kind in ["secret", "configMap"] {
            let one = source.field(kind);
            if !one.is_set() {
                continue;
            }
            found += 1;
            one.check(&[Rule("name", Check::Required)], out);
            for item in one.field("items").items() {
                key_to_path(&item, out);
                once(item.field("path").text(), &one.field("name").text().into(), out);
            }
        }
        let downward = source.field("downwardAPI");
        if downward.is_set() {
            found += 1;
            for item in downward.field("items").items() {
                downward_file(&item.shown_at(downward.path()), out);
                once(item.field("path").text(), item.field("path").value(), out);
            }
        }
        let token = source.field("serviceAccountToken");
        if token.is_set() {
            found += 1;
            service_account_token(&token, at, out);
        }
        let bundle = source.field("clusterTrustBundle");
        if bundle.is_set() {
            found += 1;
            trust_bundle(&bundle, out);
            once(bundle.field("path").text(), bundle.field("path").value(), out);
        }
        if found > 1 {
            source.forbidden("may not specify more than 1 volume type per source", out);
        }
    }
}

fn service_account_token(at: &At<'_>, volume: &At<'_>, out: &mut Causes) {
    let seconds = at.field("expirationSeconds");
    if seconds.int() < 600 {
        seconds.invalid("may not specify a duration less than 10 minutes", out);
    }
    if seconds.int() > 1 << 32 {
        seconds.invalid("may not specify a duration larger than 2^32 seconds", out);
    }
    let path = at.field("path").shown_at(volume.path().field("path"));
    if path.is_empty() {
        path.required("", out);
    } else {
        local_path(&path, out);
    }
}

fn trust_bundle(at: &At<'_>, out: &mut Causes) {
    match (at.has("name"), at.has("signerName")) {
        (true, true) => at.invalid("only one of name and signerName may be used", out),
        (true, false) => at.check(&[Rule("name", Check::Required)], out),
        (false, true) => labels::selector(&at.field("labelSelector"), out),
        (false, false) => at.required("either name or signerName must be specified", out),
    }
    at.check(&[Rule("path", Check::Required), Rule("path", Check::By(local_path))], out);
}

fn csi(at: &At<'_>, out: &mut Causes) {
    csi_driver(&at.field("driver"), out);
    let secret = at.field("nodePublishSecretRef");
    if secret.is_set() {
        let name = secret.field("name");
        if name.is_empty() {
            name.required("", out);
        } else {
            name.shown_at(at.path().field("name")).names(names::dns_subdomain, out);
        }
    }
}

pub fn csi_driver(at: &At<'_>, out: &mut Causes) {
    if at.is_empty() {
        return at.required("", out);
    }
    if at.len() > 63 {
        at.too_long(63, out);
    }
    for detail in names::dns_subdomain(&at.text().to_lowercase()) {
        at.invalid(detail, out);
    }
}

fn ephemeral(at: &At<'_>, out: &mut Causes) {
    let template = at.field("volumeClaimTemplate");
    if !template.is_set() {
        return template.required("", out);
    }
    let meta = template.field("metadata");
    labels::annotations(&meta.field("annotations"), out);
    labels::labels(&meta.field("labels"), out);
    claims::validate_spec(&template.field("spec"), out);
}

fn image(at: &At<'_>, out: &mut Causes) {
    at.field("pullPolicy").one_of(container::PULL_POLICIES, out);
}

fn required_descending(at: &At<'_>, out: &mut Causes) {
    if at.is_empty() {
        return at.required("", out);
    }
    descending(at, out);
}

/// A path within something: relative, and not out of it.
pub fn descending(at: &At<'_>, out: &mut Causes) {
    if at.text().starts_with('/') {
        at.invalid("must be a relative path", out);
    }
    no_backsteps(at, out);
}

pub fn no_backsteps(at: &At<'_>, out: &mut Causes) {
    if at.text().split('/').any(|part| part == "..") {
        at.invalid("must not contain '..'", out);
    }
}

/// [`descending`], and no name that is kept for atomic writes.
fn local_path(at: &At<'_>, out: &mut Causes) {
    descending(at, out);
    if at.text().starts_with("..") && !at.text().starts_with("../") {
        at.invalid("must not start with '..'", out);
    }
}

/// A container's mounts are of volumes that are there.
pub fn mounts(container: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    let list = container.field("volumeMounts");
    let devices = container.field("volumeDevices");
    let devices: Vec<(&str, &str)> =
        devices.items().map(|one| (one.field("name").text(), one.field("devicePath").text())).collect();
    let mut seen = HashSet::new();
    for mount in list.items() {
        let (name, path) = (mount.field("name"), mount.field("mountPath"));
        if name.is_empty() {
            name.required("", out);
        }
        if pod.volume(name.text()).is_none() {
            name.not_found(out);
        }
        if path.is_empty() {
            path.required("", out);
        }
        if !seen.insert(path.text()) {
            path.invalid("must be unique", out);
        }
        if devices.iter().any(|(device, _)| *device == name.text()) {
            name.invalid("must not already exist in volumeDevices", out);
        }
        if devices.iter().any(|(_, device)| *device == path.text()) {
            path.invalid("must not already exist as a path in volumeDevices", out);
        }
        let (sub, expression) = (mount.field("subPath"), mount.field("subPathExpr"));
        if !sub.is_empty() {
            descending(&sub.shown_at(list.path().field("subPath")), out);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                expression.invalid("subPathExpr and subPath are mutually exclusive", out);
            }
            descending(&expression.shown_at(list.path().field("subPathExpr")), out);
        }
        propagation(&mount, &list, container, out);
    }
}

fn propagation(mount: &At<'_>, list: &At<'_>, container: &At<'_>, out: &mut Causes) {
    let propagation = mount.field("mountPropagation").shown_at(list.path().field("mountPropagation"));
    propagation.one_of_if_set(&["Bidirectional", "HostToContainer", "None"], out);
    if propagation.text() == "Bidirectional" && !container.down(&["securityContext", "privileged"]).flag() {
        propagation
            .forbidden("Bidirectional mount propagation is available only to privileged containers", out);
    }
    let read_only = mount.field("recursiveReadOnly").shown_at(list.path().field("recursiveReadOnly"));
    read_only.one_of_if_set(&["Disabled", "Enabled", "IfPossible"], out);
    if matches!(read_only.text(), "Enabled" | "IfPossible") {
        if !mount.field("readOnly").flag() {
            read_only.forbidden("may only be specified when readOnly is true", out);
        }
        if !matches!(propagation.text(), "" | "None") {
            let detail = "may only be specified when mountPropagation is None or not specified";
            read_only.forbidden(detail, out);
        }
    }
}

/// A container's block devices are claims.
pub fn devices(container: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    let mounts = container.field("volumeMounts");
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for device in container.field("volumeDevices").items() {
        let (name, path) = (device.field("name"), device.field("devicePath"));
        if name.is_empty() {
            name.required("", out);
        }
        if !names.insert(name.text()) && !name.is_empty() {
            name.invalid("must be unique", out);
        }
        match pod.volume(name.text()) {
            None => name.not_found(out),
            Some(volume) if volume.has("persistentVolumeClaim") || volume.has("ephemeral") => {}
            Some(_) => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                name.invalid(detail, out);
            }
        }
        if path.is_empty() {
            path.required("", out);
        }
        if paths.contains(path.text()) {
            path.invalid("must be unique", out);
        }
        if path.text().split('/').any(|part| part == "..") {
            path.invalid("can not contain backsteps ('..')", out);
        } else {
            paths.insert(path.text());
        }
        if mounts.items().any(|mount| mount.field("name").text() == name.text()) {
            name.invalid("must not already exist in volumeMounts", out);
        }
        if mounts.items().any(|mount| mount.field("mountPath").text() == path.text()) {
            path.invalid("must not already exist as a path in volumeMounts", out);
        }
    }
}
