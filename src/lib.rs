//! dogwatch runs N copies of any server on one systemd socket and relieves them one at a time, so that a deploy, a
//! crash or an upgrade never costs a connection.
//!
//! This page is the architecture. The words are the field's: a *primary* holds the *listeners* and supervises; a
//! *worker* is one process that serves; a *slot* is a position that is to be served and outlives its workers; a
//! *generation* is a set of workers started from the same settings; a *rollout* relieves all slots with a new
//! generation, in each slot a *newcomer* the *incumbent*.
//!
//! # Map
//!
//! | room | what it is | may know |
//! |---|---|---|
//! | [`core`] | the supervisor as a pure state machine: events in, actions out | nobody |
//! | [`protocol`] | bytes to values and back: the control socket, notify messages, Node's channel, the journal, procfs, netlink, a worker's environment | nobody |
//! | [`config`] | file and flags to settings that are valid by construction | core's `Policy` |
//! | [`sys`] | the system calls that need `unsafe` or care | nobody |
//! | [`primary`] | the shell: the only place that knows core and sys | core, protocol, config, sys |
//! | [`cli`] | arguments as typed, exit codes; every verb but `run` is a client of the control socket | core, protocol, config, sys, primary, demo |
//! | [`demo`] | the built-in worker of `dogwatch demo` and of the tests | config |
//!
//! `tests/architecture.rs` holds the last column.
//!
//! # Flow
//!
//! ```text
//!  kernel, systemd, workers, operator
//!      │ signals, notify sockets, channels, pipes, procfs, control socket
//!      ▼
//!  primary: read one source, bounded ──► protocol: parse ──► Event
//!                                                              │
//!            core::Supervisor::handle(event, now) ◄────────────┘
//!               1 note what is known
//!               2 reconcile with the goal: deadlines, cull, roll, fill, settle
//!               3 queue actions
//!      ┌─────────┘
//!      ▼
//!  primary: perform(action) ──► sys     a failure comes back as an Event, never as `?`
//!  then: write down what is known; STATUS= to systemd; sleep until poll_timeout()
//! ```
//!
//! What is written down lies in systemd's FD store, with everything that connects the primary with its workers: the next
//! primary goes on from there, whether this one was killed at any instruction or has executed a newer program
//! (`primary::carry`). So actions may be done twice, and are made so that it does not matter.
//!
//! The data plane goes beside this: `primary::channel` passes connections to Node's workers without an event or an action
//! for each, and where workers are steered the kernel deals them by a table that `primary::balance` writes; the core says
//! who is admitted and withdrawn, and [`core::Lanes`] on which *lane*, its own sockets, each worker is.
//!
//! Two rules keep it so: *the core never touches the world*, and *only `reconcile` decides* (events note facts; one
//! function compares them with the goal). A new feature is one event, one field, one clause in `reconcile`, one
//! action, one scenario in `tests/scenarios/`.
//!
//! # Invariants
//!
//! Asserted after every event in debug builds, or checked by the simulation in `tests/sim.rs`:
//!
//! - A rollout never lowers the number of ready workers below what it was.
//! - At most one newcomer at a time, unless `surge` says otherwise, and none without a rollout.
//! - A worker that is withdrawn or gone is in no table, as long as anybody is served.
//! - SIGKILL only after the stop signal and its timeout, or when the operator hurries.
//! - Every process that we made is on the roster until it is gone.
//! - A generation and a worker's number are never used again, and settings are not forgotten while anybody could be
//!   started from them.
//! - The state can be written and read between any two actions, and everything goes on as it would have.
//! - Every wait has a wake-up, and the rule that decides to wait sets it.
//! - `READY=1` once for a start and once for each reload; `RELOADING=1` is always followed by it.

pub mod cli;
pub mod config;
pub mod core;
pub mod demo;
pub mod primary;
pub mod protocol;
#[expect(unsafe_code, reason = "the only module that makes raw system calls")]
pub mod sys;
