//! A LoRA adapter in a GGUF: reads and writes its metadata and the names of its tensors.
//!
//! llama.cpp (`llama-adapter.cpp`) multiplies the input of a model's tensor NAME by `NAME.lora_a`,
//! lengths [in_features, rank], then by `NAME.lora_b`, [rank, out_features], and then by
//! `adapter.lora.alpha` / rank, or by 1 where alpha is 0 or absent. It refuses a file that has a
//! tensor with another ending, half a pair, or another architecture than the model.

use std::collections::BTreeMap;

use crate::formats::gguf::error::{GgufError, Quoted};
use crate::formats::gguf::header::{GgufHeader, TensorClaim};
use crate::formats::gguf::metadata::Metadata;
use crate::formats::gguf::writer::MetadataValue;

const TYPE: &str = "general.type";
const ADAPTER: &str = "adapter";
const ARCHITECTURE: &str = "general.architecture";
const KIND: &str = "adapter.type";
const LORA: &str = "lora";
const ALPHA: &str = "adapter.lora.alpha";
/// The key for tokens from which an adapter of another kind (aLoRA) begins.
const INVOCATION: &str = "adapter.alora.invocation_tokens";
/// The longest name in bytes that llama.cpp reads.
const NAME_MAX: usize = 63;
/// How many problems, and things that are not checked, are kept: a hostile file may have one for
/// each of 2^18 tensors.
const SAID_MAX: usize = 128;
/// The model's tensor for which A and B are transposed, because rows of A are looked up.
pub(crate) const EMBEDDING: &str = "token_embd.weight";
/// The prefix of qera's own keys that say what the correction belongs to, ...
pub(crate) const FINGERPRINT: &str = "qera.fingerprints.";
/// ... and their endings.
const FINGERPRINTS: [&str; 8] = [
    "checkpoint",
    "model",
    "settings",
    "names",
    "base",
    "rounded",
    "quantized",
    "imatrix",
];
/// The ending of tensors that llama.cpp silently passes over.
const NORM: &str = "_norm.weight";

/// A factor: one half of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoraFactor {
    /// A^T.
    A,
    /// B^T.
    B,
}

/// The two tensors of a pair in the file.
#[derive(Debug, Default)]
pub(crate) struct GgufPair {
    /// The tensor `lora_a`.
    pub(crate) a: Option<TensorClaim>,
    /// The tensor `lora_b`.
    pub(crate) b: Option<TensorClaim>,
}

/// An adapter as its file's header describes it.
#[derive(Debug)]
pub(crate) struct LoraGguf {
    /// `general.architecture`.
    pub(crate) architecture: String,
    /// The pairs, by the names of the model's tensors.
    pub(crate) pairs: BTreeMap<String, GgufPair>,
    /// What is wrong with the adapter.
    pub(crate) problems: Vec<String>,
    /// What was not checked in the adapter.
    pub(crate) unchecked: Vec<String>,
    /// What the adapter belongs to, if qera wrote it.
    pub(crate) fingerprints: BTreeMap<&'static str, String>,
    alpha: f32,
}

/// The name of a factor's tensor.
#[must_use]
pub(crate) fn factor_name(tensor: &str, factor: LoraFactor) -> String {
    let ending = match factor {
        LoraFactor::A => "lora_a",
        LoraFactor::B => "lora_b",
    };
    format!("{tensor}.{ending}")
}

/// The metadata of an adapter for this architecture, whose correction is applied as it is.
#[must_use]
pub(crate) fn metadata(architecture: &str) -> BTreeMap<&'static str, MetadataValue> {
    let text = |text: &str| MetadataValue::Text(text.to_owned());
    BTreeMap::from([
        (TYPE, text(ADAPTER)),
        (ARCHITECTURE, text(architecture)),
        (KIND, text(LORA)),
        (ALPHA, MetadataValue::F32(0.0)),
    ])
}

