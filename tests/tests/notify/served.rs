//! A server tries each generation, takes it in the place of the one before, and then shows it.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::event::event;
use qera_tests::three_layers::{daemon_with_shards, once_with, write_rows_of_both_sites};
use serde_json::Value;

use super::server::{COMPLETIONS, LOAD, Server};
use super::{BINARY, RunningDaemon, begin, generation};

/// How the first generation comes to a server.
const FIRST: [&str; 6] = [
    "load qera-canary 000001",
    "ask m",
    "ask m",
    "ask qera-canary",
    "unload qera-canary",
    "load qera 000001",
];

#[test]
fn a_run_ends_when_its_generation_is_served() {
    let server = Server::start();
    let daemon = daemon_with_shards(BINARY);
    let run = daemon.run(&once_with(&["--notify", &server.option("")]));
    expect(
        &run,
        0,
        &[
            &format!("{} serves generation 1 as qera (", server.url()),
            "canary of generation 1 on",
            "1.0000 nats a token, the base 2.0000",
        ],
    );
    assert_eq!(server.told(), FIRST);
    assert_eq!(server.root("qera"), Some(generation(&daemon, 1)));
    assert_eq!(server.root("qera-canary"), None);
    for request in server.received() {
        if request.path == COMPLETIONS {
            let id = &request.headers["x-request-id"];
            assert!(id.starts_with("qera-canary-000001-"), "{id}");
        }
        if request.path == LOAD {
            assert_eq!(request.body["load_inplace"], Value::Null);
        }
    }
    let status = daemon.status();
    let shown = &status["servers"][0];
    assert_eq!(shown["server"], server.url());
    assert_eq!(
        (&shown["generation"], &shown["wanted"]),
        (&1.into(), &1.into())
    );
    assert_eq!(shown["swap"], "loaded");
    assert_eq!(shown["canary"]["loss"], 1.0);
    assert_eq!(shown["problem"], Value::Null);
    let table = daemon.run(&["status"]).output;
    assert!(table.contains("serves generation 1 as qera\n"), "{table}");
    // Another run finds it there, and tells nothing.
    expect(
        &daemon.run(&once_with(&["--notify", &server.option("")])),
        0,
        &[],
    );
    assert_eq!(server.told(), FIRST);
}

