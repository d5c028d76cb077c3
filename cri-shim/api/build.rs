//! Compiles the CRI description and our own without protoc: protox reads the files, tonic-prost writes client and server.

/// Messages that daemons keep in their records on disk, so they (and they alone) are also serde types. A field that
/// an older record lacks reads as its default; one that a newer record has is ignored.
const RECORDED: &[&str] = &[
    "PodSandboxConfig",
    "PodSandboxMetadata",
    "DNSConfig",
    "PortMapping",
    "LinuxPodSandboxConfig",
    "LinuxSandboxSecurityContext",
    "NamespaceOption",
    "UserNamespace",
    "IDMapping",
    "SELinuxOption",
    "Int64Value",
    "SecurityProfile",
    "LinuxContainerResources",
    "HugepageLimit",
    "ContainerConfig",
    "ContainerMetadata",
    "ImageSpec",
    "KeyValue",
    "Mount",
    "Device",
    "LinuxContainerConfig",
    "LinuxContainerSecurityContext",
    "Capability",
    "CDIDevice",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["runtime.proto", "corten.proto"], ["proto"])?;
    let mut config = tonic_prost_build::configure();
    for message in RECORDED {
        let path = format!(".runtime.v1.{message}");
        config = config
            .message_attribute(path, "#[derive(serde::Serialize, serde::Deserialize)]\n#[serde(default)]");
    }
    for windows in ["PodSandboxConfig.windows", "ContainerConfig.windows"] {
        config = config.field_attribute(format!(".runtime.v1.{windows}"), "#[serde(skip)]");
    }
    config.compile_fds(descriptors)?;
    Ok(())
}
