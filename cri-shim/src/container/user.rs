//! Looks up users in an image's own files. Images do not change, so an answer is kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use corten_sys::Errno;
use corten_sys::root::Root;
use rustix::fs::{FileType, OFlags, fstat};

use crate::error::Error;
use crate::oci_spec::{PasswdError, ResolvedUser, SpecError, UserRequest};

/// More answers than this are not kept.
const LIMIT: usize = 256;

/// Answers by image and question.
#[derive(Debug, Default)]
pub struct UserCache {
    answers: Mutex<HashMap<(String, UserRequest), ResolvedUser>>,
}

impl UserCache {
    /// Who `request` is in the image `image_id`, whose layers are `lower` (uppermost first). Blocks.
    pub fn resolve(
        &self,
        image_id: &str,
        request: &UserRequest,
        lower: Vec<PathBuf>,
    ) -> Result<ResolvedUser, Error> {
        let key = (image_id.to_owned(), request.clone());
        let answers = || self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = answers().get(&key) {
            return Ok(known.clone());
        }
        let user = look_up(request, lower)?;
        let mut answers = answers();
        if answers.len() >= LIMIT {
            answers.clear();
        }
        answers.insert(key, user.clone());
        Ok(user)
    }
}

fn look_up(request: &UserRequest, lower: Vec<PathBuf>) -> Result<ResolvedUser, Error> {
    let root = merged(lower)?;
    let passwd = open(&root, "/etc/passwd")?;
    let group = open(&root, "/etc/group")?;
    Ok(request.resolve(passwd, group).map_err(SpecError::from)?)
}

/// The layers as a container sees them: one is a directory already, more are an overlay that nobody else can see.
fn merged(lower: Vec<PathBuf>) -> Result<Root, Error> {
    if let [only] = lower.as_slice() {
        return Root::open_host(only)
            .map_err(|errno| Error::system(format!("open layer {}", only.display()), errno));
    }
    let count = lower.len();
    let overlay =
        corten_sys::mount::Overlay { lower, read_only: true, source: "corten".into(), ..Default::default() };
    overlay
        .mount()
        .map(Root::from)
        .map_err(|errno| Error::system(format!("mount {count} layers as an overlay"), errno))
}

/// A regular file, or nothing: a fifo or device put there by an image must not be waited on.
fn open(root: &Root, path: &'static str) -> Result<Box<dyn Read>, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match root.open(path, flags) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Box::new(std::io::empty())),
        Err(errno) => return Err(Error::system(format!("open the image's {path}"), errno)),
    };
    let stat = fstat(&file).map_err(|errno| Error::system(format!("stat the image's {path}"), errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(SpecError::from(PasswdError::File(path)).into());
    }
    Ok(Box::new(File::from(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        for (path, text) in files {
            std::fs::write(dir.path().join(path), text).unwrap();
        }
        dir
    }

    fn request(user: &str) -> UserRequest {
        UserRequest { user: user.into(), supplemental: vec![], merge: true }
    }

    #[test]
    fn the_upper_layers_passwd_counts() {
        let below = layer(&[("etc/passwd", "a:x:1:1::/:\n"), ("etc/group", "g:x:7:a\n")]);
        let above = layer(&[("etc/passwd", "a:x:2:2::/home/a:\n")]);
        let cache = UserCache::default();
        let lower = vec![above.path().into(), below.path().into()];
        let user = cache.resolve("i", &request("a"), lower).unwrap();
        assert_eq!((user.uid, user.groups, user.home.as_deref()), (2, vec![2, 7], Some("/home/a")));
        // Kept: the layers are not looked at again.
        cache.resolve("i", &request("a"), vec!["/nonexistent".into()]).unwrap();
    }

    #[test]
    fn an_image_without_passwd_has_numbers_only() {
        let only = tempfile::tempdir().unwrap();
        let cache = UserCache::default();
        let find = |user| cache.resolve("i", &request(user), vec![only.path().into()]);
        assert_eq!(find("5").unwrap().uid, 5);
        assert!(find("nobody").unwrap_err().to_string().contains("no user \"nobody\""));
    }

    #[test]
    fn a_passwd_that_is_a_link_to_the_host_is_read_in_the_image() {
        let dir = layer(&[("secret", "a:x:9:9::/:\n")]);
        std::os::unix::fs::symlink("/secret", dir.path().join("etc/passwd")).unwrap();
        let user = UserCache::default().resolve("i", &request("a"), vec![dir.path().into()]).unwrap();
        assert_eq!(user.uid, 9);
    }

    #[test]
    fn a_passwd_that_is_no_file_is_an_error_and_is_not_waited_for() {
        let dir = layer(&[]);
        let etc = std::fs::File::open(dir.path().join("etc")).unwrap();
        rustix::fs::mknodat(&etc, "passwd", FileType::Fifo, rustix::fs::Mode::from(0o644), 0).unwrap();
        let error = UserCache::default().resolve("i", &request("a"), vec![dir.path().into()]).unwrap_err();
        assert!(error.to_string().contains("/etc/passwd"), "{error}");
    }
}
