//! Versions of the CNI specification.

use crate::Result;
use crate::error::{Code, Error};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    pub const LATEST: Self = Self::V1_1_0;

    pub fn text(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Absent means 0.1.0.
    pub fn parse(text: &str) -> Result<Self> {
        let text = if text.is_empty() { "0.1.0" } else { text };
        Self::ALL.into_iter().find(|v| v.text() == text).ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.iter().map(|v| v.text()).collect();
            Error::new(Code::IncompatibleVersion, "incompatible CNI versions")
                .details(format!("config is {text:?}, plugin supports {all:?}"))
        })
    }

    /// A result of one is a result of the other but for its `cniVersion`.
    pub fn same_shape(self, other: Self) -> bool {
        let shape = |v| match v {
            Self::V0_1_0 | Self::V0_2_0 => 0,
            Self::V0_3_0 | Self::V0_3_1 | Self::V0_4_0 => 1,
            Self::V1_0_0 | Self::V1_1_0 => 2,
        };
        shape(self) == shape(other)
    }
}
