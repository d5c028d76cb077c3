//! Compiles the CRI description without protoc: protox reads the file, tonic-prost writes client and server.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/runtime.proto");
    let descriptors = protox::compile(["runtime.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
