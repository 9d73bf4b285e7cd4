//! Packed weights against what other programs read in them (`tests/packed/make_vectors.py`), and
//! against files that are not what they should be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::Value;

use crate::disk::{list, read};
use crate::formats::packed::config::PackingConfig;
use crate::formats::packed::error::PackedError;
use crate::formats::packed::part::PackedPart;
use crate::formats::packed::scheme::{CodeLayout, Scheme, ZeroReading};
use crate::formats::packed::weight::{PackedParts, PackedWeight, Widths};
use crate::formats::safetensors::header::Header;

const MODULE: &str = "model.layers.0.mlp.up_proj";

#[derive(Debug, Clone)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A folder of the vectors.
struct Vector {
    scheme: Scheme,
    widths: Widths,
    tensors: BTreeMap<String, Stored>,
    expected: Vec<f32>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/packed/vectors")
}

fn tensors(file: &Path) -> BTreeMap<String, Stored> {
    let bytes = read(file).unwrap();
    let header = Header::parse(&bytes, bytes.len() as u64).unwrap();
    let tensors = header.claims.into_iter().map(|claim| {
        let start = usize::try_from(claim.start).unwrap();
        let stored = Stored {
            dtype: claim.dtype,
            shape: claim.shape,
            bytes: bytes[start..][..claim.bytes].to_vec(),
        };
        let name = claim.key.strip_prefix(MODULE).unwrap();
        (name.trim_start_matches('.').to_owned(), stored)
    });
    tensors.collect()
}

/// What the config.json of a vector says.
pub(super) fn quantization(name: &str) -> Value {
    let folder = folder().join(name);
    let config: Value =
        serde_json::from_slice(&read(&folder.join("config.json")).unwrap()).unwrap();
    config["quantization_config"].clone()
}

fn vector(name: &str) -> Vector {
    let folder = folder().join(name);
    let config = PackingConfig::parse(&quantization(name), None).unwrap();
    let expected = tensors(&folder.join("expected.safetensors"));
    let expected = &expected["weight"];
    let numbers = expected.bytes.as_chunks().0.iter();
    Vector {
        scheme: match config {
            PackingConfig::CompressedTensors(targets) => targets.scheme_of(MODULE).unwrap(),
            PackingConfig::Gptq(of) => of.scheme,
            PackingConfig::Awq(scheme) => scheme,
        },
        widths: Widths {
            inputs: expected.shape[1],
            outputs: expected.shape[0],
        },
        tensors: tensors(&folder.join("model.safetensors")),
        expected: numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    }
}

impl Vector {
    fn part(&self, name: &'static str) -> Option<PackedPart<'_>> {
        let stored = self.tensors.get(name)?;
        Some(PackedPart {
            name,
            dtype: stored.dtype,
            shape: &stored.shape,
            bytes: &stored.bytes,
        })
    }

    fn weight(&self) -> Result<PackedWeight<'_>, PackedError> {
        let either = |one, other| self.part(one).or_else(|| self.part(other));
        let parts = PackedParts {
            codes: either("weight_packed", "qweight").unwrap(),
            scales: either("weight_scale", "scales"),
            zeros: either("weight_zero_point", "qzeros"),
            groups: either("weight_g_idx", "g_idx"),
            said_shape: self.part("weight_shape"),
        };
        PackedWeight::new(self.scheme, self.widths, parts)
    }

    fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.expected.len()];
        self.weight().unwrap().columns(0, &mut values).unwrap();
        values
    }

    /// The message, once a tensor is something else.
    fn refused(&self, name: &str, change: impl FnOnce(&mut Stored)) -> String {
        let mut stored = self.tensors[name].clone();
        change(&mut stored);
        let mut tensors = self.tensors.clone();
        tensors.insert(name.to_owned(), stored);
        let changed = Self {
            tensors,
            expected: self.expected.clone(),
            ..*self
        };
        let error = changed.weight().err().or_else(|| {
            let mut values = vec![0.0; self.expected.len()];
            changed.weight().unwrap().columns(0, &mut values).err()
        });
        error.map_or_else(String::new, |error| error.to_string())
    }

    fn refused_without(&self, name: &str) -> String {
        let mut tensors = self.tensors.clone();
        tensors.remove(name);
        let changed = Self {
            tensors,
            expected: Vec::new(),
            ..*self
        };
        changed
            .weight()
            .map_or_else(|error| error.to_string(), |_| String::new())
    }
}

