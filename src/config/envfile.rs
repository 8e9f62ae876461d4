//! Environment files, read as systemd reads them (`EnvironmentFile=` in `systemd.exec(5)`), which no crate does: the
//! dotenv family expands variables and knows `export`, and a value must not change when an app moves here.

use super::Error;
use super::values::is_variable_name;

/// Returns the variables of a file, in order. `name` is the file's, for the error.
///
/// Lines that are empty or begin with `#` or `;` are comments. Values may be quoted, single or double; a backslash
/// takes the next character as it is, and at the end of a line joins the next one.
///
/// # Errors
/// Names the line that is no assignment, or the quote that does not end.
pub fn parse(name: &str, text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut variables = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let at = format!("{name}:{}", number + 1);
        let error = |message: &str| Error { message: format!("{at}: {message}"), hint: None };
        let (key, rest) =
            line.split_once('=').ok_or_else(|| error("not an assignment, expected NAME=VALUE"))?;
        let key = key.trim_end();
        if !is_variable_name(key) {
            return Err(error(&format!("'{key}' cannot be the name of a variable")));
        }
        let mut raw = rest.to_owned();
        let value = loop {
            match unquote(&raw) {
                Ok(value) => break value,
                Err(Open) => {
                    let (_, next) = lines.next().ok_or_else(|| error("the value does not end"))?;
                    raw.push('\n');
                    raw.push_str(next);
                }
            }
        };
        variables.push((key.to_owned(), value));
    }
    Ok(variables)
}

/// The value goes on in the next line.
struct Open;

fn unquote(raw: &str) -> Result<String, Open> {
    let mut value = String::new();
    let mut kept = 0;
    let mut quote = None;
    let mut chars = raw.trim_start_matches([' ', '\t']).chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\\') => value.push('\\'),
            (_, '\\') => match chars.next() {
                None => return Err(Open),
                Some('\n') => {}
                // systemd.exec(5): inside double quotes only these lose their meaning.
                Some(c) if quote == Some('"') && !"\"\\`$".contains(c) => value.extend(['\\', c]),
                Some(c) => value.push(c),
            },
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ' | '\t') => {
                value.push(c);
                continue;
            }
            (_, c) => value.push(c),
        }
        kept = value.len();
    }
    if quote.is_some() {
        return Err(Open);
    }
    value.truncate(kept);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_systemd_reads_them() {
        let text = "# comment\n; too\n\nA=1\nB = two words  \nC=\"quoted \\\"x\\\" \\n $Y\"\nD='it''s \\ raw'\n\
                    E=one\\\ntwo\nF=\nG=a\\ b\nH=\"two\nlines\"\n";
        let read = parse("app.env", text).unwrap();
        let read: Vec<_> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            read,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", "quoted \"x\" \\n $Y"),
                ("D", "its \\ raw"),
                ("E", "onetwo"),
                ("F", ""),
                ("G", "a b"),
                ("H", "two\nlines"),
            ]
        );
    }

    #[test]
    fn what_is_no_assignment_names_its_line() {
        let error = |text| parse("app.env", text).unwrap_err().message;
        assert_eq!(error("A=1\nexport B\n"), "app.env:2: not an assignment, expected NAME=VALUE");
        assert_eq!(error("1A=1"), "app.env:1: '1A' cannot be the name of a variable");
        assert_eq!(error("A=\"open"), "app.env:1: the value does not end");
    }
}
