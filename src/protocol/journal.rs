//! The two ways into the journal: stream headers and native entries (`systemd-journald.service(8)`,
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! libsystemd's `journal_send` sends on a blocking socket, and a primary must not wait for a journal that is slow
//! or stopped; so the entry is encoded here and sent by `primary::log` on a socket that does not block.

/// Where journald accepts streams.
pub const STREAM_SOCKET: &str = "/run/systemd/journal/stdout";
/// Where journald receives native entries.
pub const NATIVE_SOCKET: &str = "/run/systemd/journal/socket";

/// Returns what a stream begins with: identifier, unit (left to journald, which knows the writer's cgroup), priority
/// 6 (informational), prefixes like `<3>` understood, nothing forwarded.
#[must_use]
pub fn stream_header(identifier: &str) -> String {
    format!("{}\n\n6\n1\n0\n0\n0\n", identifier.replace('\n', " "))
}

/// Returns a native entry. Names are ours and valid; values may hold anything.
#[must_use]
pub fn native_entry(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut entry = Vec::new();
    for (name, value) in fields {
        entry.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_with_seven_lines() {
        assert_eq!(stream_header("myapp/3"), "myapp/3\n\n6\n1\n0\n0\n0\n");
        assert_eq!(stream_header("a\nb").lines().count(), 7);
    }

    #[test]
    fn values_with_newlines_carry_their_length() {
        let entry = native_entry(&[("PRIORITY", "6"), ("MESSAGE", "a\nb")]);
        assert_eq!(entry, b"PRIORITY=6\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
    }
}
