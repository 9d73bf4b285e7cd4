//! A generation that a server may read is not pruned.

use qera_tests::daemon::TestDaemon;
use qera_tests::event::event;
use qera_tests::live::Live;
use qera_tests::output_folder::generations;
use qera_tests::three_layers::write_rows_of_both_sites;

use super::server::{Fault, LOAD, Server};
use super::{RunningDaemon, begin, start};

/// Publishes so many generations more, one by one.
fn publish(daemon: &TestDaemon, live: &mut Live, name: &str, count: u8) {
    for index in 0..count {
        let before = newest(daemon);
        let phase = f32::from(index) + 10.0 * name.len() as f32;
        write_rows_of_both_sites(daemon, &format!("{name}{index}"), phase);
        live.wait_for(&event("published").at_least("generation", before + 1));
    }
}

fn newest(daemon: &TestDaemon) -> u64 {
    let found = generations(&daemon.path().join("qera-out"));
    found.last().copied().unwrap_or_default()
}

#[test]
fn what_is_served_stays_while_no_newer_one_is_and_others_go() {
    let server = Server::start();
    let options = ["--notify", &server.option(""), "--keep-generations", "3"];
    let running = begin(&options);
    write_rows_of_both_sites(&running.daemon, "a", 0.0);
    let served = running.rest_at(1);
    let RunningDaemon { daemon, mut live } = running;
    let failing = || Fault::Status(500, "engine is busy".into());
    server.fail(LOAD, 1000, failing());
    publish(&daemon, &mut live, "bb", 4);
    let kept = generations(&daemon.path().join("qera-out"));
    assert!(
        kept.contains(&served) && !kept.contains(&(served + 1)),
        "{kept:?}"
    );
    // Beside the newest: what is served, and what was served for a moment before.
    assert!(kept.len() <= 5, "{kept:?}");
    // The daemon begins anew, and knows.
    live.kill();
    let mut live = start(&daemon, &options);
    publish(&daemon, &mut live, "ccc", 3);
    let kept = generations(&daemon.path().join("qera-out"));
    assert!(kept.contains(&served), "{kept:?}");
    assert!(kept.len() <= 5, "{kept:?}");
    // A run that notifies nobody holds nothing back.
    live.kill();
    let mut live = start(&daemon, &["--keep-generations", "3"]);
    publish(&daemon, &mut live, "dddd", 1);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let kept = generations(&daemon.path().join("qera-out"));
    assert!(!kept.contains(&served) && kept.len() == 3, "{kept:?}");
}

/// Each canary is taken, and no swap.
#[test]
fn swaps_that_are_refused_hold_back_no_more_than_the_newest() {
    let server = Server::start();
    server.add_plugin();
    let options = ["--notify", &server.option(""), "--keep-generations", "3"];
    let running = begin(&options);
    write_rows_of_both_sites(&running.daemon, "a", 0.0);
    let served = running.rest_at(1);
    let RunningDaemon { daemon, mut live } = running;
    server.stick("qera", served);
    for index in 0..5 {
        publish(&daemon, &mut live, &"b".repeat(index + 2), 1);
        server.wait_until("the swap", |server| {
            server.count(&format!("load qera {:06}", newest(&daemon))) > 0
        });
    }
    publish(&daemon, &mut live, "the last", 1);
    let kept = generations(&daemon.path().join("qera-out"));
    assert!(kept.contains(&served), "{kept:?}");
    // Beside it: the newest, the one told last, and what was served for a moment before.
    assert!(kept.len() <= 5, "{kept:?}");
    live.kill();
}
