use super::*;
use std::collections::BTreeMap;

/// A disk with these files, and packages by folder.
#[derive(Default)]
struct Disk {
    files: Vec<&'static str>,
    packages: BTreeMap<&'static str, String>,
}

impl Files for Disk {
    fn exists(&self, path: &Path) -> bool {
        self.files.iter().any(|file| Path::new(file) == path)
    }

    fn package(&self, folder: &Path) -> Result<Option<String>, String> {
        match self.packages.get(&*folder.to_string_lossy()) {
            Some(text) if text == "(too large)" => Err("it is too large".to_owned()),
            text => Ok(text.cloned()),
        }
    }
}

/// A package in `/srv/app` of a workspace in `/srv`, with these scripts.
fn disk(scripts: &[(&str, &str)]) -> Disk {
    let scripts: serde_json::Map<String, serde_json::Value> =
        scripts.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
    let package = serde_json::json!({ "name": "shop", "version": "1.2.3", "scripts": scripts });
    let text = serde_json::to_string_pretty(&package).unwrap();
    Disk {
        files: vec![
            "/srv/app/node_modules/tsx",
            "/srv/app/node_modules/.bin",
            "/srv/app/node_modules/.bin/tsx",
            "/srv/app/node_modules/.bin/next",
            "/srv/app/node_modules/.bin/prisma",
            "/srv/app/node_modules/.bin/pino-pretty",
            "/srv/node_modules/.bin",
            "/srv/node_modules/.bin/serve",
        ],
        packages: [("/srv/app", text)].into(),
    }
}

fn resolve(disk: &Disk, command: &str) -> Result<Option<Real>, Error> {
    let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
    real(&words, Path::new("/srv/app"), disk)
}

/// What is started, with variables that are not npm's before it.
fn started(disk: &Disk, command: &str) -> String {
    let real = match resolve(disk, command) {
        Ok(Some(real)) => real,
        Ok(None) => return "as it is".to_owned(),
        Err(error) => panic!("{command}: {error}"),
    };
    let own = |name: &str| !name.starts_with("npm_") && name != "INIT_CWD";
    let set = real.variables.into_iter().filter(|(name, _)| own(name));
    let set = set.map(|(name, value)| format!("{name}={value}"));
    set.chain(real.argv).collect::<Vec<_>>().join(" ")
}

fn refused(disk: &Disk, command: &str) -> String {
    let error = resolve(disk, command).unwrap_err();
    error.hint.map_or(error.message.clone(), |hint| format!("{}\nhint: {hint}", error.message))
}

#[test]
fn scripts_become_programs() {
    for (text, program) in [
        ("node server.js", "node server.js"),
        ("NODE_ENV=production node server.js", "NODE_ENV=production node server.js"),
        ("cross-env NODE_ENV=production node server.js", "NODE_ENV=production node server.js"),
        ("cross-env A=1 B='x y' tsx app.ts", "A=1 B=x y node --import tsx app.ts"),
        ("cross-env-shell A=1 \"node server.js\"", "A=1 node server.js"),
        ("env A=1 npm run other", "A=1 node other.js"),
        ("env A=1 node server.js", "env A=1 node server.js"),
        ("exec node server.js", "node server.js"),
        ("next start -p 3000", "next start -p 3000"),
        ("next dev", "next dev"),
        ("node --run other", "node --run other"),
        ("ts-node app.ts", "ts-node app.ts"),
        ("tsx src/app.ts", "node --import tsx src/app.ts"),
        ("npx tsx src/app.ts", "node --import tsx src/app.ts"),
        ("node --inspect node_modules/.bin/tsx app.ts", "node --inspect --import tsx app.ts"),
        ("npm run other -- --port 1", "node other.js --port 1"),
        ("yarn other", "node other.js"),
        ("pnpm run other a", "node other.js a"),
        ("corepack pnpm@9 other", "node other.js"),
        ("yarn next start", "next start"),
        ("pnpm exec next start", "next start"),
        ("npx --no-install next@14 start", "next start"),
        ("npx serve", "serve"),
        ("npm exec node server.js", "node server.js"),
        ("sh -c 'npm start'", "sh -c npm start"),
        // With a shell.
        ("node server.js --port $PORT", "/bin/sh -c exec node server.js --port $PORT"),
        ("cd dist && node server.js", "/bin/sh -c cd dist && exec node server.js"),
        ("A=1 node server.js > log 2>&1", "/bin/sh -c A=1 exec node server.js > log 2>&1"),
        ("test -d dist; exec node dist", "/bin/sh -c test -d dist; exec node dist"),
        ("node server.js || exit 1", "/bin/sh -c node server.js || exit 1"),
        ("node server.js | tee log", "/bin/sh -c node server.js | tee log"),
        ("node $(cat main)", "/bin/sh -c node $(cat main)"),
        ("./serve && true", "/bin/sh -c ./serve && true"),
    ] {
        let disk = disk(&[("start", text), ("other", "node other.js")]);
        assert_eq!(started(&disk, "npm start"), program, "{text}");
    }
}

