//! Python: the app object is found by reading, and served by what is declared or installed.

use super::Sign;
use super::project::{FOREIGN, Project};
use super::write::listen;
use crate::cli::draft::{Draft, Table};
use crate::cli::import::gunicorn;
use crate::cli::import::serve::{asgi_ready, program, socket_of, told};
use crate::cli::place::text;
use crate::cli::trouble::Unusable;
use std::fmt;
use std::path::Path;

/// Where apps are, as a rule.
const MODULES: [&str; 12] = [
    "asgi.py",
    "wsgi.py",
    "main.py",
    "app.py",
    "application.py",
    "server.py",
    "api.py",
    "run.py",
    "app/main.py",
    "src/main.py",
    "app/__init__.py",
    "src/app.py",
];

/// What an app of ASGI is made by, and one of WSGI.
const ASGI: [&str; 7] = [
    "FastAPI(",
    "Starlette(",
    "Quart(",
    "Litestar(",
    "BlackSheep(",
    "get_asgi_application(",
    "falcon.asgi.App(",
];
const WSGI: [&str; 7] = [
    "Flask(",
    "Bottle(",
    "get_wsgi_application(",
    "falcon.App(",
    "falcon.API(",
    "default_app(",
    "make_wsgi_app(",
];

/// Where dependencies are declared.
const DECLARED: [&str; 9] = [
    "requirements.txt",
    "requirements/base.txt",
    "requirements/production.txt",
    "requirements-prod.txt",
    "pyproject.toml",
    "Pipfile",
    "setup.py",
    "setup.cfg",
    "uv.lock",
];

/// What says that a worker takes its socket by itself.
const BY_HAND: [&str; 4] = ["LISTEN_FDS", "fileno=3", "fromfd(3", "listen_fds("];

/// Folders whose apps are not what the project serves.
const ASIDE: [&str; 8] =
    ["tests", "test", "mocks", "mock", "examples", "example", "docs", "scripts"];

/// What says that it is a project of Python's.
const PROJECT: [&str; 4] = ["manage.py", "pyproject.toml", "requirements.txt", "Pipfile"];

/// Folders of an environment of the project's own.
const ENVIRONMENTS: [&str; 3] = ["venv", ".venv", "env"];

/// An app object in a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct App {
    module: String,
    name: String,
    is_asgi: bool,
    /// It is a function that makes the app.
    is_factory: bool,
    file: String,
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = if self.is_factory && !self.is_asgi { "()" } else { "" };
        write!(f, "{}:{}{call}", self.module, self.name)
    }
}

/// Returns the app that gunicorn would serve in a folder: of several the WSGI one.
pub(in crate::cli) fn gunicorns_app(folder: &Path) -> Option<App> {
    let apps = apps(folder);
    apps.iter().find(|app| !app.is_asgi).or_else(|| apps.first()).cloned()
}

/// The apps in a folder, the likeliest first.
fn apps(folder: &Path) -> Vec<App> {
    let mut names: Vec<String> = MODULES.map(str::to_owned).to_vec();
    // Django's are in the package of the project; those of uv and Poetry below src/.
    let packages = [packages(folder, ""), packages(folder, "src/")].concat();
    for module in ["asgi.py", "wsgi.py", "main.py", "app.py", "__init__.py"] {
        names.extend(packages.iter().map(|package| format!("{package}/{module}")));
    }
    let mut found: Vec<App> = vec![];
    for name in names {
        let file = folder.join(&name);
        if !file.is_file() || found.iter().any(|app| app.file == name) {
            continue;
        }
        let Ok(text) = text(&file) else { continue };
        found.extend(in_text(&name, &text));
    }
    found
}

/// The packages in a folder, as paths from above it.
fn packages(folder: &Path, below: &str) -> Vec<String> {
    let mut packages: Vec<String> = std::fs::read_dir(folder.join(below))
        .into_iter()
        .flatten()
        .flatten()
        .take(1000)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .filter(|name| !ASIDE.contains(&name.as_str()) && !FOREIGN.contains(&name.as_str()))
        .map(|name| format!("{below}{name}"))
        .collect();
    packages.sort();
    packages
}

