//! A and B in q8_0: what that costs of f on real layers, as they are and with massive channels,
//! beside f16 of the same rank and of the same bytes.

use std::path::Path;

use qera_core::dtype::FloatDtype;
use qera_daemon::{
    Batch, Compute, Cores, Kernel, Scratch, SiteProblem, SiteStatistics, SolvedLayer,
};
use qera_tests::adapter::{LoraFactors, output_error};
use qera_tests::reference::{LAYERS, ReferenceLayer, reference_folder};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::tier;

/// Rows of a sequence.
const SEQUENCE: usize = 1024;
/// Channels that are made so much larger.
const MASSIVE: [usize; 3] = [7, 201, 333];
const AMPLITUDE: f32 = 1e3;
/// The largest loss that a layer is written with.
const LOSS_MAX: f64 = 1e-3;

/// A real layer, its channels as they are or three of them massive.
struct Site {
    folder: tempfile::TempDir,
    layer: ReferenceLayer,
    statistics: SiteStatistics,
    cores: Cores,
}

/// A layer as it was written, and f of that from its definition.
struct Written {
    solved: SolvedLayer,
    f: f64,
}

impl Site {
    fn new(layer: ReferenceLayer, massive: &[usize]) -> Self {
        let mut layer = layer;
        for row in layer.rows.chunks_mut(layer.in_features) {
            massive
                .iter()
                .for_each(|channel| row[*channel] *= AMPLITUDE);
        }
        let cores = Cores::new(2);
        let mut statistics = SiteStatistics::whole(layer.in_features);
        let bytes = layer.rows.iter().flat_map(|x| x.to_le_bytes());
        let count = layer.rows.len() / layer.in_features;
        let batch = Batch {
            site: 0,
            in_features: layer.in_features,
            bytes: bytes.collect::<Vec<_>>().into(),
            dtype: FloatDtype::F32,
            weights: None,
            batches: vec![SEQUENCE; count / SEQUENCE],
            sequences: true,
        };
        let compute = Compute::new(Kernel::best(), &cores);
        {
            let _core = cores.take();
            let mut scratch = Scratch::default();
            statistics.fold(&batch, compute, &mut scratch).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let name = format!("{}.weight", layer.module);
        let shape = [layer.out_features, layer.in_features];
        let tensor = TensorToWrite::new(&name, "BF16", &shape, layer.weight_bytes.clone());
        write_safetensors(&folder.path().join("model.safetensors"), &[tensor], &[]);
        write_config(folder.path(), 9, 3);
        Self {
            folder,
            layer,
            statistics,
            cores,
        }
    }

    fn written(&self, bits: u32, rank: usize, dtype: &str) -> Written {
        let _core = self.cores.take();
        let compute = Compute::new(Kernel::best(), &self.cores);
        let options = format!(
            "quantizer = \"mxint{bits}\"\nrank = {rank}\nshrinkage = \"0\"\n\
             dtype = \"{dtype}\"\nformat = \"gguf\"\n"
        );
        let problem = SiteProblem {
            checkpoint: self.folder.path(),
            options: &options,
            statistics: &self.statistics,
        };
        let solved = problem.solve(compute).unwrap().remove(0);
        let f = self.f(bits, &solved.lora_a, &solved.lora_b);
        Written { solved, f }
    }

    fn f(&self, bits: u32, lora_a: &[f32], lora_b: &[f32]) -> f64 {
        let (layer, m) = (&self.layer, self.layer.in_features);
        let factors = LoraFactors {
            lora_a: lora_a.to_vec(),
            lora_b: lora_b.to_vec(),
            rank: lora_a.len() / m,
        };
        output_error(&layer.rows, &layer.error(bits, 32), m, Some(&factors))
    }
}

/// What a GGUF needs to know of the model that a layer is of.
pub(super) fn write_config(folder: &Path, heads: u32, key_heads: u32) {
    let config = format!(
        r#"{{"model_type":"llama","num_attention_heads":{heads},"num_key_value_heads":{key_heads}}}"#
    );
    std::fs::write(folder.join("config.json"), config).unwrap();
}

/// Rounded to nearest as ggml does, blocks of 32 along the rows.
fn to_nearest(values: &[f32], row: usize) -> Vec<f32> {
    let blocks = values.chunks(row).flat_map(|row| row.chunks(32));
    let rounded = |block: &[f32]| {
        let largest = block.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let d = largest / 127.0;
        let (stored, d) = (half::f16::from_f32(d).to_f32(), d.max(f32::MIN_POSITIVE));
        let number = |x: &f32| (x / d).round() * stored;
        block.iter().map(number).collect::<Vec<_>>()
    };
    blocks.flat_map(rounded).collect()
}

/// One row of the table in docs/gguf.md.
fn check(site: &Site, bits: u32, rank: usize, massive: bool) {
    let exact = site.written(bits, rank, "f32");
    let [f16, q8_0] = ["f16", "q8_0"].map(|dtype| site.written(bits, rank, dtype));
    let same_bytes = site.written(bits, rank / 16 * 17 / 2, "f16");
    let (a, b) = (&exact.solved.lora_a, &exact.solved.lora_b);
    let nearest = site.f(
        bits,
        &to_nearest(a, site.layer.in_features),
        &to_nearest(b, rank),
    );
    let lost = |f: f64| f / exact.f - 1.0;
    let case = format!("{} mxint{bits}, rank {rank}", site.layer.module);
    println!(
        "{case}{}: f16 {:.4} % ({}), to nearest {:.4} %, q8_0 {:.4} % ({}); of f16 of its bytes {:.3}",
        if massive { ", massive" } else { "" },
        100.0 * lost(f16.f),
        f16.solved.dtype,
        100.0 * lost(nearest),
        100.0 * lost(q8_0.f),
        q8_0.solved.dtype,
        q8_0.f / same_bytes.f,
    );
    assert_eq!(q8_0.solved.dtype, "q8_0", "{case}");
    assert!(lost(q8_0.f) < LOSS_MAX / 2.0, "{case}: {}", lost(q8_0.f));
    assert!(
        lost(q8_0.f) < lost(nearest) / 2.0,
        "{case}: {}",
        lost(nearest)
    );
    if massive {
        assert!(lost(nearest) > 0.1, "{case}: {}", lost(nearest));
    }
    // What is said of what is written is f of what is written.
    let said = q8_0.solved.error_written / q8_0.f - 1.0;
    assert!(said.abs() < 1e-4, "{case}: {said:e}");
    let least = if rank == 64 { 0.47 } else { 0.6 };
    let ratio = q8_0.f / same_bytes.f;
    assert!((least..0.85).contains(&ratio), "{case}: {ratio}");
}

#[test]
fn real_layers_lose_next_to_nothing_in_q8_0() {
    let Some(folder) = reference_folder("real_layers_lose_next_to_nothing_in_q8_0") else {
        return;
    };
    let cases = [(3, 64), (3, 32), (4, 64), (4, 32)];
    for name in tier::cases(&LAYERS[..1], &LAYERS) {
        for massive in [&[][..], &MASSIVE] {
            let site = Site::new(ReferenceLayer::load(&folder, name), massive);
            for (bits, rank) in tier::cases(&cases[..1], &cases) {
                check(&site, *bits, *rank, !massive.is_empty());
            }
        }
    }
}
