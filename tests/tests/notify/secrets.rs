//! The token goes to the server that was named, and nowhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::three_layers::{daemon_with_shards, once_with};

use super::BINARY;
use super::server::{Fault, LOAD, Server};

const TOKEN: &str = "k3pt-secret";

fn write_token(daemon: &TestDaemon, mode: u32) {
    let path = daemon.path().join("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_token_is_in_each_request_and_in_no_line() {
    let server = Server::start();
    let daemon = daemon_with_shards(BINARY);
    write_token(&daemon, 0o600);
    server.fail(
        LOAD,
        1,
        Fault::Status(401, r#"{"error":"Unauthorized"}"#.into()),
    );
    let option = server.option("");
    let options = once_with(&["--notify", &option, "--notify-token-file", "token"]);
    let refused = daemon.run(&options);
    expect(&refused, 0, &["refuses the token (401)"]);
    let served = daemon.run(&options);
    expect(&served, 0, &["serves generation 1"]);
    for request in server.received() {
        assert_eq!(request.headers["authorization"], format!("Bearer {TOKEN}"));
        assert!(request.headers["user-agent"].starts_with("qera/"));
    }
    let notified = fs::read_to_string(daemon.path().join("qera-out/notified.json")).unwrap();
    let shown = daemon.run(&[
        "config",
        "--show",
        "--notify-token-file",
        "token",
        "--notify",
        &option,
    ]);
    for text in [
        refused.log,
        served.log,
        daemon.status().to_string(),
        notified,
        shown.output,
    ] {
        assert!(!text.contains(TOKEN), "{text}");
    }
}

#[test]
fn a_token_that_everybody_may_read_is_refused_before_anything_is_done() {
    let server = Server::start();
    let daemon = daemon_with_shards(BINARY);
    write_token(&daemon, 0o644);
    let option = server.option("");
    let run = daemon.run(&once_with(&[
        "--notify",
        &option,
        "--notify-token-file",
        "token",
    ]));
    expect(
        &run,
        2,
        &["--notify-token-file token: everybody may read or write it: chmod o="],
    );
    assert!(!daemon.path().join("qera-out/generations").exists());
    let canary = server.option(",canary=missing.txt");
    let run = daemon.run(&once_with(&["--notify", &canary]));
    expect(&run, 2, &["missing.txt: No such file"]);
    assert!(server.received().is_empty());
}

#[test]
fn no_redirect_is_followed_and_no_proxy_is_asked() {
    let (server, other) = (Server::start(), Server::start());
    let daemon = daemon_with_shards(BINARY);
    server.fail(LOAD, 1, Fault::Redirect(format!("{}{LOAD}", other.url())));
    let option = server.option("");
    let options = once_with(&["--notify", &option]);
    let run = daemon.run(&options);
    expect(&run, 0, &["answers 307, a redirect, which is not followed"]);
    let mut command = daemon.command(&options);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "all_proxy",
        "ALL_PROXY",
    ] {
        command.env(name, other.url());
    }
    let output = command.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("serves generation 1"), "{log}");
    assert!(other.received().is_empty(), "{:?}", other.received());
}

/// A server without TLS is not spoken to when its URL says https.
#[test]
fn https_is_never_less() {
    let server = Server::start();
    let daemon = daemon_with_shards(BINARY);
    write_token(&daemon, 0o600);
    let option = server.option("").replace("http://", "https://");
    let options = once_with(&["--notify", &option, "--notify-token-file", "token"]);
    let url = server.url().replace("http://", "https://");
    expect(
        &daemon.run(&options),
        0,
        &[&format!("warning: --notify: {url} ")],
    );
    assert!(server.received().is_empty(), "{:?}", server.received());
}
