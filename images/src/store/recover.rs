//! What a start finds: finished things are loaded, unfinished ones removed, broken records dropped with a word in the
//! log. A damaged store costs the images that are damaged, never the start.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::ingest::remove_tree;
use super::layout::Layout;
use super::record::{self, ImageRecord, LayerRecord, SnapshotRecord};
use super::{State, StoreError};
use crate::digest::Digest;

pub fn load(layout: &Layout) -> Result<State, StoreError> {
    for name in names(&layout.ingest())? {
        remove_tree(&layout.ingest().join(name))?;
    }
    let mut state = State::default();
    load_layers(layout, &mut state)?;
    load_blobs(layout, &mut state)?;
    load_snapshots(layout, &mut state)?;
    load_images(layout, &mut state)?;
    settle_tags(&mut state);
    Ok(state)
}

fn load_layers(layout: &Layout, state: &mut State) -> Result<(), StoreError> {
    for name in names(&layout.layers())? {
        let path = layout.layers().join(&name);
        let named = |layer: &LayerRecord| layer.chain_id.hex() == name && path.join("fs").is_dir();
        match read::<LayerRecord>(&path.join("layer.json"), named) {
            Ok(layer) => drop(state.layers.insert(layer.chain_id, layer)),
            Err(problem) => {
                tracing::warn!(layer = name, problem, "unfinished or damaged layer removed");
                remove_tree(&path)?;
            }
        }
    }
    Ok(())
}

fn load_blobs(layout: &Layout, state: &mut State) -> Result<(), StoreError> {
    for name in names(&layout.blobs())? {
        let path = layout.blobs().join(&name);
        let content = fs::read(&path).map_err(|error| StoreError::io("read", &path, &error))?;
        match Digest::from_hex(&name) {
            Some(digest) if digest == Digest::of(&content) => {
                state.blobs.insert(digest, content.len() as u64);
            }
            _ => {
                tracing::warn!(blob = name, "unfinished or damaged blob removed");
                remove_tree(&path)?;
            }
        }
    }
    Ok(())
}

fn load_snapshots(layout: &Layout, state: &mut State) -> Result<(), StoreError> {
    for name in names(&layout.snapshots())? {
        let path = layout.snapshot(&name);
        match read::<SnapshotRecord>(&path.join("snapshot.json"), |snapshot| snapshot.key == name) {
            Ok(snapshot) => drop(state.snapshots.insert(name, snapshot)),
            Err(problem) => {
                tracing::warn!(snapshot = name, problem, "damaged container snapshot removed");
                remove_tree(&path)?;
            }
        }
    }
    Ok(())
}

fn load_images(layout: &Layout, state: &mut State) -> Result<(), StoreError> {
    for name in names(&layout.images())? {
        let path = layout.images().join(&name);
        let loaded = read::<ImageRecord>(&path, |image| Layout::image_file(image.id) == name);
        match loaded.and_then(|image| missing(&image, state).map_or(Ok(image), Err)) {
            Ok(image) => {
                state.generation = state.generation.max(image.generation);
                state.images.insert(image.id, Arc::new(image));
            }
            Err(problem) => {
                tracing::warn!(image = name, problem, "damaged image dropped: pull it again");
                remove_tree(&path)?;
            }
        }
    }
    Ok(())
}

fn missing(image: &ImageRecord, state: &State) -> Option<String> {
    let blob = [image.id, image.manifest].into_iter().find(|blob| !state.blobs.contains_key(blob));
    let layer =
        || image.layers.iter().map(|layer| layer.chain_id).find(|layer| !state.layers.contains_key(layer));
    blob.map(|blob| format!("blob {blob} is missing"))
        .or_else(|| layer().map(|layer| format!("layer {layer} is missing")))
}

/// A crash between the records of a tag's new image and its old one leaves the tag on both.
fn settle_tags(state: &mut State) {
    let mut by_age: Vec<_> = state.images.values().cloned().collect();
    by_age.sort_by_key(|image| std::cmp::Reverse(image.generation));
    let mut seen = std::collections::BTreeSet::new();
    for image in by_age {
        let repo_tags: std::collections::BTreeSet<_> = image.repo_tags.difference(&seen).cloned().collect();
        seen.extend(repo_tags.iter().cloned());
        if repo_tags != image.repo_tags {
            state.images.insert(image.id, Arc::new(ImageRecord { repo_tags, ..(*image).clone() }));
        }
    }
}

trait Versioned {
    fn version(&self) -> u32;
}

macro_rules! versioned {
    ($($record:ty),*) => { $(impl Versioned for $record { fn version(&self) -> u32 { self.version } })* };
}
versioned!(ImageRecord, LayerRecord, SnapshotRecord);

fn read<T: DeserializeOwned + Versioned>(path: &Path, valid: impl FnOnce(&T) -> bool) -> Result<T, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let record: T = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if record.version() != record::VERSION {
        return Err(format!("record version {}, this program reads {}", record.version(), record::VERSION));
    }
    if valid(&record) { Ok(record) } else { Err("record and file name differ".to_owned()) }
}

fn names(directory: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |error: std::io::Error| StoreError::io("read", directory, &error);
    let entries = fs::read_dir(directory).map_err(failed)?;
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed))
        .collect()
}
