//! Prints what our readers say of each file, a line of JSON each, for the reader that they are held
//! against (`tests/gguf/headers`). After `--rewrite` and a file, each imatrix is written there as
//! well, by our writer.

#![expect(
    clippy::print_stdout,
    reason = "its output is for the reader beside it"
)]

use std::io;

use qera_daemon::LlamaFile;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let rewrite = match arguments.next_if(|first| first == "--rewrite") {
        Some(_) => arguments.next(),
        None => None,
    };
    for path in arguments {
        let bytes = std::fs::read(path)?;
        let file = LlamaFile::read(&bytes);
        println!("{file}");
        if let Some(path) = &rewrite {
            let again = file.imatrix_again().ok_or(io::ErrorKind::InvalidData)?;
            std::fs::write(path, again)?;
        }
    }
    Ok(())
}
