//! Reading arguments as runc's parser does: `--name value`, `--name=value`, `-n value`; options end at the first
//! operand where a program's own arguments follow.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};
use lexopt::ValueExt;
use lexopt::prelude::{Long, Short, Value};

/// One command's arguments.
pub struct Arguments {
    parser: lexopt::Parser,
    operands: Vec<OsString>,
    /// Everything after the first operands is the program's.
    limit: usize,
}

impl Arguments {
    /// Of a command that takes no more than `limit` operands before a program's own arguments.
    pub fn new(parser: lexopt::Parser, limit: usize) -> Self {
        Self { parser, operands: Vec::new(), limit }
    }

    /// The name of the next option: `-b` as `b`, `--bundle` as `bundle`. None when there are no more.
    pub fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if self.operands.len() == self.limit {
                self.operands.extend(self.parser.raw_args()?);
                return Ok(None);
            }
            match self.parser.next()? {
                None => return Ok(None),
                Some(Short(name)) => return Ok(Some(name.to_string())),
                Some(Long(name)) => return Ok(Some(name.to_owned())),
                Some(Value(value)) => self.operands.push(value),
            }
        }
    }

    pub fn text(&mut self) -> anyhow::Result<String> {
        Ok(self.parser.value()?.string()?)
    }

    pub fn path(&mut self) -> anyhow::Result<PathBuf> {
        let value = self.parser.value()?;
        // Some callers always give the option, with nothing in it.
        Ok(value.into())
    }

    pub fn number(&mut self) -> anyhow::Result<u32> {
        let text = self.text()?;
        text.parse().with_context(|| format!("{text:?} is no number"))
    }

    /// A switch: `--all`, or `--all=true` as Go programs write it.
    pub fn switch(&mut self) -> anyhow::Result<bool> {
        match self.parser.optional_value() {
            None => Ok(true),
            Some(value) => match value.string()?.as_str() {
                "true" | "1" | "t" => Ok(true),
                "false" | "0" | "f" => Ok(false),
                other => bail!("{other:?} is not true or false"),
            },
        }
    }

    /// All operands, as text.
    pub fn operands(self) -> anyhow::Result<Vec<String>> {
        self.operands.into_iter().map(|operand| Ok(operand.string()?)).collect()
    }

    /// The one operand of most commands.
    pub fn container_id(self) -> anyhow::Result<String> {
        let mut operands = self.operands()?;
        match operands.len() {
            1 => Ok(operands.remove(0)),
            count => bail!("exactly 1 argument is needed, the container's id; there are {count}"),
        }
    }
}

pub fn unknown_option<T>(name: &str) -> anyhow::Result<T> {
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    bail!("unknown option {dashes}{name}")
}
