//! Fields that an applier would change and another manager owns.

use std::fmt::{Display, Formatter};

use super::entries::{Id, Operation};
use crate::fields::Path;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub manager: Id,
    pub path: Path,
}

/// 409 Conflict; each is a cause `FieldManagerConflict` of the Status' details. At least one, ordered by manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflict {
    /// A cause's message: `conflict with "kubectl" using apps/v1`. Its field is the path.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

/// As conflicts name it: `"kubelet" with subresource "status" using v1`.
impl Display for Id {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

impl Display for Conflicts {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        if let [one] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: {}: {}", one.message(), one.path);
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        for (index, of_manager) in self.0.chunk_by(|a, b| a.manager == b.manager).enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}conflicts with {}:", of_manager[0].manager)?;
            for conflict in of_manager {
                write!(f, "\n- {}", conflict.path)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Conflicts {}
