//! What the writers of all targets have in common: expressions as C, the functions that they call, and what differs between
//! languages.

mod expression;
mod helpers;
mod language;
mod read;

pub(crate) use expression::{Binding, Expressions, wraps};
pub(crate) use helpers::Helper;
pub(crate) use language::Language;
pub(crate) use read::{Read, read};

/// A text from the model as a part of a comment: one line, without anything that could end it.
pub(crate) fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() && c != '\\' && c != '?' || c == ' ' { c } else { '_' }).collect()
}