/// The app in the text of a module.
fn in_text(file: &str, text: &str) -> Option<App> {
    let module = file.strip_suffix(".py")?;
    let module = module.strip_suffix("/__init__").unwrap_or(module);
    let module = module.strip_prefix("src/").unwrap_or(module).replace('/', ".");
    let made = |line: &str, made_by: &[&str]| made_by.iter().any(|call| line.contains(call));
    let app = |name: &str, is_asgi, is_factory| App {
        module: module.clone(),
        name: name.to_owned(),
        is_asgi,
        is_factory,
        file: file.to_owned(),
    };
    let is_name = |name: &str| {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(valid)
    };
    for line in text.lines().filter(|line| !line.starts_with([' ', '\t', '#'])) {
        let Some((name, value)) = line.split_once('=') else { continue };
        let name = name.split(':').next().unwrap_or(name).trim();
        if !is_name(name) || value.starts_with('=') {
            continue;
        }
        if made(value, &ASGI) || made(value, &WSGI) {
            return Some(app(name, made(value, &ASGI), false));
        }
        let is_made =
            ["create_app(", "make_app(", "build_app("].iter().any(|call| value.contains(call));
        if is_made && ["app", "application"].contains(&name) {
            return Some(app(name, file.ends_with("asgi.py"), false));
        }
    }
    for name in ["app", "application"] {
        let begins =
            |begin: &str| text.lines().any(|line| line.starts_with(&format!("{begin} {name}(")));
        if begins("async def") && text.contains("scope") {
            return Some(app(name, true, false));
        }
        if begins("def") && text.contains("environ") {
            return Some(app(name, false, false));
        }
    }
    let factory = ["create_app", "make_app"]
        .into_iter()
        .find(|name| text.lines().any(|line| line.starts_with(&format!("def {name}("))))?;
    (made(text, &ASGI) || made(text, &WSGI)).then(|| app(factory, made(text, &ASGI), true))
}

/// A program that takes its socket by itself.
fn by_hand(project: &Project) -> Option<String> {
    ["server.py", "app.py", "main.py"].into_iter().find_map(|name| {
        let text = project.text(name)?;
        BY_HAND.iter().any(|word| text.contains(word)).then(|| name.to_owned())
    })
}

pub(super) fn seen(project: &Project) -> Option<Sign> {
    let file = PROJECT.into_iter().find(|name| project.has(name));
    if let Some(app) = chosen(project) {
        // An app.py may be in a folder of any project's.
        let is_usual = MODULES.contains(&app.file.as_str()) || app.file.ends_with("sgi.py");
        let text = format!("{} has the app '{}'", app.file, app.name);
        return Some(Sign { text, is_sure: is_usual || file.is_some() });
    }
    if let Some(file) = by_hand(project) {
        return Some(Sign::sure(format!("{file} takes its socket from systemd")));
    }
    Some(Sign::weak(format!("there is {}", file?)))
}

pub(super) fn called(project: &Project) -> Option<String> {
    let text = project.text("pyproject.toml")?;
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(_) => {
            project.note("'pyproject.toml' was not looked at: not valid TOML".to_owned());
            return None;
        }
    };
    let own = table.get("project").and_then(|project| project.get("name"));
    let poetry = table.get("tool").and_then(|tool| tool.get("poetry")?.get("name"));
    own.or(poetry)?.as_str().map(str::to_owned)
}

/// Whether a package is declared anywhere, or installed in the project's environment.
fn has(project: &Project, package: &str) -> bool {
    let is_there = |name: &str| project.text(name).is_some_and(|text| declares(&text, package));
    program(package, &project.folder).contains('/') || DECLARED.into_iter().any(is_there)
}

/// Whether a text names a package as a word of its own.
fn declares(text: &str, package: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let is_part =
        |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    text.match_indices(package).any(|(at, _)| {
        !is_part(text[..at].chars().next_back())
            && !is_part(text[at + package.len()..].chars().next())
    })
}

/// The app that is served: of Django's two the one that there is a server for.
fn chosen(project: &Project) -> Option<App> {
    let apps = apps(&project.folder);
    let wants_asgi =
        has(project, "channels") || (!has(project, "gunicorn") && has(project, "uvicorn"));
    let wanted = apps.iter().find(|app| app.is_asgi == wants_asgi);
    wanted.filter(|_| project.has("manage.py")).or_else(|| apps.first()).cloned()
}

pub(super) fn write(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    match chosen(project) {
        Some(app) if app.is_asgi => asgi(project, &app, draft),
        Some(app) => wsgi(project, &app, draft),
        None => match by_hand(project) {
            Some(file) => own(project, &file, draft),
            None => return Err(unknown()),
        },
    }
    Ok(())
}

fn unknown() -> Unusable {
    Unusable::from("it is Python, but no app is to be seen: no line like 'app = FastAPI()' or 'app = Flask(__name__)' in main.py, app.py, wsgi.py, asgi.py or a package's")
        .hint("name it in a Procfile, like 'web: gunicorn MODULE:NAME', and call 'dogwatch init' again")
}

/// The program of a server, and what is to be said if it is missing.
fn server(project: &Project, name: &str, draft: &mut Draft) -> String {
    let own = program(name, &project.folder);
    if own.contains('/') {
        return own;
    }
    let environment =
        ENVIRONMENTS.into_iter().find(|folder| project.has_folder(&format!("{folder}/bin")));
    let (command, pip) = match environment {
        Some(folder) => {
            (format!("{folder}/bin/{name}"), format!("{folder}/bin/pip install {name}"))
        }
        None => (name.to_owned(), format!("python3 -m venv venv && venv/bin/pip install {name}")),
    };
    if environment.is_some() || project.place.which(name).is_none() {
        let text = format!("'{name}' is not installed where the app would find it: '{pip}'");
        draft.remark_at(Table::Top, "command", "command", text);
    }
    command
}

