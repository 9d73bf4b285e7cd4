//! A LoRA adapter in a GGUF: its metadata and the names of its tensors, both ways.
//!
//! llama.cpp (`llama-adapter.cpp`) multiplies what is beside a tensor NAME of the model by
//! `NAME.lora_a`, lengths [in_features, rank], then by `NAME.lora_b`, [rank, out_features], and by
//! `adapter.lora.alpha` / rank, or, where alpha is 0 or absent, by 1. It refuses a file with a
//! tensor of another ending, with half a pair, or of another architecture than the model's.

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
/// Tokens from which on an adapter of another kind begins.
const INVOCATION: &str = "adapter.alora.invocation_tokens";
/// Most bytes of a name that llama.cpp reads.
const NAME_MAX: usize = 63;
/// Problems that are kept, and what is not looked at: a hostile file may have one for each of 2^18
/// tensors.
const SAID_MAX: usize = 128;
/// The model's tensor of which A and B are turned round: rows of A are looked up.
pub(crate) const EMBEDDING: &str = "token_embd.weight";
/// What keys of ours begin with that say what the correction belongs to, ...
pub(crate) const FINGERPRINT: &str = "qera.fingerprints.";
/// ... and what they name.
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
/// What llama.cpp passes over without a word.
const NORM: &str = "_norm.weight";

/// A factor: which half of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoraFactor {
    /// A^T.
    A,
    /// B^T.
    B,
}

/// What a tensor of the model has in the file.
#[derive(Debug, Default)]
pub(crate) struct GgufPair {
    /// `lora_a`.
    pub(crate) a: Option<TensorClaim>,
    /// `lora_b`.
    pub(crate) b: Option<TensorClaim>,
}

/// A file as its header describes it.
#[derive(Debug)]
pub(crate) struct LoraGguf {
    /// `general.architecture`.
    pub(crate) architecture: String,
    /// By the names of the model's tensors.
    pub(crate) pairs: BTreeMap<String, GgufPair>,
    /// What is wrong.
    pub(crate) problems: Vec<String>,
    /// What is not looked at.
    pub(crate) unchecked: Vec<String>,
    /// What it says that it belongs to, of an adapter of qera's.
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

/// What every adapter of this architecture says, of a correction that is applied as it is.
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
    /// Reads the header of a file, of which these are all bytes.
    ///
    /// # Errors
    /// What is no GGUF about it. What is no adapter about it is a problem beside others.
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

    /// What a pair of this rank is multiplied by.
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

/// Says one more, up to a number.
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
