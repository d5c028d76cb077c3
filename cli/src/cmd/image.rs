//! `corten image`: the images of an instance.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use corten_cri_api::corten_v1::pull_progress::State;
use corten_cri_api::corten_v1::{ImportRequest, PullProgress, PullRequest, RegistryAuth, UntagRequest};
use corten_cri_api::v1;
use serde::Serialize;

use crate::cli::Output;
use crate::cri::{Cri, block_on, image_spec, told};
use crate::instance::Instance;
use crate::screen::Screen;
use crate::table;

/// Pull, load, list, inspect and remove images
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Get an image from a registry
    ///
    /// Mirrors and plain-HTTP registries are named in CONFIG/certs.d/HOST/hosts.toml.
    Pull {
        /// Such as docker.io/library/busybox:latest or HOST/NAME@sha256:...
        reference: String,
        /// User name for the registry
        #[arg(long, requires = "password_stdin")]
        username: Option<String>,
        /// Read the password from standard input
        #[arg(long, requires = "username")]
        password_stdin: bool,
    },
    /// Load an OCI layout (directory or tar) or a `docker save` archive
    Load {
        /// The file or directory
        path: PathBuf,
        /// Name for an image that brings none
        #[arg(long)]
        name: Option<String>,
    },
    /// List images
    Ls {
        /// How to print it
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Remove names of images, and the image with its last name
    Rm {
        /// A name, a digest, or the id of an image
        #[arg(required = true)]
        references: Vec<String>,
    },
    /// Print what is known of an image as JSON
    Inspect {
        /// A name, a digest, or the id of an image
        reference: String,
    },
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    block_on(async {
        let mut cri = Cri::connect(instance).await?;
        match &args.command {
            Command::Pull { reference, username, .. } => {
                let auth = username.as_ref().map(|user| password(user)).transpose()?;
                let mut screen = Screen::new();
                let started = Instant::now();
                let id =
                    pull(&mut cri, PullRequest { reference: reference.clone(), auth }, &mut screen).await?;
                screen.ok("image", &format!("{reference}, {}", short(&id)), Some(started.elapsed()));
            }
            Command::Load { path, name } => load(&mut cri, path, name.as_deref()).await?,
            Command::Ls { output } => list(&mut cri, *output).await?,
            Command::Rm { references } => {
                for reference in references {
                    remove(&mut cri, reference).await?;
                }
            }
            Command::Inspect { reference } => inspect(&mut cri, reference).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn password(username: &str) -> Result<RegistryAuth> {
    if std::io::stdin().is_terminal() {
        bail!("--password-stdin reads the password from a pipe, and standard input is a terminal");
    }
    let mut password = String::new();
    std::io::stdin().read_to_string(&mut password).context("cannot read the password")?;
    let password = password.trim_end_matches(['\r', '\n']).to_string();
    Ok(RegistryAuth { username: username.into(), password, ..Default::default() })
}

/// Pulls with progress on the screen; returns the image's id.
pub async fn pull(cri: &mut Cri, request: PullRequest, screen: &mut Screen) -> Result<String> {
    let reference = request.reference.clone();
    let failed = |status: tonic::Status| told(&format!("pull {reference}"), &status);
    let mut progress = cri.corten.pull(request).await.map_err(failed)?.into_inner();
    let mut layers = BTreeMap::new();
    while let Some(step) = progress.message().await.map_err(failed)? {
        if !step.image_ref.is_empty() {
            return Ok(step.image_ref);
        }
        let of = step.layers;
        layers.insert(step.layer.clone(), step);
        screen.live(&[("image".to_string(), format!("{reference}  {}", describe(&layers, of)))]);
    }
    bail!("cannot pull {reference}: corten-cri ended the pull without an image; see its log")
}

/// `2/3 layers, 3.4 of 9.8 MB`
fn describe(layers: &BTreeMap<String, PullProgress>, of: u32) -> String {
    let finished = layers.values().filter(|layer| layer.state() != State::Downloading).count();
    let here = layers.values().filter(|layer| layer.state() != State::Exists);
    let (bytes, total) = here.fold((0, 0), |(bytes, total), l| (bytes + l.bytes, total + l.total_bytes));
    format!("{finished}/{of} layers, {} of {}", table::size(bytes), table::size(total))
}

async fn load(cri: &mut Cri, path: &Path, name: Option<&str>) -> Result<()> {
    // The daemon opens it, in its own working directory.
    let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let request =
        ImportRequest { path: path.display().to_string(), name: name.unwrap_or("").into(), pinned: false };
    let answer =
        cri.corten.import(request).await.map_err(|s| told(&format!("load {}", path.display()), &s))?;
    for image in answer.into_inner().images {
        println!("{}  {}  {}", short(&image.id), image.names.join(" "), table::size(image.size_bytes));
    }
    Ok(())
}

#[derive(Serialize)]
struct Listed {
    id: String,
    tags: Vec<String>,
    digests: Vec<String>,
    size_bytes: u64,
    pinned: bool,
}

async fn list(cri: &mut Cri, output: Output) -> Result<()> {
    let answer = cri
        .images
        .list_images(v1::ListImagesRequest::default())
        .await
        .map_err(|s| told("list images", &s))?;
    let listed = answer.into_inner().images.into_iter().map(|image| Listed {
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size_bytes: image.size,
        pinned: image.pinned,
    });
    let mut images: Vec<Listed> = listed.collect();
    images.sort_by(|a, b| (&a.tags, &a.id).cmp(&(&b.tags, &b.id)));
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&images)?),
        Output::Table => print!(
            "{}",
            table::aligned(&["NAME", "ID", "SIZE"], &images.iter().flat_map(rows).collect::<Vec<_>>())
        ),
    }
    Ok(())
}

/// One row per name; an image without a tag stands under its digests, else under `<none>`.
fn rows(image: &Listed) -> Vec<Vec<String>> {
    let names = if image.tags.is_empty() { &image.digests } else { &image.tags };
    let none = ["<none>".to_string()];
    let names: &[String] = if names.is_empty() { &none } else { names };
    names.iter().map(|name| vec![name.clone(), short(&image.id), table::size(image.size_bytes)]).collect()
}

async fn remove(cri: &mut Cri, reference: &str) -> Result<()> {
    let Some(image) = cri.image(reference).await? else {
        bail!("no image {reference}; `corten image ls` lists them")
    };
    let what = format!("remove {reference}");
    if image.id.trim_start_matches("sha256:").starts_with(reference.trim_start_matches("sha256:")) {
        let request = v1::RemoveImageRequest { image: Some(image_spec(&image.id)) };
        cri.images.remove_image(request).await.map_err(|s| told(&what, &s))?;
    } else {
        cri.corten.untag(UntagRequest { reference: reference.into() }).await.map_err(|s| told(&what, &s))?;
    }
    println!("{reference}");
    Ok(())
}

async fn inspect(cri: &mut Cri, reference: &str) -> Result<()> {
    let request = v1::ImageStatusRequest { image: Some(image_spec(reference)), verbose: true };
    let answer = cri
        .images
        .image_status(request)
        .await
        .map_err(|s| told(&format!("inspect {reference}"), &s))?
        .into_inner();
    let Some(image) = answer.image else { bail!("no image {reference}; `corten image ls` lists them") };
    // Values of `info` are JSON themselves where they can be.
    let info: serde_json::Map<String, serde_json::Value> = answer
        .info
        .into_iter()
        .map(|(key, text)| (key, serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))))
        .collect();
    let shown = serde_json::json!({
        "id": image.id, "tags": image.repo_tags, "digests": image.repo_digests, "size_bytes": image.size,
        "user": image.uid.map_or(image.username, |uid| uid.value.to_string()), "pinned": image.pinned, "info": info,
    });
    println!("{}", serde_json::to_string_pretty(&shown)?);
    Ok(())
}

