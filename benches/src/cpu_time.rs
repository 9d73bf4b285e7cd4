//! CPU time of this process, all threads: what a shared machine gives to others is not in it.
//! Shared caches, memory and clock are.

use cpu_time::ProcessTime;

/// CPU seconds of `work`.
pub fn seconds_of(work: impl FnOnce()) -> f64 {
    let before = ProcessTime::now();
    work();
    before.elapsed().as_secs_f64()
}

/// CPU seconds of one `work`, which is repeated until all together take `at_least` seconds; so
/// short ones are measured too.
pub fn seconds_of_repeated(at_least: f64, mut work: impl FnMut()) -> f64 {
    let (mut seconds, mut times) = (0.0, 0.0);
    while seconds < at_least {
        seconds += seconds_of(&mut work);
        times += 1.0;
    }
    seconds / times
}
