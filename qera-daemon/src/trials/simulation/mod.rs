//! Whole runs of the daemon, `--once` and live, on a disk in memory that is cut off, fails or loses
//! power at any call, with a folder whose files come, go and change before and meanwhile, held
//! against a simple model of what has to count.
//!
//! A history is a function of a number: its threads go one at a time (`trials/turns/`), its time is
//! its own. `cargo test` takes a few; `./ci.sh crash` says how many by `QERA_CUTS`, and
//! `QERA_CRASH_LEDGER` names a file of what was run, from which it goes on.

mod history;
mod model;
mod one_run;
mod oracle;
mod tally;

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use crate::disk::simulated::{Disk, Trouble};
use crate::trials::simulation::history::{History, Told};
use crate::trials::simulation::one_run::OneRun;
use crate::trials::simulation::tally::Tally;
use crate::trials::small_run::{RealFolder, run_once};

/// Histories where nobody says how many.
const FEW: u64 = 60;

#[test]
fn histories_lose_nothing_and_count_nothing_twice() {
    let asked = std::env::var("QERA_CUTS").map_or(FEW, |asked| asked.parse().unwrap());
    let tally = Mutex::new(Tally::before());
    let first = tally.lock().unwrap().cases;
    let next = AtomicU64::new(first);
    let broken = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= first + asked {
                        break;
                    }
                    let Told {
                        tally: of, wrong, ..
                    } = History::run(number);
                    tally.lock().unwrap().add(of);
                    broken.lock().unwrap().extend(wrong);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    let is_sound = tally.is_sound();
    tally.keep();
    let broken = broken.into_inner().unwrap();
    assert!(
        broken.is_empty(),
        "{} broken:\n{}",
        broken.len(),
        broken.join("\n")
    );
    assert!(is_sound);
}

/// Every call and every byte that is left are the same again, so a number is all of a history.
#[test]
fn a_number_replays_byte_by_byte() {
    // Others than those of the test beside it, which may run at the same time.
    for number in (1 << 40)..(1 << 40) + 12 {
        let first = History::run(number);
        let again = History::run(number);
        assert_eq!(first.told, again.told, "history {number}");
        assert_eq!(first.trace, again.trace, "history {number}\n{}", first.told);
    }
}

/// A run on the disk in memory gives the bytes of one on a real disk.
#[test]
fn a_simulated_run_is_as_a_real_one() {
    let real = RealFolder::with_shards("simulated", 2);
    run_once(&real.0, "").unwrap();
    let disk = Disk::mount("as-real", oracle::folder(&[0, 1]), Trouble::None);
    let ended = OneRun::to_the_end(0, "rank = 2").on(&disk, |_| String::new());
    ended.ended.unwrap().unwrap();
    let image = disk.image();
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        let path = format!("out/current/{file}");
        assert_eq!(image.get(&path).unwrap(), real.read(&path), "{file}");
    }
}
