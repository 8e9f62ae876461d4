//! Bytes to values and back: pure, without file descriptors, and every parser total. What comes from outside (a
//! worker's notify socket, procfs) is refused or ignored when it is malformed; nothing here panics on any input.

#![forbid(unsafe_code)]

pub mod control;
pub mod diag;
pub mod environment;
pub mod journal;
pub mod letter;
pub mod lines;
pub mod node;
pub mod notify;
pub mod procfs;
pub mod steering;
pub mod store;
