//! Weights that are rounded by what the rows show, beside the stand-in.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::fixture::{fixture_run, fixtures};
use qera_tests::tier;

use super::BINARY;
use super::settled::assert_same_statistics;
use super::stand_in::{Counts, Failing, OTHERS, StandIn, tells_who_moved};

/// The errors of a W~ that was rounded beside the device against those of the host's, relative.
/// Both R and the feedback are sums in f32 (1e-7 was measured); where a code falls to the other
/// side all that follow are others, too, and none of the two is the better one. Without feedback
/// from later inputs it was 0.3.
const ROUNDED: f64 = 1e-3;

/// Of so many blocks of the model.
fn options(blocks: usize, rounding: &str, device: &str) -> Vec<String> {
    let watched = fixtures().join("activations");
    let more = ["--once", "--emit-base", "--rounding", rounding];
    let more = [&more[..], &["--device", device]].concat();
    fixture_run(&watched, blocks, &more)
}

/// Relative errors of each layer's W~, alone and with its adapter.
fn errors(daemon: &TestDaemon) -> Vec<f64> {
    let manifest = daemon.manifest("qera-out");
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers
        .flat_map(|layer| {
            let of = &layer["rounding"]["error"];
            ["error_alone", "error_with"].map(|key| of[key].as_f64().unwrap())
        })
        .collect()
}

fn assert_as_good(found: &TestDaemon, host: &TestDaemon, what: &str) {
    let [found, host] = [found, host].map(errors);
    assert_eq!(found.len(), host.len(), "{what}");
    for (a, b) in found.iter().zip(&host) {
        assert!((a / b - 1.0).abs() < ROUNDED, "{what}: {a} {b}");
    }
}

/// W~ is as good as the host's, and any order of late work and number of threads gives the same.
#[test]
fn rounding_beside_the_device_is_as_good() {
    let blocks = tier::cases(1, 4);
    for rounding in ["feedback", "projected"] {
        let host = TestDaemon::new(BINARY);
        expect(&host.run(&options(blocks, rounding, "cpu")), 0, &[]);
        let mut bytes = Vec::new();
        for (seed, threads) in [(1, "1"), (2, "2")] {
            let there = TestDaemon::new(BINARY);
            let standing = StandIn {
                seed,
                ..StandIn::default()
            };
            let threads = ["--threads".to_owned(), threads.to_owned()];
            let run = standing.run(
                &there,
                &[options(blocks, rounding, "cuda"), threads.into()].concat(),
            );
            expect(&run, 0, &["computing on "]);
            assert!(!run.log.contains("device failed"), "{}", run.log);
            assert_as_good(&there, &host, rounding);
            let rounded = &there.manifest("qera-out")["device"]["layers_rounded"];
            assert_eq!(rounded, 7 * blocks, "{rounding}");
            let counts = Counts::read(&there);
            assert_eq!(counts.left, 0, "{counts:?}");
            bytes.push(there.adapter("qera-out").bytes);
        }
        assert!(bytes[0] == bytes[1], "{rounding}");
    }
}

/// A device that fails in the midst of it, however: the host goes on with the input at which it
/// failed. One block of the model, so that failures are near each other.
#[test]
fn rounding_goes_on_without_the_device() {
    let host = TestDaemon::new(BINARY);
    expect(&host.run(&options(1, "projected", "cpu")), 0, &[]);
    let whole = TestDaemon::new(BINARY);
    let on_device = options(1, "projected", "cuda");
    expect(&StandIn::default().run(&whole, &on_device), 0, &[]);
    let calls = Counts::read(&whole).calls;
    let ways = [Failing::Lost].into_iter().chain(OTHERS).cycle();
    let mut moved = 0;
    for (part, failing) in (1..=tier::cases(10, 100)).zip(ways) {
        let there = TestDaemon::new(BINARY);
        let fails_at = calls * part / tier::cases(11, 101);
        let run = StandIn::failing_at(fails_at, failing).run(&there, &on_device);
        if run.code == 2 {
            continue; // It failed before it was trusted.
        }
        expect(&run, 0, &[]);
        moved += usize::from(tells_who_moved(&run.log));
        let what = format!("call {fails_at} of {calls}, {failing:?}");
        let [a, b] = [&there, &host].map(|of| of.path().join("qera-out/state"));
        assert_same_statistics(&a, &b, &what);
        assert_as_good(&there, &host, &what);
    }
    eprintln!("rounding: {calls} calls, {moved} runs moved");
    assert!(moved > 0);
}
