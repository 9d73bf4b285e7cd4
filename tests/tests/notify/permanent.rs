//! What stays is said once and not tried again, until the server begins anew.

use std::collections::BTreeSet;

use qera_tests::event::event;
use qera_tests::three_layers::write_rows_of_both_sites;

use super::server::{Fault, LOAD, Server};
use super::{RunningDaemon, begin};

/// A run whose generations are refused in these words, each after one attempt.
fn refused(server: &Server, more: &str, words: &str) -> RunningDaemon {
    let RunningDaemon { daemon, mut live } = begin(&["--notify", &server.option(more)]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    let failed = event("notify-failed").with("retried", false);
    let said = live.wait_for(&failed.with("generation", 1));
    let message = said["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
    let generations = daemon.wait_until_idle(1)["generation"].as_u64().unwrap();
    server.wait_for_looks(3);
    let told = server.told();
    let attempts: BTreeSet<&String> = told.iter().collect();
    assert_eq!(attempts.len(), told.len(), "{told:?}");
    assert!(told.len() as u64 <= generations, "{told:?}");
    server.wait_for_looks(5);
    assert_eq!(server.told(), told);
    RunningDaemon { daemon, live }
}

/// Ends the run, and checks that nothing more was said.
fn end(mut running: RunningDaemon) {
    let RunningDaemon { daemon, live } = &mut running;
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(live.count(&event("notify-failed")), 1, "{}", live.log);
    let problem = &daemon.status()["servers"][0]["problem"];
    assert!(problem.is_string(), "{problem}");
}

#[test]
fn a_rank_above_the_servers_is_said_once_and_tried_when_it_begins_anew() {
    let server = Server::start();
    server.set_max_rank(1);
    let RunningDaemon { daemon, mut live } = refused(&server, "", "--max-lora-rank");
    // A newer generation has the same rank: it is tried, and nothing new is said.
    let before = server.told().len();
    write_rows_of_both_sites(&daemon, "b", 1.0);
    server.wait_until("another attempt", |server| server.told().len() > before);
    let of_rank = event("notify-failed").containing("message", "--max-lora-rank");
    assert_eq!(live.count(&of_rank), 1, "{}", live.log);
    let address = server.address();
    drop(server);
    live.wait_for(&event("notify-failed").containing("message", "cannot be reached"));
    let server = Server::at(address);
    live.wait_for(&event("served").at_least("generation", 2));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(server.root("qera").is_some());
}

#[test]
fn a_folder_that_the_server_does_not_see() {
    let server = Server::start();
    let words = "does not see /nowhere/generations/000001: it must be able";
    end(refused(&server, ",path=/nowhere", words));
}

#[test]
fn a_server_that_may_not_load() {
    let server = Server::start();
    server.fail(
        LOAD,
        1000,
        Fault::Status(404, r#"{"detail":"Not Found"}"#.into()),
    );
    end(refused(&server, "", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"));
}

#[test]
fn a_name_that_is_a_models() {
    let server = Server::start();
    end(refused(&server, ",name=m", "has a model of the name 'm'"));
}

/// One of them has loaded it, and another is asked.
#[test]
fn several_servers_behind_one_address() {
    let server = Server::start();
    server.fail(LOAD, 1000, Fault::Status(200, "Success".into()));
    end(refused(&server, "", "several servers behind this"));
}
