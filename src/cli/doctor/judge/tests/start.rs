//! What a start needs.

use super::*;

#[test]
fn a_file_that_is_wrong_says_where_and_keeps_the_units_waiting() {
    let mut facts = stopped();
    facts.file.as_mut().unwrap().content =
        Content::Wrong(format!("{PATH}:3: unknown key 'x'"), Some("did you mean 'y'?".to_owned()));
    facts.plan = Planned {
        refused: Some(Refused {
            name: "shop".to_owned(),
            message: "m".to_owned(),
            hint: None,
            keeps_units: false,
        }),
        ..Planned::default()
    };
    (facts.service, facts.socket) = (None, None);
    let all = wrong(&facts);
    assert_eq!(all[0], format!("Problem file: {PATH}:3: unknown key 'x' | did you mean 'y'?"));
    assert!(
        all[1]
            .starts_with("Problem units: there are none, and will be none before the file is good")
    );
    assert_eq!(all.len(), 2, "{all:?}");
}

#[test]
fn a_file_that_is_gone_does_not_end_what_runs() {
    let mut facts = healthy();
    facts.file.as_mut().unwrap().content = Content::Missing;
    facts.plan = Planned::default();
    says(
        &facts,
        &[
            "Problem file: there is no '/etc/dogwatch/shop.toml'",
            "put it back",
            "'systemctl stop shop.socket shop.service'",
        ],
    );
}

#[test]
fn a_file_that_only_root_reads_is_none_for_the_primary() {
    let mut facts = healthy();
    facts.file.as_mut().unwrap().way = way(PATH, 0o600);
    says(
        &facts,
        &[
            "Problem file: user 'shop' may not read",
            "'chmod 644 /etc/dogwatch/shop.toml'",
            "EnvironmentFile = ",
        ],
    );
    facts.who.groups = vec![0];
    facts.file.as_mut().unwrap().way = way(PATH, 0o640);
    assert_eq!(wrong(&facts), Vec::<String>::new());
    // What a list allows is not known here, and is tried.
    facts.who.groups = vec![];
    for step in &mut facts.file.as_mut().unwrap().way.steps {
        step.has_acl = true;
    }
    assert_eq!(wrong(&facts), Vec::<String>::new());
}

#[test]
fn who_does_not_exist_is_made_or_left_out() {
    let mut facts = with(&format!("{FILE}user = \"nobody-such\"\n"));
    facts.who = Who { missing: Some("user 'nobody-such'".to_owned()), ..Who::default() };
    says(
        &facts,
        &[
            "Problem user: there is no user 'nobody-such'",
            "'useradd --system nobody-such'",
            "take 'user' out of",
        ],
    );
}

#[test]
fn a_directory_that_may_not_be_entered_is_named() {
    let mut facts = healthy();
    facts.directory.as_mut().unwrap().steps[1].mode = 0o700;
    says(
        &facts,
        &["Problem directory: user 'shop' may not enter '/srv', mode 0700", "'chmod o+x /srv'"],
    );
    facts.who.overrides = true;
    assert_eq!(wrong(&facts), Vec::<String>::new());
    let mut facts = healthy();
    facts.directory.as_mut().unwrap().trouble = Some("No such file or directory".to_owned());
    says(&facts, &["Problem directory: cannot enter '/srv/shop': No such file"]);
    facts.directory.as_mut().unwrap().is_denied = true;
    says(&facts, &["Unknown directory: you cannot look at '/srv/shop'"]);
}

#[test]
fn what_the_sandbox_hides_is_not_there() {
    let mut facts = healthy();
    facts.directory = Some(folder("/home/joe/app", 0o755));
    says(
        &facts,
        &[
            "Problem directory: '/srv/shop' is hidden from the service by ProtectHome=",
            "home = \"read-only\"",
            "/srv",
        ],
    );
    set(&mut facts, "ProtectHome", &["read-only"]);
    assert_eq!(wrong(&facts), Vec::<String>::new());
    set(&mut facts, "ProtectHome", &["yes"]);
    set(&mut facts, "BindReadOnlyPaths", &["/home/joe/app:/home/joe/app:rbind"]);
    assert_eq!(wrong(&facts), Vec::<String>::new());
}

