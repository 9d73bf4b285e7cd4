//! The right to use a core: never more than there are, whoever asks, and none is lost.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Barrier, mpsc};
use std::thread;

use qera_daemon::Cores;

/// Long enough for a thread to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts how many pieces run at once.
#[derive(Default)]
struct Gauge {
    running: AtomicUsize,
    most: AtomicUsize,
    done: AtomicUsize,
}

impl Gauge {
    fn piece(&self) {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        thread::sleep(Duration::from_micros(300));
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Runs `work` with a core held; panics when it takes too long.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (done, waits) = mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    assert!(waits.recv_timeout(PATIENCE).is_ok(), "it hangs or panicked");
    thread.join().unwrap();
}

/// All cores are idle and can be used together: as many pieces as cores wait for each other.
fn all_are_there(cores: &'static Cores, threads: usize) {
    in_time(move || {
        let _core = cores.take();
        let all = Barrier::new(threads);
        cores.spread((0..threads).collect(), |_| {
            all.wait();
        });
    });
}

fn leaked(threads: usize) -> &'static Cores {
    Box::leak(Box::new(Cores::new(threads)))
}

#[test]
fn idle_cores_are_used() {
    for threads in [1, 2, 3, 5] {
        all_are_there(leaked(threads), threads);
    }
    all_are_there(leaked(0), 1);
}

#[test]
fn never_more_pieces_at_once_than_cores() {
    for threads in [1, 2, 3] {
        let cores = Cores::new(threads);
        let gauge = Gauge::default();
        thread::scope(|scope| {
            for caller in 0..6 {
                let (cores, gauge) = (&cores, &gauge);
                scope.spawn(move || {
                    for round in 0..8 {
                        let _core = cores.take();
                        cores.spread(vec![(); 1 + (caller + round) % 7], |()| gauge.piece());
                    }
                });
            }
        });
        let pieces: usize = (0..6)
            .flat_map(|caller| (0..8).map(move |round| 1 + (caller + round) % 7))
            .sum();
        assert_eq!(
            gauge.done.load(Ordering::SeqCst),
            pieces,
            "each piece is done once"
        );
        assert!(
            gauge.most() <= threads,
            "{} at once on {threads} cores",
            gauge.most()
        );
    }
}

/// Also within a piece: what is spread there finds the cores that are left.
#[test]
fn nested_pieces_share_the_same_cores() {
    let cores = Cores::new(3);
    let gauge = Gauge::default();
    let _core = cores.take();
    cores.spread(vec![(); 5], |()| {
        cores.spread(vec![(); 5], |()| gauge.piece());
    });
    assert_eq!(gauge.done.load(Ordering::SeqCst), 25);
    assert!(gauge.most() <= 3, "{} at once on 3 cores", gauge.most());
}

#[test]
fn every_piece_is_done_once_with_its_own_value() {
    let cores = Cores::new(3);
    let _core = cores.take();
    let mut values = vec![0_u32; 1000];
    cores.spread(values.iter_mut().zip(1..).collect(), |(value, n)| {
        *value += n;
    });
    assert!(values.iter().zip(1..).all(|(value, n)| *value == n));
    cores.spread(Vec::<()>::new(), |()| unreachable!("there is no piece"));
}

/// A panic in a piece reaches the caller, in whichever thread it happened, and gives the cores
/// back.
#[test]
fn a_panic_reaches_the_caller() {
    for threads in [1, 2, 3] {
        let cores = leaked(threads);
        for bad in 0..threads {
            let caught = {
                let _core = cores.take();
                let all = Barrier::new(threads);
                // Every thread has one piece, so that each of them panics in its turn.
                let spread = || {
                    cores.spread((0..threads).collect(), |piece| {
                        all.wait();
                        assert!(piece != bad, "piece {piece} fails");
                    });
                };
                catch_unwind(AssertUnwindSafe(spread))
            };
            assert!(caught.is_err(), "piece {bad} on {threads} cores");
            all_are_there(cores, threads);
        }
    }
}