impl LoraGguf {
    /// Reads the header of a file; `bytes` are the whole file.
    ///
    /// # Errors
    /// The file is no GGUF. If it is a GGUF but no adapter, that is one of the problems.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        let header = GgufHeader::parse(bytes)?;
        let metadata = &header.metadata;
        let architecture = metadata.text(ARCHITECTURE).unwrap_or_default().to_owned();
        let mut found = Self {
            architecture,
            pairs: BTreeMap::new(),
            problems: Vec::new(),
            unchecked: Vec::new(),
            fingerprints: fingerprints(metadata),
            alpha: 0.0,
        };
        found.read_metadata(metadata);
        for tensor in header.tensors {
            found.sort(tensor);
        }
        Ok(found)
    }

    /// The factor by which a pair of this rank is multiplied.
    #[must_use]
    pub(crate) fn scale(&self, rank: usize) -> f64 {
        if self.alpha.abs() > 0.0 {
            f64::from(self.alpha) / rank as f64
        } else {
            1.0
        }
    }

    fn read_metadata(&mut self, metadata: &Metadata<'_>) {
        for (key, expected) in [(TYPE, ADAPTER), (KIND, LORA)] {
            let said = metadata.text(key);
            if said != Some(expected) {
                let said = said.map_or("no text".into(), |said| format!("'{}'", Quoted::new(said)));
                self.problems
                    .push(format!("{key} is {said}, not '{expected}'"));
            }
        }
        if self.architecture.is_empty() {
            let message =
                format!("has no {ARCHITECTURE}, which llama.cpp compares with the model's");
            self.problems.push(message);
        }
        match metadata.float(ALPHA) {
            Some(alpha) if alpha.is_finite() => self.alpha = alpha,
            None if !metadata.has(ALPHA) => {}
            found => {
                let said = found.map_or("no number of 32 bits".into(), |of| of.to_string());
                self.problems.push(format!("{ALPHA} is {said}"));
            }
        }
        if metadata.has(INVOCATION) && !metadata.is_array_of_u32(INVOCATION) {
            let message = format!("{INVOCATION} is no array of unsigned numbers of 32 bits");
            self.problems.push(message + ": llama.cpp refuses it");
        } else if metadata.has(INVOCATION) {
            self.unchecked.push(format!(
                "{INVOCATION}: from which token on it is applied is not looked at"
            ));
        }
    }

    fn sort(&mut self, tensor: TensorClaim) {
        let name = tensor.name.as_str();
        if name.len() > NAME_MAX {
            say(
                &mut self.problems,
                format!(
                    "tensor '{}': its name has {} bytes, llama.cpp reads {NAME_MAX}",
                    Quoted::new(name),
                    name.len()
                ),
            );
        }
        let of = |ending| name.strip_suffix(ending).map(str::to_owned);
        if let Some(of) = of(".lora_a") {
            self.pairs.entry(of).or_default().a = Some(tensor);
        } else if let Some(of) = of(".lora_b") {
            self.pairs.entry(of).or_default().b = Some(tensor);
        } else if name.ends_with(NORM) {
            let message = format!("tensor '{}': llama.cpp passes it over", Quoted::new(name));
            say(&mut self.unchecked, message);
        } else {
            say(
                &mut self.problems,
                format!(
                    "tensor '{}' is neither NAME.lora_a nor NAME.lora_b",
                    Quoted::new(name)
                ),
            );
        }
    }
}

