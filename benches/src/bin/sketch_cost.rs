//! What a block of 256 rows costs where output errors are sketched: `sketch_cost FORM WHAT M N L`,
//! WHAT being `errors` for d = x E alone or `fold` for all of it, with M inputs, N outputs and
//! L - 1 rows that are kept. It prints CPU seconds, the least of a few; for instructions
//! benches/sketch_cost.py lets callgrind count what [`counted`] calls.
#![expect(clippy::print_stdout, reason = "a figure")]

use core::error::Error;
use core::hint::black_box;

use cpu_time::ProcessTime;
use faer::Mat;
use qera_benches::data::{Noise, activations};
use qera_daemon::{ColumnMajor, Compute, Cores, Kernel, OutputSketch, SKETCH_ROWS, StoredRows};

/// How often it is run; `1` as a sixth argument for callgrind.
const TIMES: usize = 7;

/// Calls `work`: callgrind counts from here until it returns.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [form, what, m, n, l, times @ ..] = &words[..] else {
        return Err("sketch_cost FORM errors|fold M N L [TIMES]".into());
    };
    let (m, n, l): (usize, usize, usize) = (m.parse()?, n.parse()?, l.parse()?);
    let times = times.first().map_or(Ok(TIMES), |times| times.parse())?;
    let cores = Cores::new(1);
    let _core = cores.take();
    let compute = Compute::new(Kernel::named(form)?, &cores);
    let mut noise = Noise::new(1);
    let rows = activations(&mut noise, 2 * SKETCH_ROWS, m);
    let (first, second) = rows.split_at(SKETCH_ROWS * m);
    let error = noise.numbers(m * n);
    let error = ColumnMajor::new(&error, m);
    // A sketch that is full.
    let mut sketch = OutputSketch::new(l - 1, n);
    sketch.fold(compute, error, StoredRows::floats(first, m))?;
    let x = Mat::from_fn(SKETCH_ROWS, m, |i, j| f64::from(second[i * m + j]));
    let mut least = f64::INFINITY;
    for _ in 0..times {
        let mut own = sketch.clone();
        let begun = ProcessTime::now();
        match what.as_str() {
            "errors" => counted(&mut || {
                black_box(compute.operand(error).times(x.as_ref()));
            }),
            "fold" => counted(&mut || {
                let folded = own.fold(compute, error, StoredRows::floats(second, m));
                black_box(folded.is_ok());
            }),
            _ => return Err("WHAT is errors or fold".into()),
        }
        least = least.min(begun.elapsed().as_secs_f64());
    }
    println!("{least}");
    Ok(())
}
