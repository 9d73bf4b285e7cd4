//! Whichever side begins anew, the right generation is served again.

use qera_tests::event::event;
use qera_tests::three_layers::write_rows_of_both_sites;

use super::server::{Fault, LOAD, Server};
use super::{RunningDaemon, begin, generation, start};

#[test]
fn a_server_that_begins_anew_is_told_again_without_a_canary() {
    let server = Server::start();
    let option = server.option("");
    let running = begin(&["--notify", &option]);
    write_rows_of_both_sites(&running.daemon, "a", 0.0);
    let number = running.rest_at(1);
    let RunningDaemon { daemon, mut live } = running;
    let loaded = event("served")
        .with("generation", number)
        .with("swap", "loaded");
    let address = server.address();
    drop(server);
    let server = Server::at(address);
    live.wait_for(&loaded);
    let load = format!("load qera {number:06}");
    assert_eq!(server.told(), [load.as_str()]);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    // Both begin anew, and no row comes.
    drop(server);
    let server = Server::at(address);
    let mut live = start(&daemon, &["--notify", &option]);
    live.wait_for(&loaded);
    assert_eq!(server.told(), [load.as_str()]);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
}

/// Another one was loaded there, by somebody else.
#[test]
fn another_path_under_our_name_is_replaced() {
    let server = Server::start();
    let running = begin(&["--notify", &server.option("")]);
    write_rows_of_both_sites(&running.daemon, "a", 0.0);
    let number = running.rest_at(1);
    let RunningDaemon { daemon, mut live } = running;
    server.move_to("qera", &daemon.path().join("qera-out/current"));
    let again = generation(&daemon, number);
    server.wait_until("it is loaded again", |server| {
        server.root("qera").as_ref() == Some(&again)
    });
    live.wait_for(
        &event("served")
            .with("generation", number)
            .with("swap", "replaced"),
    );
    assert_eq!(live.stop(), Some(0), "{}", live.log);
}

#[test]
fn a_daemon_killed_between_unload_and_load_goes_on_from_there() {
    let server = Server::start();
    let option = server.option("");
    let running = begin(&["--notify", &option]);
    write_rows_of_both_sites(&running.daemon, "a", 0.0);
    let before = running.rest_at(1);
    let RunningDaemon { daemon, mut live } = running;
    // The canary's load is as it should be.
    server.fail(LOAD, 1, Fault::Nothing);
    server.fail(LOAD, 1, Fault::Hang);
    write_rows_of_both_sites(&daemon, "b", 1.0);
    server.wait_until("the load hangs", |server| {
        let told = server.told();
        let last = told.last().map(String::as_str).unwrap_or_default();
        server.root("qera").is_none() && last.starts_with("load qera 0")
    });
    live.kill();
    let mut live = start(&daemon, &["--notify", &option]);
    live.wait_for(
        &event("served")
            .with("swap", "loaded")
            .at_least("generation", before + 1),
    );
    assert!(server.root("qera").is_some());
    assert_eq!(server.root("qera-canary"), None);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
}

/// The server has the older adapter at that path, and its prefix cache what that one made of texts.
#[test]
fn a_path_of_an_earlier_folder_is_not_taken_for_ours_until_the_server_begins_anew() {
    let server = Server::start();
    let option = server.option("");
    let running = begin(&["--notify", &option]);
    write_rows_of_both_sites(&running.daemon, "a", 0.0);
    running.rest_at(1);
    let RunningDaemon { daemon, mut live } = running;
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let told = server.told();
    server.move_to("qera", generation(&daemon, 50).as_ref());
    std::fs::remove_dir_all(daemon.path().join("qera-out")).unwrap();
    let mut live = start(&daemon, &["--notify", &option]);
    write_rows_of_both_sites(&daemon, "b", 1.0);
    let failed = event("notify-failed").with("retried", false);
    live.wait_for(&failed.containing("message", "000050 from an earlier output folder"));
    server.wait_for_looks(3);
    assert_eq!(server.told(), told);
    assert!(!live.heard(&event("served")), "{}", live.log);
    let shown = &daemon.status()["servers"][0];
    assert!(shown["generation"].is_null(), "{shown}");
    let address = server.address();
    drop(server);
    let server = Server::at(address);
    live.wait_for(&event("served").with("swap", "loaded"));
    assert!(server.root("qera").is_some());
    assert_eq!(live.stop(), Some(0), "{}", live.log);
}

#[test]
fn a_memory_that_is_not_understood_is_set_aside_and_what_is_served_stays_so() {
    let server = Server::start();
    let option = server.option("");
    let running = begin(&["--notify", &option]);
    write_rows_of_both_sites(&running.daemon, "a", 0.0);
    let number = running.rest_at(1);
    let RunningDaemon { daemon, mut live } = running;
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let path = daemon.path().join("qera-out/notified.json");
    std::fs::write(&path, "{").unwrap();
    let told = server.told();
    let mut live = start(&daemon, &["--notify", &option]);
    live.wait_for(&event("warning").containing("message", "notified.json is damaged"));
    live.wait_for(
        &event("served")
            .with("generation", number)
            .with("swap", "found"),
    );
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(server.told(), told);
    assert!(path.with_extension("json.set-aside").exists());
}