fn fingerprints(metadata: &Metadata<'_>) -> BTreeMap<&'static str, String> {
    let said = FINGERPRINTS.into_iter().filter_map(|name| {
        let text = metadata.text(&format!("{FINGERPRINT}{name}"))?;
        Some((name, text.to_owned()))
    });
    said.collect()
}

/// Adds a message, up to a limit.
fn say(all: &mut Vec<String>, message: String) {
    if all.len() < SAID_MAX {
        all.push(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gguf::writer::{GgufTensorPlan, GgufWriter};

    fn file(metadata: &BTreeMap<&str, MetadataValue>, names: &[&str]) -> Vec<u8> {
        let plan = |name: &&str| GgufTensorPlan {
            name: (*name).into(),
            ne: vec![2, 1],
            type_number: 0,
        };
        let plans: Vec<_> = names.iter().map(plan).collect();
        let mut writer = GgufWriter::begin(Vec::new(), metadata, &plans).unwrap();
        names.iter().for_each(|_| writer.tensor(&[0; 8]).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_written_has_a_scale_of_one_and_reads_back() {
        let names = [LoraFactor::A, LoraFactor::B].map(|of| factor_name("blk.0.x.weight", of));
        let names = names.each_ref().map(String::as_str);
        let found = LoraGguf::parse(&file(&metadata("llama"), &names)).unwrap();
        assert_eq!(found.architecture, "llama");
        assert!(found.problems.is_empty() && found.unchecked.is_empty());
        let pair = &found.pairs["blk.0.x.weight"];
        assert!(pair.a.is_some() && pair.b.is_some() && found.pairs.len() == 1);
        assert_eq!(found.scale(7).to_bits(), 1.0_f64.to_bits());
        let mut other = metadata("llama");
        other.insert(ALPHA, MetadataValue::F32(16.0));
        let found = LoraGguf::parse(&file(&other, &names)).unwrap();
        assert_eq!(found.scale(8).to_bits(), 2.0_f64.to_bits());
        other.remove(ALPHA);
        let found = LoraGguf::parse(&file(&other, &names)).unwrap();
        assert_eq!(found.scale(8).to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn what_llama_cpp_would_refuse_is_named() {
        let text = |text: &str| MetadataValue::Text(text.into());
        for (key, value, said) in [
            (
                TYPE,
                Some(text("model")),
                "general.type is 'model', not 'adapter'",
            ),
            (TYPE, None, "general.type is no text, not 'adapter'"),
            (KIND, Some(text("ia3")), "adapter.type is 'ia3', not 'lora'"),
            (ARCHITECTURE, None, "has no general.architecture"),
            (
                ALPHA,
                Some(MetadataValue::U32(1)),
                "adapter.lora.alpha is no number of 32 bits",
            ),
            (
                ALPHA,
                Some(MetadataValue::F32(f32::NAN)),
                "adapter.lora.alpha is NaN",
            ),
        ] {
            let mut all = metadata("llama");
            match value {
                Some(value) => all.insert(key, value),
                None => all.remove(key),
            };
            let found = LoraGguf::parse(&file(&all, &["x.lora_a", "x.lora_b"])).unwrap();
            assert_eq!(found.problems.len(), 1, "{key}: {found:?}");
            assert!(found.problems[0].contains(said), "{:?}", found.problems);
        }
        let mut all = metadata("llama");
        let refused = format!("{INVOCATION} is no array of unsigned numbers of 32 bits");
        for other in [
            MetadataValue::U32(1),
            MetadataValue::Texts(vec!["x".into()]),
        ] {
            all.insert(INVOCATION, other);
            let found = LoraGguf::parse(&file(&all, &["x.lora_a", "x.lora_b"])).unwrap();
            assert!(found.problems[0].starts_with(&refused), "{found:?}");
            assert!(found.unchecked.is_empty(), "{found:?}");
        }
        all.remove(INVOCATION);
        let long = format!("{}.lora_a", "n".repeat(56));
        let names = ["blk.0.attn_norm.weight", "x.lora_c"];
        let found = LoraGguf::parse(&file(&all, &names)).unwrap();
        assert_eq!(found.unchecked.len(), 1, "{found:?}");
        assert_eq!(
            found.problems,
            ["tensor 'x.lora_c' is neither NAME.lora_a nor NAME.lora_b"]
        );
        assert_eq!(long.len(), 63);
        let fits = LoraGguf::parse(&file(&metadata("llama"), &[&long])).unwrap();
        assert!(fits.problems.is_empty(), "{fits:?}");
    }
}
