//! Names come from files of others: none of them is markup, and none drives a terminal.

use qera_tests::daemon::{TestDaemon, expect};
use serde_json::json;

use crate::{BINARY, page, table, write_generation};

const NAMES: [&str; 6] = [
    "h.0.<script>alert(1)</script>",
    "h.0.\"><img src=x onerror=alert(1)>",
    "h.0.</style><b>bold</b>",
    "h.0.'&amp;{{ 7 * 7 }}{% raw %}",
    "h.0.q\u{1b}[2J\r\nforged: line",
    "h.0.\u{202e}reversed",
];

#[test]
fn no_name_is_markup() {
    let daemon = TestDaemon::new(BINARY);
    let layer = |name: &&str| {
        json!({
            "name": name, "status": *name, "rank_asked": 8, "rank_used": 8, "quantizer": name,
            "shrinkage": 0.5, "shrinkage_origin": name, "rows": 9,
            "error": {"relative_without": 0.2, "relative_with": 0.1},
        })
    };
    let mut layers: Vec<_> = NAMES.iter().map(layer).collect();
    for (index, name) in NAMES.iter().enumerate() {
        let mut solved = layer(name);
        solved["status"] = "solved".into();
        solved["name"] = format!("{name}.{index}").into();
        layers.push(solved);
    }
    let types = json!({"types": NAMES, "bits": 5.5});
    write_generation(
        &daemon.path().join("qera-out"),
        &json!({
            "manifest_version": 4, "qera_version": NAMES[1], "settings": {"method": NAMES[0]},
            "quantized": {"path": NAMES[1]}, "layers": layers,
            "bits_per_weight": {
                "base": 4.5, "base_as": NAMES[2], "adapter": 1.0, "both": 5.5,
                "next_to_base": types, "next_to_both": null,
            },
            "inputs": {"shards": 1, "quarantined": NAMES},
            "passed_over": [{"tensors": NAMES[0], "count": 1, "why": NAMES[1], "share": 0.5}],
        }),
    );
    let page = page(&daemon, &[]);
    for markup in [
        "<script",
        "<img",
        "<b>bold",
        "</style><b>",
        "\u{1b}",
        "\nforged",
    ] {
        assert!(!page.contains(markup), "{markup:?}");
    }
    assert_eq!(page.matches("</style>").count(), 1);
    for name in NAMES.iter().take(2) {
        let escaped = name
            .replace('<', "&#60;")
            .replace('>', "&#62;")
            .replace('"', "&#34;");
        assert!(page.contains(&escaped), "{escaped}");
    }
    assert!(page.contains("{{ 7 * 7 }}"), "a name is no template");

    let table = table(&daemon, &[]);
    expect(&table, 0, &[]);
    let drives = |c: char| c != '\n' && c.is_control();
    assert!(!table.output.contains(drives), "{:?}", table.output);
    assert!(!table.output.contains("\nforged"), "{}", table.output);
}