#[test]
fn a_program_is_looked_for_where_the_service_looks() {
    let mut facts = healthy();
    let program = facts.program.as_mut().unwrap();
    program.found = Err("No such file or directory".to_owned());
    says(
        &facts,
        &["Problem program: cannot find 'server' on PATH, which is /usr/bin:", "install 'server'"],
    );
    facts.program.as_mut().unwrap().elsewhere =
        Some(PathBuf::from("/home/joe/.nvm/versions/node/v22/bin/server"));
    says(
        &facts,
        &[
            "copy '/home/joe/.nvm/versions/node/v22/bin/server' to /usr/local/bin",
            "home = \"read-only\"",
        ],
    );
    facts.program.as_mut().unwrap().elsewhere = Some(PathBuf::from("/opt/x/bin/server"));
    says(&facts, &["there is '/opt/x/bin/server': write that into 'command'"]);
}

#[test]
fn a_program_must_be_executable_and_a_script_have_its_interpreter() {
    let mut facts = healthy();
    facts.program.as_mut().unwrap().way = way("/usr/bin/server", 0o744);
    says(
        &facts,
        &[
            "Problem program: user 'shop' may not execute '/usr/bin/server'",
            "'chmod a+rx /usr/bin/server'",
        ],
    );
    let mut facts = healthy();
    facts.program.as_mut().unwrap().interpreter = Some(("/usr/bin/rubby".to_owned(), false));
    says(
        &facts,
        &[
            "Problem program: '/usr/bin/server' is a script for '/usr/bin/rubby', which does not exist",
        ],
    );
}

#[test]
fn a_script_must_be_there_seen_and_readable() {
    let with = |way: Way| {
        let mut facts = healthy();
        let path = way.steps.last().unwrap().path.clone();
        facts.script = Some(Script { path, way });
        facts
    };
    assert_eq!(wrong(&with(way("/srv/shop/app.py", 0o644))), Vec::<String>::new());
    says(
        &with(way("/home/joe/app.py", 0o644)),
        &["Problem script: '/home/joe/app.py' is hidden from the service by ProtectHome="],
    );
    says(
        &with(way("/srv/shop/app.py", 0o600)),
        &["Problem script: user 'shop' may not read", "'chmod a+r /srv/shop/app.py'"],
    );
    let mut missing = with(way("/srv/shop/app.py", 0o644));
    missing.script.as_mut().unwrap().way.trouble = Some("No such file".to_owned());
    says(
        &missing,
        &["Problem script: cannot find '/srv/shop/app.py': No such file", "put it there"],
    );
    // The service may see what nobody else does.
    set(&mut missing, "BindReadOnlyPaths", &["/opt/shop:/srv/shop:rbind"]);
    assert_eq!(wrong(&missing), Vec::<String>::new());
}

#[test]
fn what_only_a_trial_finds_is_said_once() {
    let mut facts = healthy();
    let reason = "cannot read environment file '/etc/x.env': Permission denied (os error 13)";
    facts.trial = Trial::Bad(reason.to_owned(), None);
    says(&facts, &["Problem start: cannot read environment file", "EnvironmentFile = \"FILE\""]);
    facts.program.as_mut().unwrap().found = Err("none".to_owned());
    says(&facts, &["Problem program"]);
}

#[test]
fn a_trial_says_as_whom_and_where_it_was_made() {
    let start = |facts: &Facts| {
        let mut all = judge(facts).into_iter();
        all.find(|finding| finding.about == "start").map(|found| found.text)
    };
    let mut facts = stopped();
    assert!(start(&facts).unwrap().ends_with("tried as user 'shop', outside its sandbox"));
    assert!(start(&healthy()).unwrap().ends_with("tried as user 'shop'"));
    facts = healthy();
    facts.trial = Trial::Unknown("a start cannot be tried as user 'shop': no setpriv".to_owned());
    says(&facts, &["Unknown start: a start cannot be tried"]);
}
