//! Nothing is left for later.

use crate::sources::{assert_none, sources};

/// A test that does not run is no test, and what is unfinished is not committed.
#[test]
fn nothing_is_ignored_or_left_unfinished() {
    let markers = [
        concat!("#[", "ignore"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
    ];
    let mut findings = Vec::new();
    for source in sources("rs") {
        findings.extend(
            markers
                .iter()
                .filter(|marker| source.text.contains(**marker))
                .map(|marker| format!("{}: {marker}", source.path)),
        );
    }
    assert_none("ignored tests and unfinished code", &findings);
}
