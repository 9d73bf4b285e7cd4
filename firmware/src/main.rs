//! A slice of a real layer, corrected on a microcontroller: 128 inputs and outputs, rank 8, 256
//! rows of the layer's own inputs. The core quantizes W, gathers R, solves, and sends what it saw.
//!
//! The same program runs on an emulated Cortex-M4F, on an emulated 32-bit RISC-V without floating
//! point, and on the machine that builds it. The digest over every bit of A, B, both errors and all
//! that was sent has to be that of the latter (`QERA_EXPECTED` when it is built): else it ends with
//! status 1.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod digest;
mod layer;
mod platform;

use core::fmt::Write;

use digest::Digest;
use platform::Console;

/// What the digest has to be, in hexadecimal, where the build says it.
const EXPECTED: Option<&str> = option_env!("QERA_EXPECTED");

/// Runs everything; the status to end with.
fn run() -> u8 {
    let mut digest = Digest::new();
    let Ok(figures) = layer::correct(&mut digest) else {
        let _ = writeln!(Console, "device: the layer was refused");
        return 2;
    };
    let _ = writeln!(
        Console,
        "device: rows={} error={} -> {} millionths, rank {}, {} bytes sent",
        figures.rows, figures.before, figures.after, figures.rank, figures.sent
    );
    let _ = writeln!(
        Console,
        "device: instructions: {} a row, {} the solve",
        figures.per_row, figures.solve
    );
    let (stack, buffers) = (platform::stack_peak(), layer::BUFFERS);
    let _ = writeln!(Console, "device: stack={stack} buffers={buffers}");
    let _ = writeln!(Console, "device: digest={:016x}", digest.value());
    match EXPECTED.map(|text| u64::from_str_radix(text, 16)) {
        None => 0,
        Some(Ok(expected)) if expected == digest.value() => {
            let _ = writeln!(Console, "device: bits=equal");
            0
        }
        Some(_) => {
            let _ = writeln!(Console, "device: the bits differ from the host's");
            1
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    run().into()
}
