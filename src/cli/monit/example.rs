//! An app as the tests look at it.

use super::super::usage::{Usage, workers};
use super::model::{Sample, Usages};
use crate::protocol::control::{
    App, AppState, Listener, Primary, Role, Slot, SlotState, Worker, WorkerState,
};

pub(super) fn worker(number: u64, slot: u16, role: Role, state: WorkerState) -> Worker {
    Worker {
        worker: number,
        slot,
        generation: 1,
        role,
        state,
        pid: Some(1000 + i32::try_from(number).unwrap()),
        up_ms: 60_000,
        ready_after_ms: Some(120),
        ready_because: Some("it waits on its socket".to_owned()),
        channel: None,
        lane: None,
        status: None,
    }
}

/// An app that runs as it should.
pub(super) fn app(slots: u16) -> App {
    let slot = |slot: u16| Slot {
        slot,
        state: SlotState::Ready,
        generation: 1,
        restarts: 0,
        failures: 0,
        retry_in_ms: None,
        reason: None,
        given: None,
        last_exit: None,
        workers: vec![worker(u64::from(slot) + 1, slot, Role::Incumbent, WorkerState::Ready)],
    };
    App {
        primary: Primary {
            name: "web".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: 999,
            primaries: 0,
            unit: None,
            config: None,
            log: "memory".to_owned(),
            listeners: vec![Listener {
                name: "web".to_owned(),
                address: "127.0.0.1:8080".to_owned(),
            }],
        },
        state: AppState::Running,
        status: format!("{slots} workers ready, generation 1"),
        generation: 1,
        queued_generation: None,
        slots_done: None,
        canary: None,
        balance: None,
        ready_slots: usize::from(slots),
        up_ms: 61_000,
        slots: (0..slots).map(slot).collect(),
        leaving: vec![],
    }
}

/// A rollout: slot 0 is relieved and its worker leaves, in slot 1 a newcomer settles.
pub(super) fn rollout(slots: u16) -> App {
    let mut app = app(slots);
    app.state = AppState::Reloading;
    app.status = "reload to generation 2 1/4: slot 1 is ready and settles for 1s".to_owned();
    app.generation = 2;
    app.slots_done = Some(1);
    app.slots[0].generation = 2;
    let mut relieved = worker(11, 0, Role::Incumbent, WorkerState::Ready);
    relieved.generation = 2;
    app.slots[0].workers = vec![relieved, worker(1, 0, Role::Leaving, WorkerState::Draining)];
    let mut newcomer = worker(12, 1, Role::Newcomer, WorkerState::Ready);
    newcomer.generation = 2;
    app.slots[1].workers.push(newcomer);
    app
}

/// Every worker used so much processor time.
pub(super) fn measured(app: &App, cpu_ms: u64) -> Usages {
    let usage =
        Usage { memory_bytes: 12 * 1024 * 1024, cpu_ms, processes: 1, connections: Some(3) };
    Usages {
        primary: Usage { connections: None, ..usage },
        workers: workers(app).map(|worker| (worker.worker, usage)).collect(),
    }
}

pub(super) fn sample(at_ms: u64, app: App) -> Sample {
    let measured = Some(measured(&app, 300));
    Sample { at_ms, app, measured }
}
