//! Makes the table of built-in kinds: what `k8s-openapi` says of their types (names, descriptions, structure), joined
//! with the facts that `cargo xtask schema record` took from a stock API server, as Rust statics.

mod emit;
mod facts;
mod kinds;
mod lower;
mod openapi;
#[path = "../src/openapi/paths.rs"]
mod paths;

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=facts");
    println!("cargo::rerun-if-changed=src/openapi/paths.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let facts = facts::Facts::read()?;
    let roots = kinds::roots();
    let lowered = lower::lower(&roots, &facts);
    std::fs::write(out.join("table.rs"), emit::table(&roots, &lowered, &facts))?;
    std::fs::write(out.join("openapi.rs"), openapi::documents(&roots, &facts, &out)?)?;
    Ok(())
}