#[test]
fn numbers_are_those_of_other_programs_bit_for_bit() {
    let folders = list(&folder()).unwrap();
    assert!(folders.len() >= 14, "{folders:?}");
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy();
        let vector = vector(&name);
        let bits = |of: &[f32]| of.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&vector.values()), bits(&vector.expected), "{name}");
        // Columns can be read from any one on.
        let m = vector.widths.inputs;
        let mut some = vec![0.0; 2 * m];
        vector.weight().unwrap().columns(3, &mut some).unwrap();
        assert_eq!(bits(&some), bits(&vector.expected[3 * m..5 * m]), "{name}");
    }
}

#[test]
fn zero_points_that_are_read_the_other_way_are_one_scale_off() {
    for (name, zeros, sign) in [
        ("gptq-4", ZeroReading::AsStored, 1.0),
        ("gptq-4-v2", ZeroReading::OneLess, -1.0),
    ] {
        let mut of = vector(name);
        let right = of.values();
        of.scheme.layout = CodeLayout::Gptq {
            zeros,
            ordered: false,
        };
        let weight = of.weight().unwrap();
        let m = of.widths.inputs;
        for (index, (wrong, right)) in of.values().iter().zip(&right).enumerate() {
            let scale = weight.scale(index / m, weight.group_of()[index % m]);
            let off = wrong - right - sign * scale;
            assert!(off.abs() < 1e-3 * scale, "{name} {index}: {wrong} {right}");
        }
    }
}

fn cut(of: &mut Stored) {
    of.shape[0] -= 1;
    let row = of.bytes.len() / (of.shape[0] + 1);
    of.bytes.truncate(row * of.shape[0]);
}

fn typed(of: &mut Stored) {
    of.dtype = Dtype::F8_E4M3;
}

/// Another group for the third input.
fn group(value: i32) -> impl Fn(&mut Stored) {
    move |of| of.bytes[8..12].copy_from_slice(&value.to_le_bytes())
}

/// Another f16 in the second place.
fn half(bits: u16) -> impl Fn(&mut Stored) {
    move |of| of.bytes[2..4].copy_from_slice(&bits.to_le_bytes())
}

#[test]
fn compressed_tensors_that_are_not_what_they_should_be_are_named() {
    let names = ["ct-4-32", "ct-4-asymmetric", "ct-4-order"];
    let [ct, asymmetric, ordered] = names.map(vector);
    for (said, words) in [
        (
            ct.refused("weight_packed", cut),
            "'weight_packed' has the shape [7, 8], [8, 8]",
        ),
        (
            ct.refused("weight_packed", typed),
            "'weight_packed' has dtype F8_E4M3, I32 is read",
        ),
        (
            ct.refused("weight_scale", cut),
            "'weight_scale' has the shape [7, 2], [8, 2]",
        ),
        (ct.refused("weight_scale", typed), "F16, BF16 or F32"),
        (
            ct.refused("weight_shape", |of| of.bytes[0] = 9),
            "'weight_shape' says [9, 64]",
        ),
        (
            ct.refused("weight_shape", |of| of.bytes.truncate(8)),
            "'weight_shape' says [8]",
        ),
        (
            ct.refused("weight_shape", |of| of.bytes[7] = 0xff),
            "'weight_shape' says [-7",
        ),
        (
            ct.refused_without("weight_shape"),
            "'weight_shape' is missing",
        ),
        (
            ct.refused_without("weight_scale"),
            "'weight_scale' is missing",
        ),
        (
            ct.refused("weight_scale", half(0x7e00)),
            "'weight_scale' is NaN at output 0, group 1",
        ),
        (
            ct.refused("weight_scale", half(0xfc00)),
            "'weight_scale' is -inf at output 0, group 1",
        ),
        (
            asymmetric.refused_without("weight_zero_point"),
            "'weight_zero_point' is missing",
        ),
        (
            asymmetric.refused("weight_zero_point", cut),
            "[1, 4], [2, 4]",
        ),
        (
            ordered.refused("weight_g_idx", group(4)),
            "input 2 into group 4, there are 4 groups",
        ),
        (
            ordered.refused("weight_g_idx", group(-1)),
            "input 2 into group -1",
        ),
        (
            ordered.refused("weight_g_idx", cut),
            "'weight_g_idx' has the shape [63], [64]",
        ),
        (ordered.refused("weight_g_idx", typed), "I32 or I64 is read"),
        (ordered.refused_without("weight_g_idx"), "another order"),
    ] {
        assert!(said.contains(words), "'{words}' is not in '{said}'");
    }
}

