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

use crate::trials::draw::Draw;
use targets::TARGETS;

/// Inputs of each target where nobody says how many.
const FEW: u64 = 3000;
/// A parser may take at most this long for an input of a few kilobytes.
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
            let at = Instant::now();
            let read = catch_unwind(AssertUnwindSafe(|| (self.read)(&input)));
            let took = at.elapsed();
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
        std::fs::write(path, lines.collect::<String>()).unwrap();
    }
}

/// Runs inputs of one target behind those of the ledger, and enters them there.
fn run_on(target: &Target, count: u64, ran: &Mutex<BTreeMap<String, u64>>) -> Result<(), String> {
    let first = ran.lock().unwrap().get(target.name).copied().unwrap_or(0);
    let tally = target.run(first, count)?;
    {
        let mut ran = ran.lock().unwrap();
        ran.insert(target.name.to_owned(), first + tally.executions);
        keep(&ran);
    }
    tally.report(target.name)
}

/// Every target, on as many threads as there are cores.
#[test]
fn every_target_takes_its_inputs() {
    let count = std::env::var("QERA_FUZZ").map_or(FEW, |count| count.parse().unwrap());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, ran) = (AtomicUsize::new(0), Mutex::new(ran_before()));
    let broken = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(target) = TARGETS.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if let Err(said) = run_on(target, count, &ran) {
                        broken.lock().unwrap().push(said);
                    }
                }
            });
        }
    });
    let ran = ran.into_inner().unwrap();
    let said = ran.iter().map(|(name, count)| format!(" {name}={count}"));
    println!("fuzz:{}", said.collect::<String>());
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

impl Tally {
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

/// A number is the whole of an input.
#[test]
fn an_input_is_a_function_of_its_number() {
    for target in &TARGETS {
        let inputs = |first: u64| (first..first + 50).map(|number| target.input(number));
        let (one, again) = (inputs(7).collect::<Vec<_>>(), inputs(7).collect::<Vec<_>>());
        assert_eq!(one, again, "{}", target.name);
        assert_ne!(one, inputs(57).collect::<Vec<_>>(), "{}", target.name);
    }
}
