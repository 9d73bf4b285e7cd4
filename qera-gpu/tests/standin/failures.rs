//! Any call may fail, and everything is given back.
//!
//! A child process runs a small job on the stand-in, which fails at the Nth call, and reports what
//! is still alive when the process ends. On a real device these tests only run the job.

use crate::inputs::{floats, gram, numbers, rows, second_moment};
use qera_core::dtype::FloatDtype;
use qera_gpu::{
    DeviceError, DeviceFeedback, DeviceOperand, DeviceR, DeviceRows, Offload, OffloadOptions,
    PieceShare, Reason, Triangle,
};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// What became of a job.
#[derive(Debug)]
enum Failure {
    Open(Reason),
    /// And whether the device was lost with it.
    Use(DeviceError, bool),
}

/// A call of everything, `rounds` times.
fn job(rounds: usize) -> Result<(), Failure> {
    for _ in 0..rounds {
        let offload = Offload::open(&OffloadOptions::default()).map_err(Failure::Open)?;
        let offload = Arc::new(offload);
        let done = uses(&offload);
        if let Err(error @ DeviceError::Call { lost, .. }) = &done {
            // Where it was lost the next call answers the same, whatever it is; else it works, or
            // says itself that the device is lost.
            let again = DeviceOperand::new(&offload, &[1.0], 1).err();
            assert_eq!(again.is_some(), offload.is_lost(), "{error}: {again:?}");
            assert!(!lost || again.as_ref() == Some(error), "{error}: {again:?}");
        }
        done.map_err(|error| Failure::Use(error, offload.is_lost()))?;
    }
    Ok(())
}

fn uses(offload: &Arc<Offload>) -> Result<(), DeviceError> {
    let m = 9;
    let packed = second_moment(1, m);
    let mut triangle = Triangle::new(offload, &vec![0.0; packed.len()], m)?;
    let (bytes, values) = rows(2, 30 * m, FloatDtype::F16);
    let weights = [1.0; 10];
    for (n, shard) in bytes.chunks(10 * m * 2).enumerate() {
        let after = 10.0 * (n + 1) as f64;
        let share = PieceShare {
            rows: 10,
            kept: 1.0 - 10.0 / after,
            per_sum: 1.0 / after,
        };
        let stored = DeviceRows {
            bytes: shard,
            dtype: FloatDtype::F16,
            in_features: m,
            weights: (n == 1).then_some(&weights[..]),
        };
        triangle.fold(stored, &[share])?;
    }
    let mut found = vec![0.0; packed.len()];
    triangle.read(&mut found)?;
    // What is read without an error is right.
    let expected = gram(&values, m, |_| 1.0 / 30.0);
    assert!(crate::inputs::entry_error(&found, &expected, m) < 1e-5);
    let r = DeviceR::new(offload, &packed, m)?;
    let operand = DeviceOperand::new(offload, &floats(3, m * 4), m)?;
    let scaled = r.scaled(2.0)?;
    let (x, mut y, mut z) = (numbers(4, 2 * m), [0.0; 8], vec![0.0; 2 * m]);
    operand.times(&x, 2, &mut y)?;
    operand.times_f64(&x, 2, &mut y)?;
    operand.transposed_times(&y, 2, &mut z)?;
    operand.transposed_times_f64(&y, 2, &mut z)?;
    scaled.times(&x, 2, &mut z)?;
    r.times(&x, 2, &mut z)?;
    r.trace_with(&floats(3, m * 4))?;
    let mut feedback = DeviceFeedback::new(offload, &floats(5, m * m), m, 4)?;
    feedback.take(5..m, &floats(6, 4 * (m - 5)))?;
    feedback.due(2..5, &mut [0.0; 12])
}

