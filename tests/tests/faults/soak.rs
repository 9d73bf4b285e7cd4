//! A stream of twenty times the fixture at full speed, beside a disk of which some calls fail all
//! the time: memory and descriptors stay what they are, and every row counts once.

use core::time::Duration;
use std::fs;
use std::path::Path;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{event, folded, published};
use qera_tests::fixture::{fixture_run, fixture_shards, fixtures};
use qera_tests::live::{Footprint, Live};
use qera_tests::tier::cases;
use serde_json::Value;

use crate::{BINARY, SHIM};

/// How often the fixture's shards come: the first time to settle, then in two halves that are
/// compared.
const ROUNDS: usize = 20;
/// Producers wait while more than this does.
const PAUSE_ABOVE: &str = "16MiB";
/// The second half may need so much more than the first: peaks of one process differ by a twentieth
/// either way. Each half brings ten times the memory that is needed.
const GROWTH: f64 = 1.15;
/// Files that are open for a moment more or less; each half brings eighty shards.
const OPEN_FOR_A_MOMENT: usize = 4;

/// What a half of the stream needed at most.
#[derive(Debug, Default, Clone, Copy)]
struct Peak {
    anonymous: u64,
    descriptors: usize,
}

impl Peak {
    fn see(&mut self, of: Footprint) {
        self.anonymous = self.anonymous.max(of.anonymous);
        self.descriptors = self.descriptors.max(of.descriptors);
    }
}

/// The same rows as other content: as many blanks behind the header as make it another file.
fn again(shard: &[u8], round: usize) -> Vec<u8> {
    let (length, rest) = shard.split_first_chunk().unwrap();
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
    let (header, numbers) = rest.split_at(length);
    let blanks = vec![b' '; 8 * round];
    let length = (length + blanks.len()) as u64;
    [&length.to_le_bytes(), header, &blanks, numbers].concat()
}

/// Puts a shard into the folder, when nobody asks for a pause; looks at the daemon meanwhile.
fn arrive(folder: &Path, name: &str, bytes: &[u8], mut look: impl FnMut()) {
    while folder.join(".qera-pause").exists() {
        look();
        std::thread::sleep(Duration::from_millis(2));
    }
    let aside = folder.join(format!(".{name}"));
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, folder.join(format!("{name}.safetensors"))).unwrap();
    look();
}

#[test]
fn a_long_stream_beside_a_bad_disk_needs_no_more_and_no_more() {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let more = [
        ["--consume", "delete"],
        ["--idle-publish", "2"],
        ["--shrinkage", "0.5"],
        ["--keep-generations", "3"],
        ["--pause-above", PAUSE_ABOVE],
    ];
    let blocks = cases(1, 4);
    let mut command = daemon.command(&fixture_run(&daemon.watched(), blocks, more.as_flattened()));
    let faults = SHIM.fail_now_and_then(&mut command, &daemon.path().display().to_string());
    let mut live = Live::start(command);
    live.wait_for(&event("watching"));
    let shards: Vec<_> = fixture_shards()
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    let (mut halves, begun) = ([Peak::default(); 2], std::time::Instant::now());
    for round in 0..ROUNDS {
        // What comes first settles nothing.
        let half = (round > 0).then(|| 2 * round / ROUNDS);
        for (number, shard) in shards.iter().enumerate() {
            let name = format!("{round:02}-{number}");
            arrive(&daemon.watched(), &name, &again(shard, round), || {
                if let Some(half) = half {
                    halves[half].see(live.footprint());
                }
            });
        }
        live.wait_for(&folded(&format!("{round:02}-{}", shards.len() - 1)));
    }
    live.wait_for(&published(ROUNDS * shards.len()));
    halves[1].see(live.footprint());
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let [first, second] = halves;
    let bytes: usize = shards.iter().map(Vec::len).sum();
    let faults = faults.count();
    println!(
        "soak: {ROUNDS} times {} shards, {:.0} MB in {seconds:.0} s, {faults} calls failed; \
         at most {:.1} and {:.1} MiB, {} and {} descriptors",
        shards.len(),
        (ROUNDS * bytes) as f64 / 1e6,
        first.anonymous as f64 / 1048576.0,
        second.anonymous as f64 / 1048576.0,
        first.descriptors,
        second.descriptors
    );
    assert!(faults > 50, "{faults}");
    assert!(
        second.anonymous as f64 <= GROWTH * first.anonymous as f64,
        "{halves:?}"
    );
    assert!(
        second.descriptors <= first.descriptors + OPEN_FOR_A_MOMENT,
        "{halves:?}"
    );
    every_row_counts_once(&daemon, shards.len(), blocks);
}

fn every_row_counts_once(daemon: &TestDaemon, shards: usize, blocks: usize) {
    assert!(
        fs::read_dir(daemon.watched())
            .unwrap()
            .all(|of| of.unwrap().path().is_dir())
    );
    let manifest = daemon.manifest("qera-out");
    assert_eq!(manifest["inputs"]["shards"], ROUNDS * shards);
    let of_one_pass = TestDaemon::new(BINARY);
    let once = fixture_run(&fixtures().join("activations"), blocks, &["--once"]);
    expect(&of_one_pass.run(&once), 0, &[]);
    let rows = |manifest: &Value| -> Vec<u64> {
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| layer["rows"].as_u64().unwrap())
            .collect()
    };
    let expected = rows(&of_one_pass.manifest("qera-out"));
    let expected: Vec<_> = expected.into_iter().map(|of| of * ROUNDS as u64).collect();
    assert_eq!(rows(&manifest), expected);
    let verdict = daemon.verify(&[]);
    assert_eq!(verdict.code, 0, "{}", verdict.output);
}
