//! What the daemon adds to the kernel: bf16 shards from the page cache, folded by a whole process
//! that only gathers (`--once`, no checkpoint, one thread), against X^T X of the same rows by the
//! kernel alone; CPU seconds of both, in turn.
//!
//! `cargo bench -p qera-benches --bench ingest` needs `target/release/qera-daemon` (`cargo build
//! --release`) or `QERA_DAEMON`, and half a GiB in the temporary folder.
#![expect(clippy::print_stdout, reason = "the table is what a bench is for")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use qera_benches::cpu_time::seconds_of_repeated;
use qera_benches::data::{Noise, activations, stored_as};
use qera_benches::samples::Samples;
use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use qera_core::statistics::BlockShare;
use qera_daemon::{Compute, Cores, Kernel, Scratch, StoredRows, fold_products};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const ROUNDS: usize = 3;
const ROWS: usize = 2048;
const SHARDS: usize = 16;
const WIDTHS: [usize; 3] = [1024, 2048, 4096];
/// Linux counts the CPU time of children in hundredths of a second.
const TICKS: f64 = 100.0;

/// CPU seconds of the children that have ended, by proc(5): utime, stime, cutime, cstime are fields
/// 14 to 17.
fn seconds_of_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let field = |i: usize| after_name.split_whitespace().nth(i - 3);
    let ticks = |i| field(i).and_then(|f| f.parse::<f64>().ok());
    (ticks(16).unwrap_or(f64::NAN) + ticks(17).unwrap_or(f64::NAN)) / TICKS
}

fn daemon() -> PathBuf {
    std::env::var_os("QERA_DAEMON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/qera-daemon"),
        PathBuf::from,
    )
}

/// CPU seconds of a daemon that folds the shards.
fn ingest(folder: &Path, round: usize) -> Result<f64, String> {
    let before = seconds_of_children();
    let state = folder.join(format!("state-{round}"));
    let mut command = Command::new(daemon());
    command.args(["--once", "--threads", "1", "--watch"]);
    command
        .arg(folder.join("shards"))
        .arg("--state")
        .arg(&state);
    command.stderr(Stdio::null());
    let status = command
        .status()
        .map_err(|e| format!("{}: {e}", daemon().display()))?;
    if !status.success() {
        return Err(format!("the daemon ended with {status}"));
    }
    std::fs::remove_dir_all(state).map_err(|e| e.to_string())?;
    Ok(seconds_of_children() - before)
}

fn shards(folder: &Path, m: usize) -> Result<Vec<u8>, String> {
    let folder = folder.join("shards");
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let numbers = activations(&mut Noise::new(1), ROWS, m);
    let mut rows = stored_as(&numbers, FloatDtype::Bf16);
    for shard in 0..SHARDS {
        // Another number in front: the same content would be folded once.
        rows[0] = u8::try_from(shard).unwrap_or_default();
        let view = TensorView::new(Dtype::BF16, vec![ROWS, m], &rows).map_err(|e| e.to_string())?;
        let path = folder.join(format!("{shard:03}.safetensors"));
        safetensors::serialize_to_file([("layers.0.down_proj", view)], None, &path)
            .map_err(|e| e.to_string())?;
    }
    Ok(rows)
}

fn measure(m: usize) -> Result<(), String> {
    let folder = std::env::temp_dir().join(format!("qera-ingest-{}", std::process::id()));
    let rows = shards(&folder, m)?;
    let cores = Cores::new(1);
    let _core = cores.take();
    let compute = Compute::new(Kernel::best(), &cores);
    let mut packed = vec![0.0; packed_len(m)];
    let mut scratch = Scratch::default();
    let mut kernel = || {
        let rows = StoredRows::bytes(&rows, FloatDtype::Bf16, m);
        fold_products(compute, rows, &mut packed, &mut scratch, |count| {
            BlockShare::new(1.0, count as f64)
        });
    };
    let mut shares = Vec::new();
    for round in 0..ROUNDS {
        let alone = SHARDS as f64 * seconds_of_repeated(1.0, &mut kernel);
        shares.push(100.0 * alone / ingest(&folder, round)?);
    }
    let shares = Samples::new(shares);
    println!("{m:>6}  {} % of the kernel's rate", shares.text(0));
    std::fs::remove_dir_all(folder).map_err(|e| e.to_string())
}

fn main() -> Result<(), String> {
    println!(
        "{SHARDS} bf16 shards of {ROWS} rows, whole process, {}",
        Kernel::best().name()
    );
    WIDTHS.into_iter().try_for_each(measure)
}
