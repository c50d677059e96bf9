//! Stages, what lies between them, and how inferences go through them.

mod network;
mod orders;
