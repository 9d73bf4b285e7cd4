//! The tensors of an adapter, sorted by the modules that they belong to.

use std::collections::BTreeMap;

use crate::formats::safetensors::header::{Claim, Header};

const PREFIX: &str = "base_model.model.";

/// The two tensors of a module in the file.
#[derive(Debug, Default)]
pub(crate) struct LoraPair {
    /// The tensor `lora_A.weight`, [rank, in_features].
    pub(crate) a: Option<Claim>,
    /// The tensor `lora_B.weight`, [out_features, rank].
    pub(crate) b: Option<Claim>,
}

/// The tensors of an adapter.
#[derive(Debug, Default)]
pub(crate) struct LoraTensors {
    /// The pairs, by the module's name in the model that is served.
    pub(crate) pairs: BTreeMap<String, LoraPair>,
    /// The names of all other tensors.
    pub(crate) others: Vec<String>,
}

/// The name of a factor's tensor; `factor` is A or B.
#[must_use]
pub(crate) fn factor_name(module: &str, factor: char) -> String {
    format!("{PREFIX}{module}.lora_{factor}.weight")
}

impl LoraTensors {
    /// Sorts the tensors of a header by module.
    #[must_use]
    pub(crate) fn of(header: Header) -> Self {
        let mut found = Self::default();
        for claim in header.claims {
            let module_before = |end| {
                let module = claim.key.strip_prefix(PREFIX)?.strip_suffix(end)?;
                Some(module.to_owned())
            };
            if let Some(module) = module_before(".lora_A.weight") {
                found.pairs.entry(module).or_default().a = Some(claim);
            } else if let Some(module) = module_before(".lora_B.weight") {
                found.pairs.entry(module).or_default().b = Some(claim);
            } else {
                found.others.push(claim.key);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::Dtype;
    use std::collections::HashMap;

    #[test]
    fn tensors_are_joined_by_module() {
        let claim = |key: &str| Claim {
            key: key.into(),
            dtype: Dtype::F32,
            shape: vec![],
            start: 0,
            bytes: 4,
        };
        let names = [
            factor_name("m.q", 'A'),
            factor_name("m.q", 'B'),
            factor_name("m.k", 'B'),
            "base_model.model.m.q.lora_A.default.weight".into(),
            "m.q.lora_A.weight".into(),
        ];
        let found = LoraTensors::of(Header {
            claims: names.iter().map(|name| claim(name)).collect(),
            metadata: HashMap::new(),
        });
        let pair = |module: &str| &found.pairs[module];
        assert!(pair("m.q").a.is_some() && pair("m.q").b.is_some());
        assert!(pair("m.k").a.is_none() && pair("m.k").b.is_some());
        assert_eq!(found.pairs.len(), 2);
        assert_eq!(found.others, names[3..]);
    }
}
