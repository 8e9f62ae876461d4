//! Arguments that are written as one text, split as PM2 splits them.

/// Splits arguments as PM2 does: at spaces, but not within quotes, which are taken off only where they are around a whole
/// word, and not in `name="two words"`, where they stay.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = vec![];
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let length = word(rest);
        let (taken, after) = rest.split_at(length);
        let inner = ['"', '\''].iter().find_map(|quote| {
            let inner = taken.strip_prefix(*quote)?.strip_suffix(*quote)?;
            Some(inner)
        });
        words.push(inner.unwrap_or(taken).to_owned());
        rest = after.trim_start();
    }
    words.retain(|word| !matches!(word.trim(), "" | "\"" | "'"));
    words
}

/// The length of the first word.
fn word(text: &str) -> usize {
    let quoted = |from: usize| {
        let quote = text[from..].chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let end = text[from + 1..].find(quote)?;
        Some(from + 1 + end + 1)
    };
    let special = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '=');
    let assigned = text.find(special).filter(|at| *at > 0 && text[*at..].starts_with('='));
    assigned
        .and_then(|at| quoted(at + 1))
        .or_else(|| quoted(0))
        .unwrap_or_else(|| text.find(char::is_whitespace).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_pm2_splits_them() {
        for (text, expected) in [
            ("--a  b\tc", vec!["--a", "b", "c"]),
            (r#"-m "two words" 'three'"#, vec!["-m", "two words", "three"]),
            (r#"--title="two words" x"#, vec![r#"--title="two words""#, "x"]),
            ("--title='a b'", vec!["--title='a b'"]),
            (r#"it's "open"#, vec!["it's", "\"open"]),
            (r#""" a"#, vec!["a"]),
            (r#"a"b c"d"#, vec!["a\"b", "c\"d"]),
            ("é=1 ü", vec!["é=1", "ü"]),
            ("", vec![]),
            ("  ", vec![]),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
