//! Which objects of a list or watch: by labels and by fields.

mod fields;
mod labels;

pub use fields::Fields;
pub use labels::Labels;
