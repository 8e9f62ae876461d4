//! stub
pub mod cli;
pub mod config;
pub mod core;
pub mod demo;
pub mod primary;
pub mod protocol;
#[expect(unsafe_code, reason = "the only module that makes raw system calls")]
pub mod sys;
