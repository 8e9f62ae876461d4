//! Which argument of a command is the file that an interpreter runs.

use crate::cli::run::interpreter;
use std::path::Path;

/// Flags that take no word of their own. After any other, what follows may be its word, or code, or a module.
const PLAIN: [&str; 6] = ["-u", "-O", "-OO", "-E", "-s", "--enable-source-maps"];

/// What scripts end in. `java com.example.Main` and `bun start.dev` are no files.
const ENDINGS: [&str; 19] = [
    "py", "pyz", "pyc", "js", "mjs", "cjs", "ts", "mts", "cts", "tsx", "jsx", "rb", "php", "phar",
    "pl", "psgi", "sh", "bash", "jar",
];

/// Returns the file that the interpreter opens under exactly this name; `None` where that is not sure.
pub(super) fn named(command: &[String]) -> Option<&str> {
    let (program, arguments) = command.split_first()?;
    let interpreter = interpreter(program)?;
    let script = match arguments.iter().position(|word| !PLAIN.contains(&word.as_str()))? {
        at if interpreter == "java" => arguments.get(at + 1).filter(|_| arguments[at] == "-jar")?,
        at => &arguments[at],
    };
    if script.starts_with('-') || script.contains("://") {
        return None;
    }
    let ending = Path::new(script).extension().and_then(|ending| ending.to_str());
    // These try endings of their own, and folders.
    let is_exact = !matches!(interpreter, "node" | "bun" | "deno" | "java");
    let is_file = ending.is_some_and(|ending| ENDINGS.contains(&ending));
    (is_file || is_exact && script.contains('/')).then_some(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_what_is_sure_to_be_a_file() {
        for (command, script) in [
            ("python3 app.py", Some("app.py")),
            ("/srv/a/venv/bin/python3.12 -u /home/u/app.py --port 1", Some("/home/u/app.py")),
            ("python3 bin/serve", Some("bin/serve")),
            ("node --enable-source-maps dist/main.js", Some("dist/main.js")),
            ("java -jar app.jar", Some("app.jar")),
            ("php artisan serve", None),
            ("python3 -m app.py", None),
            ("python3 -c import/os", None),
            ("node -e a/b.js", None),
            ("node -r ./setup.js app.js", None),
            ("node dist/main", None),
            ("node .", None),
            ("java com.example.Main", None),
            ("java -cp x.jar Main", None),
            ("deno run server.ts", None),
            ("bun start.dev", None),
            ("gunicorn app.py", None),
            ("python3", None),
        ] {
            let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(named(&command), script, "{command:?}");
        }
    }
}
