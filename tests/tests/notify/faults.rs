//! What goes wrong and may pass is said once, tried again, and holds up nobody.

use qera_tests::daemon::expect;
use qera_tests::event::event;
use qera_tests::three_layers::{daemon_with_shards, once_with, write_rows_of_both_sites};
use serde_json::Value;

use super::server::{Fault, LOAD, MODELS, Server};
use super::{BINARY, RunningDaemon, begin};

fn bytes(text: &str) -> Fault {
    Fault::Bytes(text.as_bytes().to_vec())
}

#[test]
fn each_is_said_and_then_all_is_well_again() {
    let server = Server::start();
    let mut running = begin(&["--notify", &server.option("")]);
    write_rows_of_both_sites(&running.daemon, "a", 0.0);
    let generation = running.rest_at(1);
    let RunningDaemon { daemon, live } = &mut running;
    let told = server.told();
    let cut = "HTTP/1.1 200 x\r\nContent-Length: 500\r\n\r\n{\"data\":[";
    let chunked = "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"dat\r\nzz\r\n";
    for (fault, words) in [
        (bytes(""), "cut off or no HTTP"),
        (bytes("SSH-2.0-x\r\n\r\n"), "cut off or no HTTP"),
        (bytes(cut), "cut off or no HTTP"),
        (bytes(chunked), "cut off or no HTTP"),
        (Fault::Status(200, "{".into()), "is it vLLM?"),
        (Fault::Status(200, "{\"data\": 3}".into()), "is it vLLM?"),
        (
            Fault::Status(500, String::new()),
            "answers 500 to /v1/models",
        ),
        (Fault::Status(503, "starting".into()), "starting"),
        (Fault::Status(401, "{}".into()), "refuses the token (401)"),
        (Fault::Huge, "gave an answer of more than 16 MiB"),
    ] {
        server.fail(MODELS, 1, fault.clone());
        let said = live.wait_for(&event("notify-failed").containing("message", words));
        assert_eq!(said["server"], server.url(), "{fault:?}");
        assert_eq!(said["retried"], true, "{fault:?}");
        server.wait_for_looks(2);
    }
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(server.told(), told, "it was served all the time");
    let status = daemon.status();
    assert_eq!(status["servers"][0]["problem"], Value::Null);
    assert_eq!(status["servers"][0]["generation"], generation);
}

#[test]
fn a_server_that_hangs_holds_up_neither_publishing_nor_another_server() {
    let (hangs, sound) = (Server::start(), Server::start());
    hangs.fail(MODELS, 1, Fault::Hang);
    let options = ["--notify", &hangs.option(""), "--notify", &sound.option("")];
    let RunningDaemon { daemon, mut live } = begin(&options);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    let of_sound = event("served").with("server", sound.url());
    live.wait_for(&of_sound.clone().with("generation", 1));
    write_rows_of_both_sites(&daemon, "b", 1.0);
    live.wait_for(&of_sound.at_least("generation", 2));
    assert!(!live.heard(&event("notify-failed")), "{}", live.log);
    let late = event("notify-failed").with("server", hangs.url());
    live.wait_for(&late.containing("message", "did not answer within 10 s"));
    let served = event("served").with("server", hangs.url());
    live.wait_for(&served.at_least("generation", 2));
    assert_eq!(
        hangs.count("load qera 000001"),
        0,
        "only the newest is told"
    );
    assert_eq!(live.stop(), Some(0), "{}", live.log);
}

#[test]
fn of_two_servers_one_may_be_dead() {
    let sound = Server::start();
    // A port that no test is given, and that nothing listens on.
    let url = "http://127.0.0.1:1";
    let options = [format!("vllm={url},poll=0.2"), sound.option("")];
    let daemon = daemon_with_shards(BINARY);
    let notify = ["--notify", &options[0], "--notify", &options[1]];
    let run = daemon.run(&once_with(&notify));
    expect(
        &run,
        0,
        &[
            &format!("warning: --notify: {url} cannot be reached: "),
            &format!("{} serves generation 1", sound.url()),
        ],
    );
    let said = run.log.matches("cannot be reached").count();
    assert_eq!(said, 1, "once, not at each attempt: {}", run.log);
    let status = daemon.status();
    let problem = status["servers"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("cannot be reached"), "{status}");
    assert_eq!(status["servers"][0]["wanted"], 1);
    assert_eq!(status["servers"][1]["problem"], Value::Null);
}

/// The load after the unload fails: the name is given back to what it meant.
#[test]
fn a_swap_that_fails_leaves_the_older_one_served() {
    let server = Server::start();
    let mut running = begin(&["--notify", &server.option("")]);
    write_rows_of_both_sites(&running.daemon, "a", 0.0);
    let before = running.rest_at(1);
    let RunningDaemon { daemon, live } = &mut running;
    // The canary's load is as it should be.
    server.fail(LOAD, 1, Fault::Nothing);
    server.fail(LOAD, 1, Fault::Status(500, "out of memory".into()));
    write_rows_of_both_sites(daemon, "b", 1.0);
    live.wait_for(&event("notify-failed").containing("message", "out of memory"));
    live.wait_for(&event("served").at_least("generation", before + 1));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let load = format!("load qera {before:06}");
    assert_eq!(server.count(&load), 2, "{:?}", server.told());
}