#[test]
fn gptq_and_awq_that_are_not_what_they_should_be_are_named() {
    let gptq = vector("gptq-4");
    let act = vector("gptq-4-order");
    let awq = vector("awq");
    for (said, words) in [
        (
            gptq.refused("qweight", cut),
            "'qweight' has the shape [7, 16], [8, 16]",
        ),
        (
            gptq.refused("qzeros", cut),
            "'qzeros' has the shape [1, 2], [2, 2]",
        ),
        (
            gptq.refused("scales", half(0x7c00)),
            "'scales' is inf at output 1, group 0",
        ),
        (gptq.refused_without("qzeros"), "'qzeros' is missing"),
        (act.refused_without("g_idx"), "'g_idx' is missing"),
        (
            act.refused("g_idx", group(i32::MAX)),
            "input 2 into group 2147483647",
        ),
        (
            awq.refused("qweight", cut),
            "'qweight' has the shape [63, 2], [64, 2]",
        ),
        (awq.refused_without("scales"), "'scales' is missing"),
        (awq.refused_without("qzeros"), "'qzeros' is missing"),
    ] {
        assert!(said.contains(words), "'{words}' is not in '{said}'");
    }
}

/// compressed-tensors writes it where inputs are in their order.
#[test]
fn a_list_of_minus_one_is_the_inputs_own_order() {
    let mut of = vector("ct-4-32");
    let own = of.values();
    let list = Stored {
        dtype: Dtype::I32,
        shape: vec![64],
        bytes: vec![0xff; 256],
    };
    of.tensors.insert("weight_g_idx".into(), list);
    assert_eq!(of.values(), own);
}

/// Zero points that were not packed, as old files have them.
#[test]
fn zero_points_of_a_byte_each_are_read() {
    let mut of = vector("ct-4-asymmetric");
    let own = of.values();
    let packed = of.tensors["weight_zero_point"].bytes.clone();
    let word = |index: usize| u32::from_le_bytes(*packed[4 * index..].first_chunk().unwrap());
    let fields = (0..12 * 4).map(|at| {
        let (output, group) = (at / 4, at % 4);
        let code = word(output / 8 * 4 + group) >> (output % 8 * 4) & 15;
        u8::try_from(code).unwrap().wrapping_sub(8)
    });
    let bytes = Stored {
        dtype: Dtype::I8,
        shape: vec![12, 4],
        bytes: fields.collect(),
    };
    of.tensors.insert("weight_zero_point".into(), bytes);
    assert_eq!(of.values(), own);
}

#[test]
fn widths_that_do_not_fill_words_are_told() {
    let of = vector("gptq-4");
    for (inputs, outputs, words) in [(60, 16, "60 inputs"), (64, 12, "12 outputs")] {
        let changed = Vector {
            widths: Widths { inputs, outputs },
            tensors: of.tensors.clone(),
            expected: Vec::new(),
            ..of
        };
        let error = changed.weight().unwrap_err().to_string();
        let of_shape = error.contains("'qweight' has the shape");
        assert!(error.contains(words) || of_shape, "{error}");
    }
}
