//! Whole runs of the daemon, `--once` and live, on a disk in memory that is cut off, fails or loses
//! power at any call, with a folder whose files come, go and change before and meanwhile, held
//! against a simple model of what has to count.
//!
//! A history is a function of a number: its threads go one at a time (`trials/turns/`), its time is
//! its own. `cargo test` takes a few; `./ci.sh crash` says how many by `QERA_CUTS`, and
//! `QERA_CRASH_LEDGER` names a file of what was run, from which it goes on. One in a hundred is on
//! the fixture, whose runs take longer.

mod history;
mod model;
mod one_run;
mod oracle;
mod tally;
mod world;

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use crate::disk::simulated::{Cut, Disk, Trouble};
use crate::exit::Exit;
use crate::trials::draw::Draw;
use crate::trials::simulation::history::{History, Told};
use crate::trials::simulation::one_run::OneRun;
use crate::trials::simulation::oracle::{Asked, Left, undisturbed};
use crate::trials::simulation::tally::Tally;
use crate::trials::simulation::world::World;
use crate::trials::small_run::{OPTIONS, RealFolder, folder, run_once};

/// Histories where nobody says how many.
const FEW: u64 = 60;

/// Histories after which the ledger is written: what is killed goes on behind them.
const BLOCK: usize = 200;

/// Tells the story of one history: `QERA_HISTORY=NUMBER`.
#[test]
fn a_history_is_told() {
    if let Ok(number) = std::env::var("QERA_HISTORY") {
        let Told {
            told, log, wrong, ..
        } = History::run(number.parse().unwrap());
        println!("{told}{log}");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// These histories, on as many threads as there are cores; what broke.
fn run_all(numbers: Range<u64>, tally: &Mutex<Tally>) -> Vec<String> {
    let next = AtomicU64::new(numbers.start);
    let broken = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= numbers.end {
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
    broken.into_inner().unwrap()
}

#[test]
fn histories_lose_nothing_and_count_nothing_twice() {
    let asked = std::env::var("QERA_CUTS").map_or(FEW, |asked| asked.parse().unwrap());
    let tally = Mutex::new(Tally::before());
    let first = tally.lock().unwrap().cases;
    let end = first + asked;
    for begin in (first..end).step_by(BLOCK) {
        let broken = run_all(begin..end.min(begin + BLOCK as u64), &tally);
        let count = broken.len();
        // The ledger stays before them, so that they are run again.
        assert!(broken.is_empty(), "{count} broken:\n{}", broken.join("\n"));
        tally.lock().unwrap().keep();
    }
    let tally = tally.into_inner().unwrap();
    println!("{}", tally.line());
    assert!(tally.is_sound());
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

/// A run that is killed at a sync leaves names or lines that are not durable. The next one goes on
/// from them and consumes the shards; then the machine loses power.
#[test]
fn what_a_killed_run_did_not_sync_the_next_one_does() {
    let options = format!("{OPTIONS}rank = 2\nconsume = \"delete\"\n");
    let run = |image, trouble| {
        let disk = Disk::mount("unsynced", image, trouble);
        let ended = OneRun::to_the_end(0, &options).on(&disk, |_| String::new());
        (disk, ended.ended.unwrap())
    };
    let mut draw = Draw::new(0);
    let whole = Asked {
        world: "small",
        shards: vec![0, 1],
        rank: 2,
    };
    let whole = undisturbed(World::of(0), &whole);
    for at in 1.. {
        let (disk, _) = run(folder(&[0, 1]), Trouble::CutAtSync { at });
        let is_cut = disk.is_cut();
        let killed = disk.image().after(Cut::Kill, &mut draw);
        let (disk, ended) = run(killed, Trouble::None);
        assert!(matches!(ended, Ok(Exit::Done)), "sync {at}: {ended:?}");
        for _ in 0..4 {
            let found = disk.image().after(Cut::Power, &mut draw);
            let (disk, ended) = run(found, Trouble::None);
            assert!(matches!(ended, Ok(Exit::Done)), "sync {at}: {ended:?}");
            assert_eq!(Left::of(&disk.image()), Some(whole.clone()), "sync {at}");
        }
        if !is_cut {
            assert!(at > 20, "{at}");
            return;
        }
    }
}

/// A run on the disk in memory gives the bytes of one on a real disk.
#[test]
fn a_simulated_run_is_as_a_real_one() {
    let real = RealFolder::with_shards("simulated", 2);
    run_once(&real.0, "").unwrap();
    let disk = Disk::mount("as-real", folder(&[0, 1]), Trouble::None);
    let ended = OneRun::to_the_end(0, &format!("{OPTIONS}rank = 2")).on(&disk, |_| String::new());
    ended.ended.unwrap().unwrap();
    let image = disk.image();
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        let path = format!("out/current/{file}");
        assert_eq!(image.get(&path).unwrap(), real.read(&path), "{file}");
    }
}
