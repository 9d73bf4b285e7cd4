//! The whole daemon on the fixture.

use qera_tests::adapter::Adapter;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{folded, published};
use qera_tests::fixture::{fixture_run, fixture_shards, fixtures};
use qera_tests::live::{Live, arrive};
use qera_tests::precision::SOLVE_COLD;
use qera_tests::tier;

use super::BINARY;
use super::settled::assert_same_statistics;
use super::stand_in::{Counts, StandIn, counts_of};

/// f of a solve on the device against the host's from the same R, relative, where the host is
/// within as much of the optimum.
const DEVICE_AND_HOST: f64 = 1e-9;

fn blocks() -> usize {
    tier::cases(1, 4)
}

/// The host's kernel is one that sums as the device does: f32, over 512 rows. Kernels that round
/// less often differ from both by more than a solve may.
fn once(more: &[&str]) -> Vec<String> {
    let watched = fixtures().join("activations");
    let once = ["--once", "--kernel", "portable"];
    fixture_run(&watched, blocks(), &[&once, more].concat())
}

/// Asserts that f of every layer is the other's, relative, of both without and with correction.
fn assert_same_errors(found: &Adapter, expected: &Adapter, most: f64) {
    let layers = |of: &Adapter| of.manifest["layers"].as_array().unwrap().clone();
    let (found, expected) = (layers(found), layers(expected));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        for key in ["without", "with"] {
            let [a, b] = [found, expected].map(|of| of["error"][key].as_f64().unwrap());
            assert!(
                (a - b).abs() <= most * b,
                "{} {key}: {a} {b}",
                found["name"]
            );
        }
    }
}

/// In a batch: R within its bound, everything else of the state bit for bit, f as exact as the
/// host's; the manifest names the device; nothing is left allocated. The order in which the device
/// does its work and the number of threads make no difference.
#[test]
fn a_batch_beside_the_device_is_the_hosts() {
    let host = TestDaemon::new(BINARY);
    expect(
        &host.run(&once(&["--device", "cpu"])),
        0,
        &["computing on the CPU by", "(--device cpu)"],
    );
    let mut bytes = Vec::new();
    for (seed, threads) in [(1, "1"), (2, "2"), (3, "2")] {
        let there = TestDaemon::new(BINARY);
        let standing = StandIn {
            seed,
            ..StandIn::default()
        };
        let run = standing.run(&there, &once(&["--device", "cuda", "--threads", threads]));
        expect(&run, 0, &["computing on "]);
        assert!(!run.log.contains("device failed"), "{}", run.log);
        let [a, b] = [&there, &host].map(|of| of.path().join("qera-out/state"));
        assert_same_statistics(&a, &b, &format!("seed {seed}"));
        let adapter = there.adapter("qera-out");
        assert_same_errors(&adapter, &host.adapter("qera-out"), SOLVE_COLD);
        let device = &adapter.manifest["device"];
        assert!(
            device["name"].is_string() && device["libraries"].is_array(),
            "{device}"
        );
        assert_eq!(device["inputs_summed"], 4 * blocks(), "{device}");
        assert_eq!(device["layers_solved"], 7 * blocks(), "{device}");
        assert_eq!(device["layers_rounded"], 0, "{device}");
        let counts = Counts::read(&there);
        assert!(counts.calls > 0 && counts.left == 0, "{counts:?}");
        bytes.push(adapter.bytes);
    }
    assert!(host.adapter("qera-out").manifest["device"].is_null());
    assert!(bytes.iter().all(|of| *of == bytes[0]));
}

/// A state that the host gathered, solved on both sides: from the same R f is the same.
#[test]
fn a_solve_on_the_device_is_as_exact() {
    let host = TestDaemon::new(BINARY);
    expect(&host.run(&once(&["--device", "cpu"])), 0, &[]);
    let solve = |out: &str, device: &str| {
        let run = once(&[
            "--state",
            "qera-out/state",
            "--out",
            out,
            "--device",
            device,
        ]);
        let mut options: Vec<String> = vec!["solve".into()];
        // `solve` reads no folder.
        options.extend(run.into_iter().filter(|option| option != "--once"));
        let watched = options
            .iter()
            .position(|option| option == "--watch")
            .unwrap();
        options.drain(watched..watched + 2);
        options
    };
    expect(&host.run(&solve("here", "cpu")), 0, &[]);
    let run = StandIn::default().run(&host, &solve("there", "cuda"));
    expect(&run, 0, &["computing on "]);
    let device = host.manifest("there")["device"].clone();
    assert_eq!(device["inputs_summed"], 0, "{device}");
    assert_eq!(device["layers_solved"], 7 * blocks(), "{device}");
    let [here, there] = ["here", "there"].map(|out| host.adapter(out));
    assert_same_errors(&there, &here, DEVICE_AND_HOST);
}

/// Live, with solve points while rows are folded: the drained folder ends as a batch on the device
/// does, bit for bit.
#[test]
fn a_live_run_ends_as_a_batch_does() {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let more = ["--idle-publish", "1", "--device", "cuda"];
    let mut command = daemon.command(&fixture_run("activations".as_ref(), blocks(), &more));
    StandIn::default().beside(&mut command, &counts_of(&daemon));
    let mut live = Live::start(command);
    for (index, shard) in fixture_shards().iter().enumerate() {
        let name = format!("s{index}");
        arrive(shard, &daemon.watched(), &name);
        if index % 3 == 0 {
            live.wait_for(&folded(&name));
        }
    }
    live.wait_for(&published(8));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!live.log.contains("device failed"), "{}", live.log);

    let batch = TestDaemon::new(BINARY);
    let options = fixture_run(&daemon.watched(), blocks(), &["--once", "--device", "cuda"]);
    expect(&StandIn::default().run(&batch, &options), 0, &[]);
    let (live, batch) = (daemon.adapter("qera-out"), batch.adapter("qera-out"));
    assert!(
        live.bytes == batch.bytes,
        "adapter_model.safetensors differs"
    );
}