/// The first twelve digits of a digest, as registries' users know them.
fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_what_is_fetched_now() {
        let layer = |name: &str, state: State, bytes, total_bytes| {
            (
                name.to_string(),
                PullProgress {
                    layer: name.into(),
                    state: state.into(),
                    bytes,
                    total_bytes,
                    layers: 3,
                    ..Default::default()
                },
            )
        };
        let layers = BTreeMap::from([
            layer("a", State::Exists, 0, 5_000_000),
            layer("b", State::Done, 1_000_000, 1_000_000),
            layer("c", State::Downloading, 2_400_000, 8_800_000),
        ]);
        assert_eq!(describe(&layers, 3), "2/3 layers, 3.4 MB of 9.8 MB");
    }

    #[test]
    fn an_image_is_listed_once_per_name() {
        let mut image = Listed {
            id: "sha256:0123456789abcdef".into(),
            tags: vec!["a:1".into(), "b:1".into()],
            digests: vec!["a@sha256:x".into()],
            size_bytes: 1_000_000,
            pinned: false,
        };
        assert_eq!(rows(&image), [["a:1", "0123456789ab", "1.0 MB"], ["b:1", "0123456789ab", "1.0 MB"]]);
        image.tags.clear();
        assert_eq!(rows(&image)[0][0], "a@sha256:x");
        image.digests.clear();
        assert_eq!(rows(&image)[0][0], "<none>");
    }
}
