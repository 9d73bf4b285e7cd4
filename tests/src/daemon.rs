//! Running the daemon as a process in a folder of its own.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests only")]

use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::SafeTensors;

/// A folder that is removed with the value, and the binary to run in it.
#[derive(Debug)]
pub struct TestDaemon {
    /// The folder.
    pub folder: tempfile::TempDir,
    binary: PathBuf,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// Exit code; -1 when a signal ended the process.
    pub code: i32,
    /// Standard error.
    pub log: String,
    /// Standard output.
    pub output: String,
}

impl TestDaemon {
    /// A fresh folder; `binary` is `env!("CARGO_BIN_EXE_qera-daemon-under-test")`.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn new(binary: &str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            binary: binary.into(),
        }
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command in the folder, for tests that need more than [`run`](Self::run).
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(self.path()).args(arguments);
        command
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Run {
        let output = self.command(arguments).output().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
        }
    }

    /// The adapter that `OUT/current` names.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn adapter(&self, out: &str) -> Adapter {
        Adapter::load(&self.path().join(out).join("current"))
    }
}

/// Asserts how a run ended and what it said.
///
/// # Panics
/// With the whole log, when the code differs or a phrase is missing.
pub fn expect(run: &Run, code: i32, said: &[&str]) {
    assert_eq!(run.code, code, "{}", run.log);
    for words in said {
        assert!(run.log.contains(words), "'{words}' is not in:\n{}", run.log);
    }
}

/// A published generation, read back by independent code.
#[derive(Debug)]
pub struct Adapter {
    /// `adapter_config.json`.
    pub config: serde_json::Value,
    /// `qera_manifest.json`.
    pub manifest: serde_json::Value,
    /// Bytes of `adapter_model.safetensors`.
    pub bytes: Vec<u8>,
}

impl Adapter {
    /// Reads the folder.
    ///
    /// # Panics
    /// When a file is missing or malformed.
    #[must_use]
    pub fn load(folder: &Path) -> Self {
        let json = |name: &str| {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            serde_json::from_slice(&bytes).unwrap()
        };
        Self {
            config: json("adapter_config.json"),
            manifest: json("qera_manifest.json"),
            bytes: std::fs::read(folder.join("adapter_model.safetensors")).unwrap(),
        }
    }

    /// The manifest's record of a layer.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn layer(&self, module: &str) -> &serde_json::Value {
        let layers = self.manifest["layers"].as_array().unwrap();
        layers
            .iter()
            .find(|l| l["name"] == module)
            .unwrap_or_else(|| panic!("{module} is not in the manifest"))
    }

    /// (lora_A [rank, in_features], lora_B [out_features, rank], rank), row-major.
    ///
    /// # Panics
    /// When the adapter lacks the module.
    #[must_use]
    pub fn factors(&self, module: &str) -> (Vec<f32>, Vec<f32>, usize) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let get = |factor: &str| {
            file.tensor(&format!("base_model.model.{module}.lora_{factor}.weight"))
                .unwrap()
        };
        let (a, b) = (get("A"), get("B"));
        assert_eq!(a.shape()[0], b.shape()[1]);
        (decode(&a), decode(&b), a.shape()[0])
    }
}

fn decode(tensor: &safetensors::tensor::TensorView<'_>) -> Vec<f32> {
    match tensor.dtype() {
        safetensors::Dtype::F32 => tensor
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        safetensors::Dtype::F16 => tensor
            .data()
            .chunks_exact(2)
            .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
        _ => crate::reference::from_bf16(tensor.data()),
    }
}

/// f of a correction on rows, straight from the definition: mean over rows of ||x (E - A B)||^2, in f64.
///
/// `error` is E as [out_features, in_features]; A and B as PEFT stores them.
#[must_use]
pub fn output_error(
    rows: &[f32],
    error: &[f32],
    m: usize,
    lora: Option<(&[f32], &[f32], usize)>,
) -> f64 {
    use faer::{Mat, MatRef};
    let (count, n) = (rows.len() / m, error.len() / m);
    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let (rows, error) = (wide(rows), wide(error));
    let x = MatRef::from_row_major_slice(&rows, count, m);
    let mut p: Mat<f64> = MatRef::from_column_major_slice(&error, m, n).to_owned();
    if let Some((a, b, rank)) = lora {
        let (a, b) = (wide(a), wide(b));
        let a = MatRef::from_row_major_slice(&a, rank, m);
        let b = MatRef::from_row_major_slice(&b, n, rank);
        p -= a.transpose() * b.transpose();
    }
    (x * p).squared_norm_l2() / count as f64
}
