//! Real layers with the official implementation's results (`QERA_REFERENCE_DATA`, CONTRIBUTING.md).
//!
//! Absent data skips a golden test, with a line that says so; with CI=true it fails.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::io::Write;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::SafeTensors;

use crate::quantization::quantization_error;
use crate::safetensors_file::{TensorToWrite, write_safetensors};

/// The two layers.
pub const LAYERS: [&str; 2] = ["q_proj_l0", "gate_proj_l15"];

/// A format of the quantizer in which the official results are given.
#[derive(Clone, Copy, Debug)]
pub struct GoldenFormat {
    /// Its name in golden.json.
    pub name: &'static str,
    /// Bits of an element.
    pub element_bits: u32,
    /// Elements that share an exponent.
    pub block_size: usize,
}

/// All of them.
pub const GOLDEN_FORMATS: [GoldenFormat; 3] = [
    GoldenFormat {
        name: "mxint4_bs32",
        element_bits: 4,
        block_size: 32,
    },
    GoldenFormat {
        name: "mxint3_bs32",
        element_bits: 3,
        block_size: 32,
    },
    GoldenFormat {
        name: "mxint2_bs16",
        element_bits: 2,
        block_size: 16,
    },
];

/// A real layer: weight, inputs, and what the official code makes of them.
#[derive(Debug)]
pub struct ReferenceLayer {
    /// Module path in its model.
    pub module: String,
    /// [out_features, in_features].
    pub out_features: usize,
    /// Width.
    pub in_features: usize,
    /// Stored bytes of the weight, bf16.
    pub weight_bytes: Vec<u8>,
    /// The weight, row-major.
    pub weight: Vec<f32>,
    /// Stored bytes of the input rows, bf16.
    pub rows_bytes: Vec<u8>,
    /// Input rows, row-major.
    pub rows: Vec<f32>,
    /// golden.json of this layer.
    pub golden: serde_json::Value,
    folder: PathBuf,
    name: String,
}

/// The folder of the reference data, or `None` after saying that the test is skipped.
///
/// # Panics
/// When CI=true and the data is not there.
#[must_use]
pub fn reference_folder(test: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("QERA_REFERENCE_DATA").map_or(default, PathBuf::from);
    if folder.join("smollm2-layers/golden.json").is_file() {
        return Some(folder.join("smollm2-layers"));
    }
    let message = format!("{test}: no reference data in {}", folder.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
    // Not by a print macro, which the test harness would swallow; .ci/run counts these lines.
    let _ = writeln!(
        std::io::stderr(),
        "skipped: {message}; set QERA_REFERENCE_DATA"
    );
    None
}

impl ReferenceLayer {
    /// Loads a layer.
    ///
    /// # Panics
    /// When the files are not what they should be.
    #[must_use]
    pub fn load(folder: &Path, name: &str) -> Self {
        let golden: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
        let golden = golden[name].clone();
        let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let weight = file.tensor("weight").unwrap();
        let rows = file.tensor("x").unwrap();
        Self {
            module: golden["layer"].as_str().unwrap().into(),
            out_features: weight.shape()[0],
            in_features: weight.shape()[1],
            weight: from_bf16(weight.data()),
            weight_bytes: weight.data().to_vec(),
            rows: from_bf16(rows.data()),
            rows_bytes: rows.data().to_vec(),
            golden,
            folder: folder.to_path_buf(),
            name: name.into(),
        }
    }

    /// The official quantizer's W~ for `mxint4_bs32` and the like, row-major.
    ///
    /// # Panics
    /// When the golden file lacks it.
    #[must_use]
    pub fn quantized(&self, format: &str) -> Vec<f32> {
        let bytes = std::fs::read(
            self.folder
                .join(format!("{}.golden.safetensors", self.name)),
        )
        .unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        from_bf16(file.tensor(&format!("wq.{format}")).unwrap().data())
    }

    /// E of the weight in a format, row-major.
    #[must_use]
    pub fn error(&self, element_bits: u32, block_size: usize) -> Vec<f32> {
        quantization_error(&self.weight, self.in_features, element_bits, block_size)
    }

    /// Writes `checkpoint/model.safetensors` and, into `activations`, files of equal row counts
    /// with the first `rows` rows.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn write_input(&self, folder: &Path, rows: usize, shards: usize) {
        let activations = self.write_checkpoint(folder);
        let each = rows / shards;
        let parts = self.rows_bytes.chunks_exact(each * 2 * self.in_features);
        for (shard, part) in parts.take(shards).enumerate() {
            let shape = [each, self.in_features];
            let tensor = TensorToWrite::new(&self.module, "BF16", &shape, part.to_vec());
            let path = activations.join(format!("shard-{shard:03}.safetensors"));
            write_safetensors(&path, &[tensor], &[]);
        }
    }
}

impl ReferenceLayer {
    /// The same checkpoint, and one shard of so many sequences of the first rows.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn write_sequences(&self, folder: &Path, sequences: usize, length: usize) {
        let activations = self.write_checkpoint(folder);
        let bytes = self.rows_bytes[..sequences * length * 2 * self.in_features].to_vec();
        let shape = [sequences, length, self.in_features];
        let tensor = TensorToWrite::new(&self.module, "BF16", &shape, bytes);
        write_safetensors(&activations.join("shard.safetensors"), &[tensor], &[]);
    }

    /// Writes `checkpoint/model.safetensors`; returns the folder `activations`, made.
    fn write_checkpoint(&self, folder: &Path) -> PathBuf {
        let (checkpoint, activations) = (folder.join("checkpoint"), folder.join("activations"));
        std::fs::create_dir_all(&checkpoint).unwrap();
        std::fs::create_dir_all(&activations).unwrap();
        let weight = TensorToWrite::new(
            &format!("{}.weight", self.module),
            "BF16",
            &[self.out_features, self.in_features],
            self.weight_bytes.clone(),
        );
        write_safetensors(&checkpoint.join("model.safetensors"), &[weight], &[]);
        activations
    }
}

/// bf16 bytes to f32.
#[must_use]
pub fn from_bf16(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(2)
        .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
        .collect()
}
