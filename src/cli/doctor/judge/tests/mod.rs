mod serving;
mod start;
mod units;

use super::super::facts::{
    Content, Exposure, Facts, File, Listening, Planned, Primary, Program, Script, Step, Trial, Way,
    Who,
};
use super::super::finding::{Finding, Mark, report};
use super::super::unit::Unit;
use super::judge;
use crate::config::units::{Origin, Refused, Scope, Units};
use crate::config::{Settings, file};
use crate::protocol::control::{
    App, AppState, Balance, Change, Failure, Listener, Primary as Told, Shown, Slot, SlotState,
};
use std::path::{Path, PathBuf};

const PATH: &str = "/etc/dogwatch/shop.toml";
const FILE: &str = "command = [\"server\"]\nlisten = [\"8080\"]\nworkers = 2\nenabled = true\nworking-directory = \"/srv/shop\"\n";

fn step(path: &str, mode: u32, is_folder: bool) -> Step {
    Step { path: PathBuf::from(path), mode, user: 0, group: 0, is_folder, has_acl: false }
}

fn way(path: &str, mode: u32) -> Way {
    let folders = Path::new(path)
        .ancestors()
        .skip(1)
        .map(|folder| step(&folder.to_string_lossy(), 0o755, true));
    let mut steps: Vec<Step> = folders.collect();
    steps.reverse();
    steps.push(step(path, mode, false));
    Way { steps, trouble: None, is_denied: false }
}

fn folder(path: &str, mode: u32) -> Way {
    let mut way = way(path, mode);
    way.steps.last_mut().unwrap().is_folder = true;
    way
}

/// What the file says, with everything that is made of it.
fn with(text: &str) -> Facts {
    let typed = file::parse(PATH, text).unwrap();
    let settings = Settings::new(typed.clone(), 4).unwrap();
    let origin =
        Origin { name: "shop", file: PATH, program: "/usr/bin/dogwatch", scope: Scope::System };
    let units = Units::new(origin, &typed, &settings).unwrap();
    let (service, socket) = (service(), socket());
    let who = Who { name: "user 'shop'".to_owned(), user: Some(61_184), ..Who::default() };
    let listeners = vec![Listener { name: "tcp-8080".to_owned(), address: "[::]:8080".to_owned() }];
    let address = "[::]:8080".parse().unwrap();
    Facts {
        app: "shop".to_owned(),
        scope: Scope::System,
        systemd: Ok(()),
        is_root: true,
        file: Some(File {
            path: PathBuf::from(PATH),
            content: Content::Good(Box::new(typed), Box::new(settings)),
            way: way(PATH, 0o644),
        }),
        plan: Planned { units, refused: None, without: false },
        is_made: false,
        has_generator: true,
        service: Some(service),
        socket: Some(socket),
        who,
        directory: Some(folder("/srv/shop", 0o755)),
        program: Some(Program {
            name: "server".to_owned(),
            path: "/usr/bin".to_owned(),
            found: Ok(PathBuf::from("/usr/bin/server")),
            way: way("/usr/bin/server", 0o755),
            interpreter: None,
            elsewhere: None,
        }),
        script: None,
        trial: Trial::Good("user 'shop'".to_owned()),
        primary: Primary::Runs { shown: Box::new(shown(listeners)), reload: Some(Ok(vec![])) },
        listening: vec![Listening {
            address,
            is_datagram: false,
            holder: Some("'systemd' (pid 1)".to_owned()),
        }],
        first_free_port: 1024,
        exposure: Some(Ok(Exposure { level: 1.7, points: vec![] })),
        lingers: None,
        last_lines: vec![],
    }
}

fn healthy() -> Facts {
    with(FILE)
}

fn service() -> Unit {
    Unit::of_show(
        "Id=shop.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=generated\nResult=success\n\
         FragmentPath=/run/systemd/generator/shop.service\nNeedDaemonReload=no\nWantedBy=multi-user.target\nType=notify\n\
         NotifyAccess=main\nNonBlocking=yes\nKillMode=process\nRestart=always\nStartLimitIntervalUSec=0\nDelegate=yes\n\
         WatchdogUSec=30s\nTimeoutStartUSec=1min\nTimeoutStopUSec=1min\nFileDescriptorStoreMax=512\nNFileDescriptorStore=9\n\
         DynamicUser=yes\nProtectHome=yes\nPrivateTmp=yes\nExecMainStatus=0\n",
    )
}

