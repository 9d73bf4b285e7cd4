//! Decodes GGUF blocks from standard input to f32 on standard output, for programs that compare
//! them with other decoders: `gguf_blocks NUMBER < blocks > values`, the type by its number.

use core::error::Error;
use std::io::{self, Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match decode() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn decode() -> Result<(), Box<dyn Error>> {
    let number = std::env::args().nth(1);
    let number = number.ok_or("the number of a type is missing")?.parse()?;
    let mut blocks = Vec::new();
    io::stdin().lock().read_to_end(&mut blocks)?;
    let values = qera_daemon::decode_gguf_blocks(number, &blocks)?;
    let bytes: Vec<_> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    io::stdout().lock().write_all(&bytes)?;
    Ok(())
}
