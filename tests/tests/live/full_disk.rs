//! A disk without room: a live run waits for it, `status` says so, and nothing is lost. By calls
//! that fail, and on a real small file system where one may be mounted.

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use qera_tests::daemon::TestDaemon;
use qera_tests::disk_shim::{Action, DiskShim, Fault};
use qera_tests::event::{ExpectedEvent, event, published};
use qera_tests::live::Live;
use qera_tests::three_layers::{
    Q, ROWS, daemon_without_shards, live_with, once_with, shard_path, write_rows_of_both_sites,
};

use super::BINARY;

const ENOSPC: i32 = 28;
/// What comes is published when nothing more does for a moment.
const PUBLISHING_SOON: [&str; 2] = ["--idle-publish", "0.2"];

static SHIM: LazyLock<DiskShim> = LazyLock::new(DiskShim::build);

fn said(text: &str) -> ExpectedEvent {
    event("warning")
        .with("subject", "disk")
        .containing("message", text)
}

/// Waits until `status` shows it.
fn await_full(daemon: &TestDaemon) {
    for _ in 0..100 {
        let table = daemon.run(&["status"]).output;
        if table.contains("the disk is full: the run waits for room") {
            assert_eq!(daemon.status()["disk_full"], true);
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{}", daemon.run(&["status"]).output);
}

/// A live run that has a shard to take while some calls find no room.
struct RunWithoutRoom {
    daemon: TestDaemon,
    live: Live,
}

impl RunWithoutRoom {
    /// So many calls of a kind on these paths find none.
    fn begin(call: &str, path: &str, times: usize) -> Self {
        let daemon = daemon_without_shards(BINARY);
        let options = [&PUBLISHING_SOON[..], &["--consume", "move"]].concat();
        let mut command = daemon.command(&live_with(&options));
        let fault = Fault {
            call,
            path,
            nth: 1,
            times,
            action: Action::Fail(ENOSPC),
        };
        SHIM.fault(&mut command, fault);
        let mut live = Live::start(command);
        live.wait_for(&event("watching"));
        write_rows_of_both_sites(&daemon, "a", 0.0);
        live.wait_for(&said("is full"));
        Self { daemon, live }
    }
}

/// Waits for the first generation, ends the run, and finds every row in it.
fn every_row_is_published(daemon: &TestDaemon, live: &mut Live, path: &str) {
    live.wait_for(&published(1));
    assert_eq!(live.stop(), Some(0), "{path}: {}", live.log);
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], ROWS);
    let verdict = daemon.verify(&[]);
    assert_eq!(verdict.code, 0, "{path}: {}", verdict.output);
}

#[test]
fn a_live_run_waits_for_room_and_says_so() {
    for (call, path) in [
        ("write", "state/journal"),
        ("write", "snapshots/"),
        ("write", "adapter_model"),
        ("rename", "qera-out/current"),
    ] {
        let RunWithoutRoom { daemon, mut live } = RunWithoutRoom::begin(call, path, 3);
        await_full(&daemon);
        live.wait_for(&said("has room again"));
        every_row_is_published(&daemon, &mut live, path);
        assert_eq!(live.count(&said("is full")), 1, "{path}: {}", live.log);
        assert_eq!(daemon.status()["disk_full"], false);
    }
}

/// A signal ends the wait; the next run has every row.
#[test]
fn a_signal_ends_the_wait() {
    let path = "adapter_model";
    let RunWithoutRoom { daemon, mut live } = RunWithoutRoom::begin("write", path, 1_000_000);
    assert_eq!(live.stop(), Some(1), "{}", live.log);
    let mut live = Live::start(daemon.command(&live_with(&PUBLISHING_SOON)));
    every_row_is_published(&daemon, &mut live, path);
}

/// Where nothing fails by it, because what waited was not needed, the exit code says it all the
/// same: the shard stays until the next start consumes it.
#[test]
fn what_waited_in_vain_is_said_by_the_exit_code() {
    let RunWithoutRoom { daemon, mut live } =
        RunWithoutRoom::begin("mkdir", ".consumed", 1_000_000);
    assert_eq!(live.stop(), Some(3), "{}", live.log);
    assert!(live.heard(&said("left for the next start")), "{}", live.log);
    let expected = daemon.adapter("qera-out").layer(Q)["rows"].clone();
    assert_eq!(expected, ROWS);
    let there = shard_path(&daemon, "a");
    assert!(there.exists());
    let run = daemon.run(&once_with(&["--consume", "move"]));
    assert_eq!(run.code, 0, "{}", run.log);
    assert!(!there.exists());
}

/// A file system of two MiB, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where nothing may be mounted.
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]);
        let mounted = command.arg(at).output().is_ok_and(|of| of.status.success());
        mounted.then(|| Self(at.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_real_small_disk_is_waited_for() {
    let daemon = daemon_without_shards(BINARY);
    let Some(disk) = SmallDisk::mount(&daemon.path().join("small")) else {
        println!("skipped: nothing may be mounted here");
        return;
    };
    let filler = disk.0.join("filler");
    let options = live_with(&[&PUBLISHING_SOON[..], &["--out", "small/out"]].concat());
    let mut live = Live::start(daemon.command(&options));
    live.wait_for(&event("watching"));
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&published(1));
    // The file takes all room that is left, and the write fails for lack of more.
    let _ = fs::write(&filler, vec![0; 2 << 20]);
    write_rows_of_both_sites(&daemon, "b", 1.0);
    live.wait_for(&said("is full"));
    fs::remove_file(&filler).unwrap();
    live.wait_for(&said("has room again"));
    live.wait_for(&published(2));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(daemon.manifest("small/out")["inputs"]["shards"], 2);
}
