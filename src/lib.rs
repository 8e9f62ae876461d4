//! stub
pub mod core;
