//! The commands, one file each: its arguments, what it does, what it prints.

pub mod completions;
pub mod doctor;
pub mod down;
pub mod exec;
pub mod image;
pub mod logs;
pub mod man;
pub mod status;
pub mod up;