#[test]
fn programs_before_the_last_do_not_take_the_channel() {
    let without = "env -u NODE_CHANNEL_FD -u NODE_UNIQUE_ID -u NODE_CHANNEL_SERIALIZATION_MODE";
    for (text, line) in [
        ("node migrate.js && node server.js", "W node migrate.js && exec node server.js"),
        (
            "A=1 prisma migrate deploy; node server.js",
            "A=1 W prisma migrate deploy; exec node server.js",
        ),
        ("npm run build && cd dist && node .", "W npm run build && cd dist && exec node ."),
        ("node a.js && tsx app.ts", "W node a.js && exec node --import tsx app.ts"),
        (
            "node a.js && X=1 cross-env A='b c' node app.js",
            "W node a.js && X=1 exec env A='b c' node app.js",
        ),
    ] {
        let disk = disk(&[("start", text)]);
        let expected = format!("/bin/sh -c {}", line.replace('W', without));
        assert_eq!(started(&disk, "npm start"), expected, "{text}");
    }
}

#[test]
fn commands_are_looked_at_as_scripts_are() {
    let disk = disk(&[("start", "node server.js"), ("greet", "echo \"$A\" && node x.js")]);
    for (command, program) in [
        ("node server.js", "as it is"),
        ("python3 app.py", "as it is"),
        ("next start", "as it is"),
        ("env A=1 node server.js", "as it is"),
        ("nest build", "as it is"),
        ("/usr/bin/npm start", "node server.js"),
        ("npm start -- a 'b", "node server.js a 'b"),
        ("node /usr/lib/node_modules/npm/bin/npm-cli.js start", "node server.js"),
        ("tsx --tsconfig t.json app.ts", "TSX_TSCONFIG_PATH=t.json node --import tsx app.ts"),
        ("node_modules/.bin/tsx app.ts", "node --import tsx app.ts"),
        ("npm run greet -- it's", r#"/bin/sh -c echo "$A" && exec node x.js 'it'\''s'"#),
        ("npx -c tsx", "cannot"),
    ] {
        if program == "cannot" {
            assert!(refused(&disk, command).contains("given no file"), "{command}");
        } else {
            assert_eq!(started(&disk, command), program, "{command}");
        }
    }
}

#[test]
fn a_script_has_its_surroundings() {
    let real = resolve(&disk(&[("start", "next start")]), "npm start").unwrap().unwrap();
    let bins = ["/srv/app/node_modules/.bin", "/srv/node_modules/.bin"].map(PathBuf::from);
    assert_eq!((real.path, real.folder), (bins.to_vec(), PathBuf::from("/srv/app")));
    let set: Vec<String> = real.variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        set,
        [
            "npm_lifecycle_event=start",
            "npm_lifecycle_script=next start",
            "npm_package_json=/srv/app/package.json",
            "npm_package_name=shop",
            "npm_package_version=1.2.3",
            "INIT_CWD=/srv/app",
        ]
    );
    let mut other = disk(&[("start", "npm --prefix ../web start")]);
    other
        .packages
        .insert("/srv/app/../web", "{\"scripts\": {\"start\": \"node w.js\"}}".to_owned());
    let real = resolve(&other, "npm start").unwrap().unwrap();
    assert_eq!(real.folder, PathBuf::from("/srv/app/../web"));
    assert_eq!(real.argv, ["node", "w.js"]);
    let node = resolve(&disk(&[("start", "node x")]), "/opt/bin/node node_modules/.bin/npm start");
    assert_eq!(node.unwrap().unwrap().path[0], PathBuf::from("/opt/bin"));
}

