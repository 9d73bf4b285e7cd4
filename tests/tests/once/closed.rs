//! Nothing outside of the folders given is read or written, nothing that has no end is read, and
//! what users typed is for nobody else.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use qera_tests::daemon::{EndedRun, TestDaemon, expect, run_to_end};
use qera_tests::three_layers::{
    DOWN, daemon_with_shards, once_with, shard_path, write_rows_of_both_sites,
};

use super::BINARY;

#[test]
fn a_lock_is_not_written_through_a_link() {
    for folder in ["qera-out", "qera-out/state"] {
        let daemon = daemon_with_shards(BINARY);
        let (lock, victim) = (
            daemon.path().join(folder).join(".lock"),
            daemon.path().join("victim"),
        );
        fs::create_dir_all(lock.parent().unwrap()).unwrap();
        symlink(&victim, &lock).unwrap();
        expect(&daemon.run(&once_with(&[])), 1, &[".lock", "a link"]);
        assert!(!victim.exists(), "{folder}");
        fs::write(&victim, "somebody else's").unwrap();
        expect(&daemon.run(&once_with(&[])), 1, &[".lock", "remove it"]);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "somebody else's");
        fs::remove_file(&lock).unwrap();
        expect(&daemon.run(&once_with(&[])), 0, &[]);
    }
}

fn mode(path: impl AsRef<Path>) -> u32 {
    let metadata = fs::metadata(path.as_ref());
    metadata
        .unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
        .permissions()
        .mode()
        & 0o777
}

/// The cache of Hugging Face's hub has files so: links to blobs.
#[test]
fn a_base_s_files_are_as_closed_as_their_sources() {
    let daemon = daemon_with_shards(BINARY);
    let blobs = daemon.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    for (name, mode) in [("secret", 0o600), ("open", 0o644), ("run", 0o755)] {
        fs::write(blobs.join(name), name).unwrap();
        fs::set_permissions(blobs.join(name), fs::Permissions::from_mode(mode)).unwrap();
        let link = format!("checkpoint/{name}.json");
        symlink(format!("../blobs/{name}"), daemon.path().join(link)).unwrap();
    }
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    for (name, expected) in [("secret", 0o600), ("open", 0o644), ("run", 0o755)] {
        let copy = daemon.path().join(format!("qera-out/base/{name}.json"));
        assert!(!copy.is_symlink() && fs::read_to_string(&copy).unwrap() == name);
        assert_eq!(mode(copy), expected, "{name}");
    }
}

#[test]
fn an_index_names_files_beside_it_only() {
    let daemon = daemon_with_shards(BINARY);
    let checkpoint = daemon.path().join("checkpoint");
    let elsewhere = daemon.path().join("elsewhere.safetensors");
    fs::rename(checkpoint.join("model.safetensors"), &elsewhere).unwrap();
    let absolute = elsewhere.display().to_string();
    for file in ["../elsewhere.safetensors", &absolute] {
        let index = format!(r#"{{"weight_map":{{"{DOWN}.weight":"{file}"}}}}"#);
        fs::write(checkpoint.join("model.safetensors.index.json"), index).unwrap();
        let said = ["index.json", file, "no plain file name"];
        expect(&daemon.run(&once_with(&[])), 1, &said);
    }
}

/// Runs to the end, which comes soon.
fn run_soon(daemon: &TestDaemon, options: &[&str]) -> EndedRun {
    let mut child = daemon
        .command(options)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = child.wait_with_output().unwrap();
    EndedRun {
        code: ended.status.code().unwrap_or(-1),
        log: String::from_utf8_lossy(&ended.stderr).into_owned(),
        output: String::new(),
    }
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_pipe_in_the_place_of_a_file_holds_nobody() {
    let checkpoint = |name: &str| PathBuf::from("checkpoint").join(name);
    let cases = [
        (
            checkpoint("config.json"),
            1,
            "config.json: read: is no file but a pipe",
        ),
        (checkpoint("model.safetensors"), 1, "checkpoint"),
        (checkpoint("model.safetensors.index.json"), 0, ""),
        (
            "settings.toml".into(),
            2,
            "settings.toml: is no file but a pipe",
        ),
    ];
    for (path, code, said) in cases {
        let daemon = daemon_with_shards(BINARY);
        let at = daemon.path().join(&path);
        let _ = fs::remove_file(&at);
        pipe(&at);
        let mut options = once_with(&[]);
        if code == 2 {
            options.extend(["--config", "settings.toml"]);
        }
        expect(&run_soon(&daemon, &options), code, &[said]);
    }
}

#[test]
fn a_pipe_in_the_place_of_a_journaled_shard_does_not_hold_a_resume() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    // A crash leaves the folder so.
    fs::remove_dir_all(daemon.path().join("qera-out/state/snapshots")).unwrap();
    let shard = shard_path(&daemon, "shard-1");
    fs::remove_file(&shard).unwrap();
    pipe(&shard);
    let run = run_soon(&daemon, &once_with(&[]));
    expect(
        &run,
        3,
        &[
            "lost shard-1.safetensors: 300 rows",
            "is no file but a pipe",
        ],
    );
}

#[test]
fn a_configuration_without_end_is_not_read_to_the_memory_s_end() {
    let daemon = daemon_with_shards(BINARY);
    let config = daemon.path().join("checkpoint/config.json");
    fs::remove_file(&config).unwrap();
    symlink("/dev/zero", &config).unwrap();
    expect(
        &run_soon(&daemon, &once_with(&[])),
        1,
        &["config.json", "a device"],
    );
    fs::remove_file(&config).unwrap();
    let large = fs::File::create(&config).unwrap();
    large.set_len(1 << 36).unwrap();
    expect(
        &run_soon(&daemon, &once_with(&[])),
        1,
        &["config.json", "larger than 64 MiB"],
    );
}

#[test]
fn what_users_typed_is_closed_whatever_the_umask() {
    for umask in [0o000, 0o027, 0o077] {
        let daemon = daemon_with_shards(BINARY);
        // Made before; what the run makes itself follows the umask.
        let state = daemon.path().join("qera-out/state");
        fs::create_dir_all(state.join("snapshots")).unwrap();
        fs::create_dir_all(daemon.path().join("qera-out/generations")).unwrap();
        fs::set_permissions(state.join("snapshots"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("sh");
        command.current_dir(daemon.path());
        command.args([
            "-c",
            &format!("umask {umask:03o}; exec \"$0\" \"$@\""),
            BINARY,
        ]);
        command.args(once_with(&["--consume", "move"]));
        expect(&run_to_end(command), 0, &["published generation 1"]);
        let snapshot = state.join("snapshots/000001");
        for folder in [
            &state.join("snapshots"),
            &snapshot,
            &daemon.watched().join(".consumed"),
        ] {
            assert_eq!(mode(folder), 0o700, "{umask:o} {}", folder.display());
        }
        let files = fs::read_dir(&snapshot)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.chain([state.join("journal")]).collect();
        assert_eq!(files.len(), 6, "{files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{umask:o} {}", file.display());
        }
        for file in [
            state.join("status.json"),
            daemon.path().join("qera-out/current/README.md"),
        ] {
            assert_eq!(mode(&file), 0o666 & !umask, "{umask:o} {}", file.display());
        }
    }
}

/// A journal of an earlier version was readable for all.
#[test]
fn a_journal_that_is_there_is_closed() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let journal = daemon.path().join("qera-out/state/journal");
    fs::set_permissions(&journal, fs::Permissions::from_mode(0o644)).unwrap();
    write_rows_of_both_sites(&daemon, "shard-4", 4.0);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    assert_eq!(mode(journal), 0o600);
}