fn socket() -> Unit {
    Unit::of_show(
        "Id=shop.socket\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=generated\nNeedDaemonReload=no\n\
         FragmentPath=/run/systemd/generator/shop.socket\nWantedBy=sockets.target\nTriggerLimitIntervalUSec=0\n\
         Listen=[::]:8080 (Stream)\nResult=success\n",
    )
}

fn shown(listeners: Vec<Listener>) -> Shown {
    let primary = Told {
        name: "shop".to_owned(),
        version: "1".to_owned(),
        pid: 1,
        primaries: 1,
        unit: Some("shop.service".to_owned()),
        config: Some(PATH.to_owned()),
        log: "journal".to_owned(),
        listeners,
    };
    let app = App {
        primary,
        state: AppState::Running,
        status: "2 workers ready, generation 1".to_owned(),
        generation: 1,
        queued_generation: None,
        slots_done: None,
        canary: None,
        balance: None,
        ready_slots: 2,
        up_ms: 1,
        slots: vec![],
        leaving: vec![],
    };
    Shown { app, settings: vec![], generations: vec![], last_failure: None }
}

/// What is wrong, each as `MARK about: text | remedy`.
fn wrong(facts: &Facts) -> Vec<String> {
    let told = |finding: &Finding| {
        let remedy = finding.remedy.as_deref().unwrap_or("-");
        format!("{:?} {}: {} | {remedy}", finding.mark, finding.about, finding.text)
    };
    judge(facts).iter().filter(|finding| finding.mark != Mark::Ok).map(told).collect()
}

/// The only thing that is wrong.
#[track_caller]
fn only(facts: &Facts) -> String {
    let all = wrong(facts);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.into_iter().next().unwrap()
}

#[track_caller]
fn says(facts: &Facts, parts: &[&str]) {
    let said = only(facts);
    for part in parts {
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
}

fn set(facts: &mut Facts, key: &str, values: &[&str]) {
    facts.service.as_mut().unwrap().set(key, values);
}

fn stopped() -> Facts {
    let mut facts = healthy();
    facts.primary = Primary::Absent;
    facts.listening = vec![];
    set(&mut facts, "ActiveState", &["inactive"]);
    facts.socket.as_mut().unwrap().set("ActiveState", &["inactive"]);
    facts
}

#[test]
fn of_an_app_that_is_well_nothing_is_said() {
    let facts = healthy();
    assert_eq!(wrong(&facts), Vec::<String>::new());
    let text = report("shop", &judge(&facts));
    assert!(text.ends_with("shop: nothing is wrong\n"), "{text}");
    assert!(text.lines().all(|line| !line.contains("remedy")), "{text}");
}

#[test]
fn the_verdict_counts() {
    let findings = [
        Finding::problem("a", "x\u{1b}[31m").remedy("y").lines(&["z".to_owned()]),
        Finding::warning("b", "w"),
        Finding::unknown("c", "u"),
    ];
    let text = report("shop", &findings);
    assert!(text.ends_with("shop: 1 problem, 1 warning; 1 question not answered\n"), "{text}");
    assert!(
        text.contains("remedy: y") && text.contains("    z") && !text.contains('\u{1b}'),
        "{text}"
    );
}

#[test]
fn without_systemd_it_says_what_it_can() {
    let mut facts = healthy();
    facts.systemd = Err("systemd does not run here".to_owned());
    (facts.service, facts.socket, facts.file, facts.exposure) = (None, None, None, None);
    (facts.directory, facts.program, facts.trial) = (None, None, Trial::None);
    facts.plan = Planned::default();
    says(&facts, &["Warning units: systemd does not run here: nobody starts it again"]);
    facts.primary = Primary::Silent("only root and its own user may".to_owned());
    facts.is_root = false;
    let all = wrong(&facts);
    assert!(all.iter().all(|said| said.starts_with("Unknown")), "{all:?}");
}