/// Modules below src/ are found from there.
fn search(app: &App, draft: &mut Draft) {
    if app.file.starts_with("src/") {
        draft.set(Table::Env, "PYTHONPATH", "src");
        draft.note(Table::Env, "PYTHONPATH", format!("for {}", app.file));
    }
}

fn asgi(project: &Project, app: &App, draft: &mut Draft) {
    let name = ["uvicorn", "hypercorn", "daphne"].into_iter().find(|name| has(project, name));
    let gunicorns = name.is_none() && has(project, "gunicorn");
    let name = name.unwrap_or("uvicorn");
    let mut command = vec![server(project, name, draft)];
    let socket = socket_of(name);
    command.extend(socket.iter().map(|word| (*word).to_owned()));
    if app.is_factory && name == "uvicorn" {
        command.push("--factory".to_owned());
    }
    command.push(format!(
        "{}:{}{}",
        app.module,
        app.name,
        if app.is_factory && name == "hypercorn" { "()" } else { "" }
    ));
    draft.set(Table::Top, "command", command);
    draft.note(Table::Top, "command", format!("the app is in {}; {}", app.file, told(socket)));
    if gunicorns {
        draft.remark_at(
            Table::Top,
            "command",
            "gunicorn",
            "an ASGI app is served by uvicorn itself, without gunicorn between",
        );
    }
    search(app, draft);
    listen(project, None, (8000, "the usual port of ASGI servers"), draft);
    asgi_ready(draft);
}

fn wsgi(project: &Project, app: &App, draft: &mut Draft) {
    if !has(project, "gunicorn") {
        for (name, text) in [
            ("waitress", "opens its port by itself"),
            ("uwsgi", "has processes and a reload of its own"),
        ] {
            if has(project, name) {
                let text = format!(
                    "it {text}, so gunicorn is written here: it takes the socket from dogwatch"
                );
                draft.remark_at(Table::Top, "command", name, text);
            }
        }
    }
    let command =
        vec![server(project, "gunicorn", draft), "-w".to_owned(), "1".to_owned(), app.to_string()];
    draft.set(Table::Top, "command", command);
    draft.note(Table::Top, "command", format!("the app is in {}", app.file));
    if project.has("gunicorn.conf.py") {
        let text = "gunicorn.conf.py goes on being read, and was not run here: 'dogwatch import gunicorn.conf.py' takes over what it says";
        draft.remark_at(Table::Top, "command", "gunicorn", text);
    }
    search(app, draft);
    listen(project, None, (8000, "the usual port of WSGI servers"), draft);
    gunicorn::ready(draft);
}

/// A program that asks nobody.
fn own(project: &Project, file: &str, draft: &mut Draft) {
    let python = program("python3", &project.folder);
    draft.set(Table::Top, "command", vec![python, file.to_owned()]);
    draft.note(Table::Top, "command", format!("{file} takes file descriptor 3 by itself"));
    draft.set(Table::Top, "handoff", "fd");
    listen(project, None, (8080, "nothing says another port"), draft);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(file: &str, text: &str) -> Option<(String, bool)> {
        in_text(file, text).map(|app| (app.to_string(), app.is_asgi))
    }

    #[test]
    fn app_objects_are_found_by_reading() {
        for (file, text, found, is_asgi) in [
            ("main.py", "app = FastAPI()\n", "main:app", true),
            ("app/main.py", "api: FastAPI = FastAPI(title=\"=\")", "app.main:api", true),
            ("app.py", "import x\nserver=Flask(__name__)", "app:server", false),
            (
                "shop/wsgi.py",
                "application = get_wsgi_application()",
                "shop.wsgi:application",
                false,
            ),
            ("shop/asgi.py", "application = get_asgi_application()", "shop.asgi:application", true),
            ("src/app.py", "app = bottle.default_app()", "app:app", false),
            (
                "app/__init__.py",
                "def create_app(x=1):\n    app = Flask(__name__)",
                "app:create_app()",
                false,
            ),
            ("main.py", "def create_app():\n    return FastAPI()", "main:create_app", true),
            ("wsgi.py", "def application(environ, start_response):", "wsgi:application", false),
            ("main.py", "async def app(scope, receive, send):", "main:app", true),
            ("wsgi.py", "from shop import create_app\napp = create_app()", "wsgi:app", false),
        ] {
            assert_eq!(app(file, text), Some((found.to_owned(), is_asgi)), "{file}");
        }
        for text in [
            "",
            "    app = FastAPI()",
            "# app = Flask()",
            "app == Flask(",
            "a.b = Flask(x)",
            "é = Flask(x)",
        ] {
            assert_eq!(app("main.py", text), None, "{text}");
        }
    }

    #[test]
    fn packages_are_declared_as_words() {
        for (text, is_there) in [
            ("uvicorn==0.30", true),
            ("dependencies = [\"uvicorn[standard]>=0.1\"]", true),
            ("Uvicorn\n", true),
            ("uvicorn-worker", false),
            ("myuvicorn", false),
        ] {
            assert_eq!(declares(text, "uvicorn"), is_there, "{text}");
        }
    }
}
