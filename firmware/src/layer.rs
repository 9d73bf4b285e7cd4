//! The layer: W and its rows in flash as bf16, one buffer, one struct.

use qera_core::device::{DeviceError, DeviceLayer, DeviceRows, LayerMemory, ShardWriter};
#[cfg(not(feature = "sketch"))]
use qera_core::device::{exact_layer_numbers, exact_layer_workspace};
#[cfg(feature = "sketch")]
use qera_core::device::{sketched_layer_numbers, sketched_layer_workspace};
use qera_core::dtype::{FloatDtype, widen};
use qera_core::quantize::Mxint;

use crate::digest::Digest;
use crate::platform;

const M: usize = 128;
const N: usize = 128;
const K: usize = 8;
const ROW_BYTES: usize = 2 * M;

static WEIGHT: &[u8] = include_bytes!("../data/weight.bin");
static ROWS: &[u8] = include_bytes!("../data/rows.bin");

/// What the layer is called, and who sends.
const KEY: &str = "model.layers.0.self_attn.q_proj";
const DEVICE: &str = "board-0";

/// Rows of the sketch, l - 1.
#[cfg(feature = "sketch")]
const KEPT: usize = 15;

#[cfg(feature = "sketch")]
pub type Memory = LayerMemory<
    { sketched_layer_numbers(M, N, K, KEPT) },
    { sketched_layer_workspace(N, K, KEPT) },
>;
#[cfg(not(feature = "sketch"))]
pub type Memory = LayerMemory<{ exact_layer_numbers(M, N, K) }, { exact_layer_workspace(N, K) }>;

/// Bytes of what lies beside the stack.
pub const BUFFERS: usize = size_of::<Memory>() + HEADER;
const HEADER: usize = 512;

/// What was measured.
pub struct Figures {
    pub rows: u64,
    /// Errors, in millionths.
    pub before: u64,
    pub after: u64,
    pub rank: usize,
    pub sent: usize,
    /// Instructions, where the platform counts them.
    pub per_row: u64,
    pub solve: u64,
}

/// E = W - W~ of MXINT3, made anew whenever a column is asked for.
fn error(first: usize, columns: &mut [f32]) {
    let Ok(grid) = Mxint::new(3, 32) else { return };
    for (j, column) in (first..).zip(columns.chunks_exact_mut(M)) {
        let mut weight = [0.0; M];
        widen(
            &WEIGHT[j * ROW_BYTES..][..ROW_BYTES],
            FloatDtype::Bf16,
            &mut weight,
        );
        if grid.quantize_dequantize(&weight, M, column).is_ok() {
            for (e, w) in column.iter_mut().zip(weight) {
                *e = w - *e;
            }
        }
    }
}

type Layer<'a> = DeviceLayer<'a, fn(usize, &mut [f32]), M, N, K>;

#[cfg(feature = "sketch")]
fn begin(memory: &mut Memory) -> Result<Layer<'_>, DeviceError> {
    Layer::sketched::<KEPT, _, _>(memory, error)
}

#[cfg(not(feature = "sketch"))]
fn begin(memory: &mut Memory) -> Result<Layer<'_>, DeviceError> {
    Layer::exact(memory, error)
}

/// Rows in, factors out; and what was seen, as shards, or with a sketch the factors.
pub fn correct(digest: &mut Digest) -> Result<Figures, DeviceError> {
    let memory = platform::memory();
    let (mut header, mut sent) = ([0; HEADER], 0);
    let mut send = |bytes: &[u8]| {
        platform::send(bytes);
        digest.bytes(bytes);
        sent += bytes.len();
    };
    // A name that is none would show in the digest: nothing would be sent.
    let mut writer = ShardWriter::new(KEY, DEVICE, 0, &mut header, &mut send).ok();

    let mut layer = begin(memory)?;
    let start = platform::instructions();
    for row in ROWS.chunks_exact(ROW_BYTES) {
        let row = DeviceRows::Bytes(row, FloatDtype::Bf16);
        if cfg!(feature = "sketch") {
            layer.feed(row)?;
        } else {
            layer.feed_sending(row, &mut |rows| {
                if let Some(writer) = &mut writer {
                    let _ = writer.rows(rows);
                }
            })?;
        }
    }
    let fed = platform::instructions();
    let correction = layer.finish()?;
    let solved = platform::instructions();
    let errors = [correction.error_without, correction.error_with];
    let rank = correction.rank_used;
    let mut factors = Digest::new();
    for number in correction.a.iter().chain(correction.b) {
        factors.bytes(&number.to_bits().to_le_bytes());
    }
    let rows = layer.progress().rows;
    if let (Some(writer), false) = (&mut writer, cfg!(feature = "sketch")) {
        let _ = writer.sums(layer.sums()?);
    }
    drop(writer);
    if cfg!(feature = "sketch") {
        let correction = layer.finish()?;
        for number in correction.a.iter().chain(correction.b) {
            send(&number.to_le_bytes());
        }
    }
    for error in errors {
        digest.bytes(&error.to_bits().to_le_bytes());
    }
    digest.bytes(&factors.value().to_le_bytes());
    let [before, after] = errors.map(|error| (1e6 * error) as u64);
    Ok(Figures {
        rows,
        before,
        after,
        rank,
        sent,
        per_row: (fed - start) / rows,
        solve: solved - fed,
    })
}
