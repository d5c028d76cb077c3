//! corten-images
