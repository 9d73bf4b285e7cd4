//! A packed base read back by the words of its config.json, with code of our own; and a plain one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A tensor of a folder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FoundTensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// A base.
#[derive(Debug)]
pub(crate) struct BaseFolder {
    pub(crate) tensors: BTreeMap<String, FoundTensor>,
    pub(crate) config: Value,
    pub(crate) record: Value,
}

impl FoundTensor {
    /// The numbers of the tensor.
    pub(crate) fn numbers(&self) -> Vec<f32> {
        let halves = self.bytes.as_chunks::<2>().0.iter();
        let words = self.bytes.as_chunks::<4>().0.iter();
        match self.dtype {
            Dtype::BF16 => halves.map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::F16 => halves.map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::F32 => words.map(|b| f32::from_le_bytes(*b)).collect(),
            other => panic!("{other}"),
        }
    }
}

/// The tensors of a file.
pub(crate) fn tensors_of(path: &Path) -> BTreeMap<String, FoundTensor> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter().map(|(name, view)| {
        let found = FoundTensor {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        (name, found)
    });
    tensors.collect()
}

impl BaseFolder {
    /// Opens what lies in a folder.
    pub(crate) fn open(folder: &Path) -> Self {
        let json = |name: &str| serde_json::from_slice(&fs::read(folder.join(name)).unwrap());
        Self {
            tensors: tensors_of(&folder.join("model.safetensors")),
            config: json("config.json").unwrap(),
            record: json("qera_base.json").unwrap(),
        }
    }

    /// The modules that config.json says are not packed.
    pub(crate) fn ignored(&self) -> Vec<&str> {
        let ignored = self.config["quantization_config"]["ignore"].as_array();
        ignored
            .unwrap()
            .iter()
            .map(|of| of.as_str().unwrap())
            .collect()
    }

    /// Whether a module is packed.
    pub(crate) fn packs(&self, module: &str) -> bool {
        let packed = self
            .tensors
            .contains_key(&format!("{module}.weight_packed"));
        let whole = self.tensors.contains_key(&format!("{module}.weight"));
        assert_ne!(packed, whole, "{module}");
        assert_eq!(whole, self.ignored().contains(&module), "{module}");
        packed
    }

    /// The numbers of a module's weight.
    pub(crate) fn weight(&self, module: &str) -> Vec<f32> {
        match self.tensors.get(&format!("{module}.weight")) {
            Some(whole) => whole.numbers(),
            None => self.unpacked(module),
        }
    }

    /// q times s in f32, bit for bit by the format's definition.
    fn unpacked(&self, module: &str) -> Vec<f32> {
        let said = &self.config["quantization_config"]["config_groups"]["group_0"]["weights"];
        let number = |key: &str| usize::try_from(said[key].as_u64().unwrap()).unwrap();
        let (bits, group) = (number("num_bits"), number("group_size"));
        let part = |name: &str| &self.tensors[&format!("{module}.{name}")];
        let shape = part("weight_shape").bytes.as_chunks::<8>().0.to_vec();
        let shape: Vec<usize> = shape
            .iter()
            .map(|b| usize::try_from(i64::from_le_bytes(*b)).unwrap())
            .collect();
        let [rows, width] = shape[..] else {
            panic!("{shape:?}");
        };
        let words = part("weight_packed");
        assert_eq!(
            (words.dtype, &words.shape[..]),
            (Dtype::I32, &[rows, width * bits / 32][..])
        );
        let scales = part("weight_scale");
        assert_eq!(scales.shape, [rows, width / group]);
        let (scales, groups) = (scales.numbers(), width / group);
        let codes = bit_fields(&words.bytes, bits);
        let half = 1_i32 << (bits - 1);
        let zero = |row: usize, of_group: usize| {
            if said["symmetric"] == true {
                return 0;
            }
            let points = part("weight_zero_point");
            assert_eq!(points.shape, [rows * bits / 32, groups]);
            let word = (row / 8 * groups + of_group) * 4;
            let fields = bit_fields(&points.bytes[word..word + 4], bits);
            i32::from(fields[row % 8]) - half
        };
        let value = |index: usize| {
            let (row, column) = (index / width, index % width);
            let code = i32::from(codes[index]) - half - zero(row, column / group);
            code as f32 * scales[row * groups + column / group]
        };
        (0..rows * width).map(value).collect()
    }
}

/// The fields of a stream, lowest bits first.
fn bit_fields(bytes: &[u8], bits: usize) -> Vec<u8> {
    let bit = |at: usize| bytes[at / 8] >> (at % 8) & 1;
    let field = |index: usize| (0..bits).fold(0, |field, k| field | bit(index * bits + k) << k);
    (0..bytes.len() * 8 / bits).map(field).collect()
}