#[test]
fn a_server_is_the_default_start() {
    let mut disk = disk(&[]);
    disk.files.push("/srv/app/server.js");
    assert_eq!(started(&disk, "npm start"), "node server.js");
}

#[test]
fn what_cannot_be_known_says_what_to_write() {
    let place = "/srv/app/package.json:4";
    for (text, said) in [
        (
            "nodemon app.js",
            "'nodemon' starts the program again by itself when a file changes, as a child that gets no channel\nhint: write command = [\"node\", \"app.js\"]",
        ),
        (
            "pm2-runtime start app.js -i max -- -v",
            "'pm2-runtime' is a process manager itself, and keeps the channel\nhint: write command = [\"node\", \"app.js\", \"-v\"]",
        ),
        (
            "pm2 start app.js -i max",
            "'pm2' is a process manager itself, and keeps the channel\nhint: write command = [\"node\", \"app.js\"]",
        ),
        (
            "forever -c node app.js -v",
            "'forever' is a process manager itself, and keeps the channel\nhint: write command = [\"node\", \"app.js\", \"-v\"]",
        ),
        (
            "concurrently 'node a.js' 'node b.js'",
            "'concurrently' starts programs of its own, which get no channel\nhint: write the program that listens as 'command', and give each other one a file of its own",
        ),
        (
            "node --watch app.js",
            "'node --watch' starts the program as a child that gets no channel\nhint: leave '--watch' out: 'dogwatch reload' starts the new version",
        ),
        (
            "node app.js | pino-pretty",
            "both ends of the pipe are Node programs, and one channel cannot serve both\nhint: what workers print is logged as it is: write command = [\"node\", \"app.js\"]",
        ),
        (
            "cd web && npm start",
            "'cd web && npm start' starts it in another folder\nhint: set 'working-directory' to that folder, and write command = [\"npm\", \"start\"]",
        ),
        (
            "tsx app.ts --port $PORT",
            "'tsx app.ts --port $PORT' does too much to tell which program is to have the channel\nhint: write the program itself, as in command = [\"node\", \"server.js\"]",
        ),
        ("npm start", "'npm start' leads to itself, again and again"),
        ("npm run x && npm start", "'npm start' leads to itself, again and again"),
        ("node 'app.js", "a quote does not end"),
        ("", "the script is empty"),
        ("A=1", "the script starts no program"),
        (
            "npx http-server",
            "'http-server' is not among the installed programs (node_modules/.bin), and is not downloaded at each start\nhint: install it at deploy time ('npm install http-server')",
        ),
    ] {
        let scripts = [("start", text)];
        assert_eq!(
            refused(&disk(&scripts), "npm start"),
            format!("cannot start 'npm start': {place}: {said}"),
            "{text}"
        );
    }
}

#[test]
fn hooks_are_not_skipped_in_silence() {
    let disk = disk(&[("prestart", "npm run build"), ("start", "next start -p 80")]);
    assert_eq!(
        refused(&disk, "npm start"),
        "cannot start 'npm start': /srv/app/package.json:4: 'prestart' ('npm run build') would run with each worker\n\
         hint: run it at deploy time, and write command = [\"node_modules/.bin/next\", \"start\", \"-p\", \"80\"]"
    );
    assert_eq!(started(&disk, "npm start --ignore-scripts"), "next start -p 80");
}