#[test]
fn a_newer_one_takes_its_place_back_to_back_by_its_own_path() {
    let server = Server::start();
    let RunningDaemon { daemon, mut live } = begin(&["--notify", &server.option("")]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&event("served").with("generation", 1).with("swap", "loaded"));
    write_rows_of_both_sites(&daemon, "b", 1.0);
    let served = live.wait_for(&event("served").with("swap", "replaced"));
    let number = served["generation"].as_u64().unwrap();
    assert!(number >= 2);
    assert_eq!(served["path"], generation(&daemon, number));
    assert!(served["window_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(server.root("qera"), Some(generation(&daemon, number)));
    // Nothing comes between unloading and loading.
    let all: Vec<_> = server.received().iter().map(|of| of.brief()).collect();
    let unloaded = all.iter().position(|brief| brief == "unload qera").unwrap();
    assert_eq!(all[unloaded + 1], format!("load qera {number:06}"));
    for request in server.received() {
        let path = request.body["lora_path"]
            .as_str()
            .unwrap_or("/generations/");
        assert!(
            path.starts_with('/') && path.contains("/generations/"),
            "{path}"
        );
    }
    let told = fs::read_to_string(daemon.path().join("qera-out/notified.json")).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let of_server = &told["servers"][format!("{} qera", server.url())];
    assert_eq!(of_server["confirmed"]["number"], number);
}

#[test]
fn with_a_name_each_the_older_stays_when_the_newer_comes() {
    let server = Server::start();
    let option = server.option(",name=x,names=generation");
    let RunningDaemon { daemon, mut live } = begin(&["--notify", &option]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&event("served").with("name", "x-000001"));
    write_rows_of_both_sites(&daemon, "b", 1.0);
    let served = live.wait_for(
        &event("served")
            .with("swap", "loaded")
            .at_least("generation", 2),
    );
    let number = served["generation"].as_u64().unwrap();
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let newer = format!("x-{number:06}");
    assert_eq!(server.root(&newer), Some(generation(&daemon, number)));
    assert_eq!(server.root("x-000001"), Some(generation(&daemon, 1)));
    assert!(!server.told().iter().any(|brief| brief == "unload x-000001"));
}

/// With `--max-loras 1` the canary takes the engine's only place, and vLLM unloads nothing that the
/// engine does not have.
#[test]
fn an_adapter_that_the_engine_put_aside_is_brought_back_to_be_unloaded() {
    let server = Server::start();
    server.set_room(1);
    let RunningDaemon { daemon, mut live } = begin(&["--notify", &server.option("")]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&event("served").with("generation", 1));
    write_rows_of_both_sites(&daemon, "b", 1.0);
    live.wait_for(&event("served").with("swap", "replaced"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let told = server.told();
    let at = told
        .iter()
        .position(|brief| brief == "unload qera")
        .unwrap();
    assert_eq!(told[at + 1..at + 3], ["ask qera", "unload qera"]);
    let asked = server.received();
    let touch = asked.iter().find(|of| of.brief() == "ask qera").unwrap();
    assert_eq!(touch.headers["x-request-id"], "qera-touch-qera");
}

#[test]
fn a_server_may_see_the_folder_elsewhere() {
    let server = Server::start();
    let daemon = daemon_with_shards(BINARY);
    let seen = daemon.path().join("seen");
    std::os::unix::fs::symlink("qera-out", &seen).unwrap();
    let option = server.option(&format!(",path={}", seen.display()));
    expect(
        &daemon.run(&once_with(&["--notify", &option])),
        0,
        &["serves generation 1"],
    );
    let path = seen.join("generations/000001");
    assert_eq!(server.root("qera"), Some(path.display().to_string()));
}

/// Where our plugin is in the server, requests never meet a name that is unknown.
#[test]
fn with_the_plugin_it_gives_way_in_one_step_under_the_new_path() {
    let server = Server::start();
    server.add_plugin();
    let RunningDaemon { daemon, mut live } = begin(&["--notify", &server.option("")]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&event("served").with("generation", 1));
    write_rows_of_both_sites(&daemon, "b", 1.0);
    let served = live.wait_for(&event("served").with("swap", "in-place"));
    assert_eq!(served["window_ms"], Value::Null);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(server.count("unload qera"), 0);
    let number = served["generation"].as_u64().unwrap();
    let loads: Vec<_> = server
        .received()
        .into_iter()
        .filter(|of| of.brief() == format!("load qera {number:06}"))
        .collect();
    assert_eq!(loads[0].body["load_inplace"], true);
    assert_eq!(loads[0].body["lora_path"], generation(&daemon, number));
}

/// Requests of the older adapter may be under way when the newer one has its name: a third one
/// would push one of them out of the engine.
#[test]
fn after_a_swap_in_two_steps_the_server_is_left_alone_for_a_while() {
    let server = Server::start();
    let option = format!("vllm={},poll=2", server.url());
    let RunningDaemon { daemon, mut live } = begin(&["--notify", &option]);
    for (index, name) in ["a", "b", "c"].iter().enumerate() {
        write_rows_of_both_sites(&daemon, name, index as f32);
        let served = event("served").at_least("generation", index as u64 + 1);
        live.wait_for(&served);
    }
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let received = server.received();
    let swaps = received.iter().enumerate().filter(|(index, of)| {
        of.brief().starts_with("load qera 0") && received[index - 1].brief() == "unload qera"
    });
    let mut canaries = 0;
    for (index, swap) in swaps {
        let later = &received[index..];
        let Some(canary) = later
            .iter()
            .find(|of| of.brief().starts_with("load qera-canary"))
        else {
            continue;
        };
        canaries += 1;
        let passed = canary.at - swap.at;
        assert!(
            passed >= core::time::Duration::from_millis(1900),
            "{passed:?}"
        );
    }
    assert!(canaries >= 1, "{:?}", server.told());
}

/// Nothing but the words says so: what corrects nothing may be all that there is to correct.
#[test]
fn one_that_answers_as_the_base_does_is_served_and_that_is_said() {
    let server = Server::start();
    server.set_loss(1, 2.0);
    let daemon = daemon_with_shards(BINARY);
    let run = daemon.run(&once_with(&["--notify", &server.option("")]));
    expect(
        &run,
        0,
        &["it answers as the base does", "serves generation 1"],
    );
}
