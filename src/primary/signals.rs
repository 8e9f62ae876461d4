//! The signals to the primary, and what each asks.

use std::future::Future as _;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Reap,
    Stop,
    Reload,
    Upgrade,
    More,
    Fewer,
}

/// The signals that mean something. They are caught by handlers, not blocked: a blocked mask would reach the workers.
pub(super) struct Signals {
    child: Signal,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    upgrade: Signal,
    more: Signal,
    fewer: Signal,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        let number = |signal: nix::sys::signal::Signal| SignalKind::from_raw(signal as i32);
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            more: signal(number(nix::sys::signal::Signal::SIGTTIN))?,
            fewer: signal(number(nix::sys::signal::Signal::SIGTTOU))?,
        })
    }

    /// Returns what was caught and not yet returned, without waiting.
    pub(super) fn caught(&mut self) -> Option<Asked> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(self.next()).poll(&mut context) {
            Poll::Ready(asked) => Some(asked),
            Poll::Pending => None,
        }
    }

    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.child.recv() => Asked::Reap,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.upgrade.recv() => Asked::Upgrade,
            _ = self.more.recv() => Asked::More,
            _ = self.fewer.recv() => Asked::Fewer,
        }
    }
}