#[test]
fn what_is_not_there_is_named() {
    let disk = disk(&[("serve", "node server.js"), ("build", "tsc")]);
    assert_eq!(
        refused(&disk, "npm run server"),
        "cannot start 'npm run server': /srv/app/package.json has no script 'server', only build, serve\n\
         hint: did you mean 'serve'?"
    );
    let nothing = Disk::default();
    assert_eq!(
        refused(&nothing, "npm start"),
        "cannot start 'npm start': there is no package.json in '/srv/app'\n\
         hint: set 'working-directory' to the folder of the package"
    );
    assert_eq!(
        refused(&nothing, "tsx app.ts"),
        "cannot start 'tsx app.ts': package 'tsx' is not installed for '/srv/app'\n\
         hint: run 'npm install tsx' in that folder"
    );
    let large = Disk { packages: [("/srv/app", "(too large)".to_owned())].into(), files: vec![] };
    assert_eq!(
        refused(&large, "npm start"),
        "cannot start 'npm start': cannot read '/srv/app/package.json': it is too large"
    );
}

#[test]
fn messages_are_one_line_and_bounded() {
    let disk = disk(&[("start", &format!("cd x && npm run {}\n\u{1b}[2J", "y".repeat(500)))]);
    let error = resolve(&disk, "npm start").unwrap_err();
    assert!(error.message.len() < 400 && !error.message.contains(char::is_control), "{error}");
}

#[test]
fn no_script_makes_it_panic_or_go_on_for_ever() {
    let parts = [
        "node",
        "npm",
        " start",
        " run ",
        "x",
        "npx ",
        "tsx ",
        " && ",
        "; ",
        " | ",
        "'",
        "\"",
        "\\",
        "$",
        "(",
        ")",
        " > ",
        "<<",
        "&",
        "cd ",
        "A=1 ",
        "env ",
        "cross-env ",
        "exec ",
        "\n",
        "#",
        "é",
        "--",
        " -",
        "nodemon ",
        "if ",
        "~",
        "*",
    ];
    let mut seed = 1_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..8 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.push_str(parts[usize::try_from(seed >> 33).unwrap() % parts.len()]);
        }
        let disk = disk(&[("start", &text), ("x", "npm run y && npm run x"), ("y", &text)]);
        let _ = resolve(&disk, "npm start");
        let _ = resolve(&disk, &text);
    }
    let long = "env ".repeat(10_000) + "cross-env npm start";
    let _ = resolve(&disk(&[("start", &long)]), "npm start");
    let long = disk(&[("start", &"a;".repeat(1 << 20))]);
    assert!(refused(&long, "npm start").ends_with("the script is longer than 64 KiB"));
}

#[test]
fn a_line_is_words_or_takes_a_shell_that_makes_room() {
    let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let argv = own(&["gunicorn", "a b", "app:app"]);
    let variables = vec![("A".to_owned(), "1".to_owned())];
    assert_eq!(line("A=1 exec gunicorn 'a b' app:app"), Ok(Line::Plain(variables, argv)));
    for (text, before, last) in [
        ("rake db && puma -p 1", &["rake db"][..], "puma -p 1"),
        ("cd x; A=1 puma", &["cd x"], "A=1 puma"),
        ("cd x && exec puma $X", &["cd x"], "exec puma $X"),
    ] {
        assert_eq!(line(text), Ok(Line::After(own(before), last.to_owned())), "{text}");
    }
    for (text, shell) in [
        ("A=$X puma", "A=$X exec puma"),
        ("exec puma $X", "exec puma $X"),
        ("puma | tee log", "puma | tee log"),
        ("puma & node x", "puma & node x"),
        ("a || b", "a || b"),
        ("puma $(nproc)", "puma $(nproc)"),
    ] {
        assert_eq!(line(text), Ok(Line::Shell(shell.to_owned())), "{text}");
    }
    assert_eq!(line("puma 'x").unwrap_err(), "a quote does not end");
    for text in ["", "  ", "\"\"", "# x"] {
        assert_eq!(line(text).unwrap_err(), "it names no program", "{text}");
    }
}
