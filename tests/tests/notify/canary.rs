//! A generation that is worse on a text of the user's is not served, and never told again.

use std::fs;

use qera_tests::event::event;
use qera_tests::output_folder::generations;
use qera_tests::three_layers::write_rows_of_both_sites;

use super::server::Server;
use super::{RunningDaemon, begin, generation, start};

/// Gives all generations from this one on the loss.
fn losses_from(server: &Server, first: u64, loss: f64) {
    (first..first + 50).for_each(|number| server.set_loss(number, loss));
}

#[test]
fn a_worse_one_is_not_served_and_never_told_again_on_any_side_of_a_restart() {
    let text = tempfile_with("Nine bean rows will I have there, a hive for the honey bee.");
    let server = Server::start();
    let option = server.option(&format!(",canary={}", text.path().display()));
    let running = begin(&["--notify", &option]);
    write_rows_of_both_sites(&running.daemon, "a", 0.0);
    let good = running.rest_at(1);
    let RunningDaemon { daemon, mut live } = running;
    losses_from(&server, good + 1, 1.02);
    write_rows_of_both_sites(&daemon, "b", 1.0);
    live.wait_for(
        &event("canary")
            .with("accepted", false)
            .with("best_loss", 1.0),
    );
    let status = daemon.wait_until_idle(2);
    server.wait_for_looks(5);
    let worse = status["generation"].as_u64().unwrap();
    let brief = format!("load qera-canary {worse:06}");
    assert_eq!(server.count(&brief), 1, "{:?}", server.told());
    assert_eq!(server.root("qera"), Some(generation(&daemon, good)));
    assert_eq!(server.root("qera-canary"), None);
    let shown = &daemon.status()["servers"][0];
    assert_eq!(shown["generation"], good);
    assert!(
        shown["rejected"]
            .as_array()
            .unwrap()
            .contains(&worse.into())
    );
    assert_eq!(live.stop(), Some(0), "{}", live.log);

    // Both begin anew: the one that was good is loaded, the worse one is not even asked.
    let address = server.address();
    drop(server);
    let server = Server::at(address);
    let mut live = start(&daemon, &["--notify", &option]);
    live.wait_for(
        &event("served")
            .with("generation", good)
            .with("swap", "loaded"),
    );
    server.wait_for_looks(3);
    assert_eq!(server.told(), [format!("load qera {good:06}")]);

    // The next one is within 1 % of the best.
    losses_from(&server, worse + 1, 1.009);
    write_rows_of_both_sites(&daemon, "c", 2.0);
    live.wait_for(
        &event("canary")
            .with("accepted", true)
            .with("best_loss", 1.0),
    );
    live.wait_for(&event("served").at_least("generation", worse + 1));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(generations(&daemon.path().join("qera-out")).contains(&worse));
}

fn tempfile_with(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}
