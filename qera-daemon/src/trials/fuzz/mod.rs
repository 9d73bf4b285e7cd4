//! Inputs by the million for each parser and each file of the state. An input is a function of the
//! target and a number, so that a number is all that has to be kept of one that found something.
//!
//! A target reads an input as the daemon does, and holds what is accepted against a second reader
//! or against its own encoding; it panics where they differ. Checksums and hashes of most inputs
//! are made valid again, so that the content behind them is reached.
//!
//! `cargo test` runs a few inputs of each. `./ci.sh fuzz` runs `QERA_FUZZ` of each, from the number
//! on that `QERA_FUZZ_LEDGER` names for a target (its file adds up), and prints what was run.

mod mutation;
mod seeds;
mod targets;

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use crate::disk::clock::thread_cpu;
use crate::trials::draw::Draw;
use targets::TARGETS;

/// Inputs of each target where nobody says how many.
const FEW: u64 = 3000;
/// Inputs of a target after which the ledger is written.
const BLOCK: usize = 10_000;
/// The CPU time that a parser may take for an input of a few kilobytes: the time on the wall is
/// that of the machine's other load, too.
const PATIENCE: Duration = Duration::from_secs(5);

/// A parser with its inputs.
#[derive(Debug)]
pub(crate) struct Target {
    /// The name of the parser.
    pub(crate) name: &'static str,
    /// An input.
    pub(crate) make: fn(&mut Draw) -> Vec<u8>,
    /// Reads it; whether it is accepted.
    pub(crate) read: fn(&[u8]) -> bool,
}

/// How many inputs a target was given and accepted, and how long that took.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    executions: u64,
    accepted: u64,
    seconds: f64,
}

impl Target {
    /// The input of this number.
    fn input(&self, number: u64) -> Vec<u8> {
        let name = blake3::hash(self.name.as_bytes());
        let (of_name, _) = name.as_bytes().split_first_chunk().unwrap();
        let seed = u64::from_le_bytes(*of_name).wrapping_add(number);
        (self.make)(&mut Draw::new(seed))
    }

    /// Runs inputs from this number on, up to the first that breaks it.
    fn run(&self, first: u64, count: u64) -> Result<Tally, String> {
        let begun = Instant::now();
        let mut tally = Tally::default();
        for number in first..first + count {
            let input = self.input(number);
            let at = thread_cpu();
            let read = catch_unwind(AssertUnwindSafe(|| (self.read)(&input)));
            let took = thread_cpu().saturating_sub(at);
            let Ok(accepted) = read else {
                let shown = input.escape_ascii();
                return Err(format!("{} breaks at input {number}: {shown}", self.name));
            };
            if took > PATIENCE {
                return Err(format!("{} takes {took:?} for input {number}", self.name));
            }
            tally.executions += 1;
            tally.accepted += u64::from(accepted);
        }
        tally.seconds = begun.elapsed().as_secs_f64();
        Ok(tally)
    }
}

/// How many inputs of each target were run before: a line each, the name and the number.
fn ledger() -> Option<PathBuf> {
    std::env::var_os("QERA_FUZZ_LEDGER").map(PathBuf::from)
}

fn ran_before() -> BTreeMap<String, u64> {
    let text = ledger().and_then(|path| std::fs::read_to_string(path).ok());
    let text = text.unwrap_or_default();
    let entry = |line: &str| {
        let (name, count) = line.split_once(' ').unwrap();
        (name.to_owned(), count.parse().unwrap())
    };
    text.lines().map(entry).collect()
}

fn keep(ran: &BTreeMap<String, u64>) {
    if let Some(path) = ledger() {
        let lines = ran.iter().map(|(name, count)| format!("{name} {count}\n"));
        let aside = path.with_extension("aside");
        std::fs::write(&aside, lines.collect::<String>()).unwrap();
        std::fs::rename(aside, path).unwrap();
    }
}

/// One block of inputs of every target, on as many threads as there are cores. What broke.
fn run_block(
    begins: &BTreeMap<String, u64>,
    count: u64,
    tallies: &Mutex<BTreeMap<String, Tally>>,
) -> Vec<String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, broken) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // The last one is the slowest: no core is to wait for it at the end.
                let take = || {
                    TARGETS
                        .iter()
                        .rev()
                        .nth(next.fetch_add(1, Ordering::SeqCst))
                };
                while let Some(target) = take() {
                    match target.run(begins[target.name], count) {
                        Ok(tally) => {
                            let mut tallies = tallies.lock().unwrap();
                            tallies
                                .entry(target.name.to_owned())
                                .or_default()
                                .add(tally);
                        }
                        Err(said) => broken.lock().unwrap().push(said),
                    }
                }
            });
        }
    });
    broken.into_inner().unwrap()
}

/// Every target, some inputs at a time: what is killed goes on behind them.
#[test]
fn every_target_takes_its_inputs() {
    let count = std::env::var("QERA_FUZZ").map_or(FEW, |count| count.parse().unwrap());
    let mut ran = ran_before();
    for target in &TARGETS {
        ran.entry(target.name.to_owned()).or_default();
    }
    let tallies = Mutex::new(BTreeMap::new());
    for begin in (0..count).step_by(BLOCK) {
        let of_block = (BLOCK as u64).min(count - begin);
        let broken = run_block(&ran, of_block, &tallies);
        // The ledger stays before them, so that they are run again.
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        ran.values_mut().for_each(|ran| *ran += of_block);
        keep(&ran);
    }
    let said = ran.iter().map(|(name, count)| format!(" {name}={count}"));
    println!("fuzz:{}", said.collect::<String>());
    let tallies = tallies.into_inner().unwrap();
    let wrong = tallies
        .iter()
        .filter_map(|(name, of)| of.report(name).err());
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Tally {
    const fn add(&mut self, other: Self) {
        self.executions += other.executions;
        self.accepted += other.accepted;
        self.seconds += other.seconds;
    }

    /// Says what became of the inputs; both outcomes are to be seen, so that content is reached and
    /// what is wrong is told.
    fn report(&self, name: &str) -> Result<(), String> {
        let Self {
            executions,
            accepted,
            seconds,
        } = *self;
        let share = accepted as f64 / executions as f64;
        let pace = executions as f64 / seconds;
        let percent = 100.0 * share;
        println!("{name}: {executions} inputs, {pace:.0} a second, {percent:.0} % accepted");
        if executions >= FEW && !(0.02..0.98).contains(&share) {
            return Err(format!("{name} takes {accepted} of {executions} inputs"));
        }
        Ok(())
    }
}

/// BLAKE3 over the first inputs of every target.
const INPUTS: &str = "2a0ad62d7821b5b8aab44f449ef6ec32c210923e03d6fe4de1f9a9ea8395d745";

/// A number is the whole of an input, in every process and on every machine. Where inputs are made
/// in another way by now, their digest is another one: numbers that were kept of what was found
/// before then mean other inputs.
#[test]
fn a_number_is_the_same_input_everywhere() {
    let mut hasher = blake3::Hasher::new();
    for target in &TARGETS {
        let inputs = |first: u64| (first..first + 200).map(|number| target.input(number));
        let (one, other) = (
            inputs(0).collect::<Vec<_>>(),
            inputs(200).collect::<Vec<_>>(),
        );
        assert_ne!(one, other, "{}", target.name);
        for input in one {
            hasher.update(&input.len().to_le_bytes());
            hasher.update(&input);
        }
    }
    assert_eq!(hasher.finalize().to_hex().as_str(), INPUTS);
}
