//! Decodes GGUF blocks from standard input to f32 on standard output, for programs that compare
//! them with other decoders: `gguf_blocks NUMBER < blocks > values`, the type by its number.

use std::error::Error;
use std::io::{self, Read, Write};

fn main() -> Result<(), Box<dyn Error>> {
    let number = std::env::args()
        .nth(1)
        .ok_or("the number of a type is missing")?;
    let mut blocks = Vec::new();
    io::stdin().lock().read_to_end(&mut blocks)?;
    let values = qera_daemon::decode_gguf_blocks(number.parse()?, &blocks)?;
    let bytes: Vec<_> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    io::stdout().lock().write_all(&bytes)?;
    Ok(())
}
