//! Linux: the system calls that need `unsafe` or care. Returns `io::Result` and owned file descriptors; knows
//! nothing of the supervisor. Every descriptor made here is close-on-exec from birth.

pub mod bell;
pub mod bpf;
pub mod capability;
pub mod cgroup;
pub mod diag;
pub mod fork;
pub mod pidfd;
pub mod process;
pub mod socket;
pub mod spawn;
pub mod tcp;
pub mod varlink;
