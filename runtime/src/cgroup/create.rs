//! Making the directories of a cgroup, and taking back what was made if the rest of a create fails.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::detect::Version;
use super::error::{CgroupError, errno};
use super::files;
use super::plan::Controller;
use super::{Cgroup, Member};

/// The directories a create made. Dropped without [`Created::keep`], it removes them again, parents too.
#[derive(Debug)]
#[must_use = "dropping it removes the cgroup again"]
pub struct Created {
    made: Vec<PathBuf>,
}

impl Created {
    /// The container owns the cgroup from here on.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        for dir in self.made.iter().rev() {
            // An undo never stops: what another process put there stays, and remove() reports it.
            let _ = fs::remove_dir(dir);
        }
    }
}

impl Cgroup {
    /// Refuse a cgroup that is in use, before anything is recorded that an undo would take for its own: an undo kills
    /// what is in the cgroup.
    pub fn refuse_in_use(&self) -> Result<(), CgroupError> {
        self.members.iter().try_for_each(|member| refuse_in_use(&member.path))
    }

    /// Make the cgroup in each of its hierarchies.
    ///
    /// # Errors
    /// It is there already and holds processes or is frozen: a second container would share the limits of the first,
    /// or never start.
    pub fn create(&self) -> Result<Created, CgroupError> {
        let mut created = Created { made: Vec::new() };
        let unified = self.members.len() == 1;
        for member in &self.members {
            if member.version == Version::V2 {
                let parent = member.path.parent().unwrap_or(&member.mount);
                make(member, parent, &mut created.made)?;
                enable_controllers(member, parent, unified)?;
            }
            if !make(member, &member.path, &mut created.made)? {
                refuse_in_use(&member.path)?;
            }
        }
        Ok(created)
    }
}

/// Make `dir` and what is missing above it; whether `dir` is new.
fn make(member: &Member, dir: &Path, made: &mut Vec<PathBuf>) -> Result<bool, CgroupError> {
    if dir == member.mount {
        return Ok(false);
    }
    let parent = dir.parent().unwrap_or(&member.mount);
    let mut result = fs::create_dir(dir);
    if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        make(member, parent, made)?;
        result = fs::create_dir(dir);
    }
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(CgroupError::io("create cgroup", dir, &error)),
    }
    made.push(dir.to_owned());
    if member.version == Version::V1 && member.has(Controller::Cpuset) {
        inherit_cpuset(parent, dir)?;
    }
    Ok(true)
}

/// A v1 cpuset starts empty, and no process may join an empty one.
fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        // With cgroup.clone_children the kernel has done it.
        if files::read(&dir.join(file))?.trim().is_empty() {
            let inherited = files::read(&parent.join(file))?;
            files::write(&dir.join(file), inherited.trim())?;
        }
    }
    Ok(())
}

/// v2: a controller exists in a cgroup only if every parent hands it down. On a hybrid host hand down what the host's
/// v2 hierarchy has; a controller that a parent refuses to hand down is reported by the limit that needs it.
fn enable_controllers(member: &Member, parent: &Path, unified: bool) -> Result<(), CgroupError> {
    let relative = parent.strip_prefix(&member.mount).unwrap_or(Path::new(""));
    let mut dir = member.mount.clone();
    hand_down(&dir, unified)?;
    for part in relative {
        dir.push(part);
        hand_down(&dir, unified)?;
    }
    Ok(())
}

fn hand_down(dir: &Path, unified: bool) -> Result<(), CgroupError> {
    let missing = not_handed_down(
        &files::read(&dir.join("cgroup.controllers"))?,
        &files::read(&dir.join("cgroup.subtree_control"))?,
    );
    if missing.is_empty() {
        return Ok(());
    }
    let file = dir.join("cgroup.subtree_control");
    let together = files::write(&file, &missing.join(" "));
    if together.is_err() && unified {
        // One that cannot be (rdma without a device, cpu with real-time processes) must not cost the others.
        for one in &missing {
            let _ = files::write(&file, one);
        }
        return Ok(());
    }
    together
}

/// `+name` for every controller that is offered and not handed down yet.
fn not_handed_down(offered: &str, handed_down: &str) -> Vec<String> {
    let already: Vec<&str> = handed_down.split_whitespace().collect();
    offered.split_whitespace().filter(|name| !already.contains(name)).map(|name| format!("+{name}")).collect()
}

fn refuse_in_use(dir: &Path) -> Result<(), CgroupError> {
    if !dir.exists() {
        return Ok(());
    }
    let count = files::pids_below(dir)?.len();
    if count > 0 {
        return Err(CgroupError::NotEmpty { path: dir.into(), count });
    }
    for (file, frozen) in [("freezer.state", "FROZEN"), ("freezer.state", "FREEZING"), ("cgroup.freeze", "1")]
    {
        match fs::read_to_string(dir.join(file)) {
            Ok(state) if state.trim() == frozen => return Err(CgroupError::Frozen { path: dir.into() }),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(CgroupError::Io { action: "read", path: dir.join(file), errno: errno(&error) });
            }
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn only_what_is_missing_is_handed_down() {
    assert_eq!(not_handed_down("cpu io memory\n", "memory\n"), ["+cpu", "+io"]);
    assert!(not_handed_down("cpu", "cpu").is_empty());
}
