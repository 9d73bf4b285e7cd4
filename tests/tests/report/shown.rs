//! Every layer is there, with the manifest's figures; generations of one state stand beside each
//! other.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::published;
use qera_tests::live::Live;
use qera_tests::three_layers::{
    daemon_with_shards, daemon_without_shards, live_with, once_with, write_rows_of_both_sites,
};
use serde_json::Value;

use crate::{BINARY, cells, page, table};

fn percent_of(share: &Value) -> String {
    let of = 100.0 * share.as_f64().unwrap();
    let decimals = match of {
        of if of >= 100.0 => 0,
        of if of >= 10.0 => 1,
        of if of >= 1.0 => 2,
        _ => 3,
    };
    format!("{of:.decimals$} %")
}

/// The rows of the table of layers, by the first cell.
fn assert_shows(page: &str, manifest: &Value) {
    let listed = page.split("<h2>All layers</h2>").nth(1).unwrap();
    let rows: Vec<_> = listed.split("<tr>").skip(1).collect();
    for layer in manifest["layers"].as_array().unwrap() {
        let name = layer["name"].as_str().unwrap();
        let row = rows
            .iter()
            .find(|row| row.contains(&format!(">{name}</th>")))
            .unwrap();
        let cells = cells(row, "td");
        assert_eq!(cells[0], layer["status"].as_str().unwrap());
        let error = &layer["error"];
        assert_eq!(cells[2], percent_of(&error["relative_without"]), "{name}");
        assert_eq!(cells[3], percent_of(&error["relative_with"]), "{name}");
        let held = &layer["held_out_error"];
        let left = held["mean"].as_f64().unwrap() / held["mean_without"].as_f64().unwrap();
        let half = held["half_width"].as_f64().unwrap() / held["mean_without"].as_f64().unwrap();
        let said = format!("{} ± {:.1}", percent_of(&left.into()), 100.0 * half);
        assert_eq!(cells[5], said, "{name}");
        let rank = format!("{} of {}", layer["rank_used"], layer["rank_asked"]);
        assert_eq!(cells[7], rank, "{name}");
        assert_eq!(cells[8], layer["quantizer"].as_str().unwrap());
    }
}

fn two_generations() -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    for number in 0..4 {
        write_rows_of_both_sites(&daemon, &format!("shard-{number}"), number as f32);
        if number % 2 == 1 {
            expect(&daemon.run(&once_with(&["--shrinkage", "0.1"])), 0, &[]);
        }
    }
    daemon
}

#[test]
fn every_layer_is_shown_as_the_manifest_says() {
    let daemon = two_generations();
    let page = page(&daemon, &[]);
    let manifest = daemon.manifest("qera-out");
    assert_shows(&page, &manifest);
    assert_eq!(manifest["generation"], 2);
    let bits = &manifest["bits_per_weight"];
    let of = |part: &str| format!("{:.2}", bits[part].as_f64().unwrap());
    let said = format!("{} bits a weight", of("base"));
    assert!(page.contains(&said) && page.contains(&of("both")), "{said}");
    for passed in manifest["passed_over"].as_array().unwrap() {
        assert!(page.contains(passed["tensors"].as_str().unwrap()));
        assert!(page.contains(passed["why"].as_str().unwrap()));
    }
    // Both generations, with the rows that each had.
    let history = page.split("<h2>Generations over rows</h2>").nth(1).unwrap();
    let history = history.split("<h2>").next().unwrap();
    assert!(history.contains("<svg"), "{history}");
    for (number, rows) in [(1, 600), (2, 1_200)] {
        let rows = if rows < 1_000 {
            rows.to_string()
        } else {
            "1,200".into()
        };
        let said = format!("<th scope=\"row\">{number}</th><td>{rows}</td>");
        assert!(history.contains(&said), "{said}: {history}");
    }
    // The state that lies in the output folder is asked without being named.
    assert!(page.contains("No daemon works with it."), "{page}");
    assert!(page.contains("It holds 4 shards"), "{page}");

    let table = table(&daemon, &[]);
    expect(&table, 0, &[]);
    for said in [
        "generation 2: 3 of 3 layers",
        "generation 1: 600 rows",
        "not corrected: ",
    ] {
        assert!(table.output.contains(said), "{said}: {}", table.output);
    }
}

#[test]
fn a_page_needs_nothing_else() {
    let daemon = two_generations();
    let page = page(&daemon, &[]);
    assert!(page.len() < 1_000_000, "{}", page.len());
    for absent in ["<script", "<link", "<img", "@import", "url(", "src="] {
        assert!(!page.contains(absent), "{absent}");
    }
    // The name space of a drawing is no address that is asked.
    let addresses = page.matches("http").count();
    assert_eq!(
        addresses,
        page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count()
    );
    assert!(page.contains("prefers-color-scheme: dark"));
}

/// Nothing is locked, and nothing waits for a lock.
#[test]
fn a_running_daemon_is_not_disturbed() {
    let daemon = daemon_with_shards(BINARY);
    let mut live = Live::start(daemon.command(&live_with(&[])));
    live.wait_for(&published(4));
    let page = page(&daemon, &["--out", "qera-out"]);
    assert!(page.contains("A daemon works with it: "), "{page}");
    assert_shows(&page, &daemon.manifest("qera-out"));
    assert_eq!(live.stop(), Some(0));
}