/// The job of a child; alone it runs undisturbed.
#[test]
fn a_job_runs_and_gives_back() {
    let rounds = std::env::var("QERA_JOB_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    match job(rounds) {
        Ok(()) => println!("job: done"),
        Err(Failure::Open(reason)) => println!("job: not opened: {reason}"),
        Err(Failure::Use(error, lost)) => println!("lost: {lost}\njob: {error}"),
    }
}

/// What a child's job said, and what the stand-in counted.
struct Ended {
    said: String,
    /// Whether the device was lost with what failed; `None` where nothing did.
    lost: Option<bool>,
    counts: String,
}

impl Ended {
    fn count(&self, what: &str) -> u64 {
        let mut pairs = self.counts.lines().filter_map(|line| line.split_once('='));
        let (_, count) = pairs.find(|(name, _)| *name == what).unwrap();
        count.parse().unwrap()
    }

    fn alive(&self) -> u64 {
        let kinds = [
            "allocations",
            "pinned",
            "streams",
            "events",
            "modules",
            "contexts",
            "handles",
        ];
        kinds.iter().map(|kind| self.count(kind)).sum()
    }
}

fn child(name: &str, rounds: usize, fail: &str) -> Ended {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let report = folder.join(format!("standin-{name}-{}", std::process::id()));
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "failures::a_job_runs_and_gives_back",
            "--nocapture",
        ])
        .env("QERA_JOB_ROUNDS", rounds.to_string())
        .env("QERA_STANDIN_FAIL", fail)
        .env("QERA_STANDIN_LEAKS", &report)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{fail}: {text}{errors}");
    let said = text
        .lines()
        .find_map(|line| line.split_once("job: "))
        .unwrap()
        .1
        .to_owned();
    let lost = text.lines().find_map(|line| line.split_once("lost: "));
    let lost = lost.map(|(_, lost)| lost == "true");
    let counts = std::fs::read_to_string(&report).unwrap();
    std::fs::remove_file(&report).unwrap();
    Ended { said, lost, counts }
}

#[test]
fn nothing_is_left_after_many_jobs() {
    let one = child("one", 1, "");
    let many = child("many", 20, "");
    assert_eq!((one.said.as_str(), many.said.as_str()), ("done", "done"));
    assert!(
        many.count("calls") > 19 * one.count("calls"),
        "{}",
        many.counts
    );
    assert_eq!((one.alive(), many.alive()), (0, 0), "{}", many.counts);
}

/// As a device that is lost, as one that fails once, as one that is full: at every call in the long
/// form, at every seventh in the short one.
#[test]
fn any_call_may_fail() {
    let calls = child("calls", 1, "").count("calls");
    assert!(calls > 100, "{calls}");
    let long = std::env::var("QERA_TEST_TIER").is_ok_and(|tier| tier == "long");
    let (mut failed, mut alone) = (0, 0);
    for kind in ["lost", "once", "memory"] {
        for at in (1..=calls).step_by(if long { 1 } else { 7 }) {
            let ended = child(&format!("{kind}-{at}"), 1, &format!("{at}:{kind}"));
            assert_eq!(ended.alive(), 0, "{kind} at {at}: {}", ended.counts);
            let full = ended.said.contains("no room");
            assert!(kind == "memory" || !full, "{kind} at {at}: {}", ended.said);
            failed += usize::from(ended.said != "done");
            // A launch that finds no resources costs no other call; where it shows in a wait, it
            // may be anybody's.
            let waited = ended.said.contains("Synchronize");
            match (kind, ended.lost) {
                ("lost", Some(lost)) => assert!(lost, "{kind} at {at}: {}", ended.said),
                ("once", Some(lost)) => assert_eq!(lost, waited, "{at}: {}", ended.said),
                _ => {}
            }
            alone += usize::from(kind == "once" && ended.lost == Some(false));
        }
    }
    assert!(alone > 0);
    // The last calls give back, and there is nobody to tell.
    assert!(
        failed * 2 > usize::try_from(calls).unwrap() * 3 / if long { 1 } else { 7 } / 2,
        "{failed}"
    );
}
