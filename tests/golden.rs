//! What Node 18, 20, 22 and 24 say on the channel, byte for byte as it was recorded from them, and what we understand.
//! `BLESS=1` writes down what is understood now; look at the difference before it is committed.

use dogwatch::protocol::node::parse;
use std::path::Path;

#[test]
fn what_node_says_is_understood() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/node.txt");
    let recorded = std::fs::read_to_string(&path).unwrap();
    let mut understood = String::new();
    for line in recorded.lines().filter(|line| !line.starts_with("    ")) {
        understood.push_str(line);
        understood.push('\n');
        if !line.starts_with('#') {
            understood.push_str(&format!("    {:?}\n", parse(line.as_bytes())));
        }
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &understood).unwrap();
    }
    assert_eq!(recorded, understood);
}
