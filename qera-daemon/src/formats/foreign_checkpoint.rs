//! Checkpoints in other formats than safetensors: which format it is, and what the user can do.

use core::fmt;

/// The first bytes of a GGUF file.
const GGUF: &[u8] = b"GGUF";
/// The endings of PyTorch's file names. The first bytes of such files, a zip archive or a pickle,
/// may be anything.
const PYTORCH: [&str; 5] = [".bin", ".pt", ".pth", ".ckpt", ".bin.index.json"];
/// Files of a training run that have such names but no weights of a model.
const TRAINING: [&str; 4] = [
    "training_args.bin",
    "optimizer.bin",
    "optimizer.pt",
    "scheduler.pt",
];

/// A format that is not read. It displays as the end of a sentence about the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForeignCheckpoint {
    /// llama.cpp's.
    Gguf,
    /// Pickled tensors.
    PyTorch,
}

impl ForeignCheckpoint {
    /// How many of a file's first bytes tell its format.
    pub(crate) const FIRST_BYTES: usize = 4;

    /// The format of a file with this name and these first bytes, if it is one of these.
    #[must_use]
    pub(crate) fn of(name: &str, first_bytes: &[u8]) -> Option<Self> {
        if first_bytes.starts_with(GGUF) {
            return Some(Self::Gguf);
        }
        let named = PYTORCH.iter().any(|end| name.ends_with(end));
        (named && !TRAINING.contains(&name)).then_some(Self::PyTorch)
    }
}

impl fmt::Display for ForeignCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gguf => {
                "is a GGUF file: give the file itself, not its folder"
            }
            Self::PyTorch => {
                "is a PyTorch checkpoint, which is not read, only safetensors are: load the model and write it anew by model.save_pretrained(folder, safe_serialization=True)"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_first_bytes_or_its_name() {
        let of = ForeignCheckpoint::of;
        let gguf = Some(ForeignCheckpoint::Gguf);
        assert_eq!(of("model.safetensors", b"GGUF"), gguf);
        assert_eq!(of("pytorch_model.bin", b"GGUF\x03"), gguf);
        for name in [
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "consolidated.00.pth",
            "model.pt",
            "last.ckpt",
        ] {
            let found = of(name, b"PK\x03\x04");
            assert_eq!(found, Some(ForeignCheckpoint::PyTorch), "{name}");
        }
        for name in [
            "training_args.bin",
            "optimizer.pt",
            "config.json",
            "model.safetensors",
        ] {
            assert_eq!(of(name, b"PK\x03\x04"), None, "{name}");
        }
    }
}
