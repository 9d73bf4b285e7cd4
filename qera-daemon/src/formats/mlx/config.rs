//! mlx-lm's `adapter_config.json`: what is read of it, and which modules get factors by it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The configuration.
#[derive(Debug, Default)]
pub(crate) struct MlxConfig {
    /// The rank of every pair; `None` where it is no number of at least 1.
    pub(crate) rank: Option<usize>,
    /// The factor by which A B is multiplied.
    pub(crate) scale: Option<f64>,
    /// How many of the last blocks get factors. As in mlx-lm, 0 and less mean all.
    pub(crate) last_blocks: Option<i64>,
    /// Paths within a block, and names, that get factors; `None` where every linear layer of a
    /// block does.
    keys: Option<BTreeSet<String>>,
    /// What is wrong with the configuration.
    pub(crate) problems: Vec<String>,
    /// What is not understood in it.
    pub(crate) unchecked: Vec<String>,
}

/// A module's block, and its path within the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockPath<'m> {
    /// The block's number.
    pub(crate) block: usize,
    /// The path within the block.
    pub(crate) path: &'m str,
}

/// The place of a module that is in a block. The first number in its name is the block's.
#[must_use]
pub(crate) fn block_path(module: &str) -> Option<BlockPath<'_>> {
    let mut at = 0;
    for part in module.split('.') {
        let after = at + part.len() + 1;
        if part.bytes().all(|b| b.is_ascii_digit())
            && let Ok(block) = part.parse()
            && let Some(path) = module.get(after..).filter(|path| !path.is_empty())
        {
            return Some(BlockPath { block, path });
        }
        at = after;
    }
    None
}

impl MlxConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// The bytes are no JSON.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let map: Map<String, Value> = serde_json::from_slice(bytes)?;
        let mut config = Self::default();
        config.read(&map);
        Ok(config)
    }

    /// Whether a module gets factors in a model with this many blocks. Where their number is
    /// unknown, every block counts as one of the last.
    #[must_use]
    pub(crate) fn reaches(&self, module: &str, blocks: Option<usize>) -> bool {
        let Some(keys) = &self.keys else {
            return self.reaches_block(module, blocks, |_| true);
        };
        keys.contains(module) || self.reaches_block(module, blocks, |path| keys.contains(path))
    }

    fn reaches_block(
        &self,
        module: &str,
        blocks: Option<usize>,
        means: impl FnOnce(&str) -> bool,
    ) -> bool {
        let Some(of) = block_path(module) else {
            return false;
        };
        let last = self.last_blocks.unwrap_or_default();
        let first = match (usize::try_from(last), blocks) {
            (Ok(last @ 1..), Some(blocks)) => blocks.saturating_sub(last),
            _ => 0,
        };
        of.block >= first && means(of.path)
    }

    fn read(&mut self, map: &Map<String, Value>) {
        let null = Value::Null;
        let get = |key: &str| map.get(key).unwrap_or(&null);
        match get("fine_tune_type").as_str() {
            Some("lora") | None => {}
            Some("dora") => self.unchecked.push(
                "fine_tune_type is 'dora': the magnitudes beside A and B are not looked at".into(),
            ),
            Some(other) => {
                let message = format!("fine_tune_type is '{other}', not 'lora'");
                self.problems.push(message);
            }
        }
        self.last_blocks = get("num_layers").as_i64();
        if self.last_blocks.is_none() {
            let said = get("num_layers");
            let message = format!("num_layers is {said}: mlx-lm needs a number");
            self.problems.push(message);
        }
        let Some(parameters) = get("lora_parameters").as_object() else {
            let message = "lora_parameters: has none, mlx-lm needs rank, scale and dropout there";
            return self.problems.push(message.into());
        };
        self.read_parameters(parameters);
    }

    fn read_parameters(&mut self, map: &Map<String, Value>) {
        let null = Value::Null;
        let get = |key: &str| map.get(key).unwrap_or(&null);
        let rank = get("rank").as_u64().and_then(|r| usize::try_from(r).ok());
        self.rank = rank.filter(|&rank| rank > 0);
        let finite = |key: &str| get(key).as_f64().filter(|of| of.is_finite());
        self.scale = finite("scale");
        for (key, known) in [
            ("rank", self.rank.is_some()),
            ("scale", self.scale.is_some()),
            ("dropout", finite("dropout").is_some()),
        ] {
            if !known {
                let message = format!(
                    "lora_parameters.{key} is {}, mlx-lm needs a number",
                    get(key)
                );
                self.problems.push(message);
            }
        }
        self.keys = match get("keys") {
            Value::Null => None,
            keys => {
                let texts = keys.as_array().map(|all| all.iter().map(Value::as_str));
                let texts = texts.and_then(|all| all.map(|of| of.map(str::to_owned)).collect());
                if texts.is_none() {
                    let message = "lora_parameters.keys is no list of names";
                    self.problems.push(message.into());
                }
                texts
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(num_layers: &Value, keys: &Value) -> MlxConfig {
        let parameters = json!({"rank": 4, "scale": 1.0, "dropout": 0.0, "keys": keys});
        let config = json!({"num_layers": num_layers, "lora_parameters": parameters});
        MlxConfig::parse(config.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn keys_reach_the_last_blocks_and_whole_names() {
        let of = config(&json!(2), &json!(["mlp.up", "lm_head", "layers.0.own"]));
        assert_eq!((of.rank, of.scale), (Some(4), Some(1.0)));
        for (module, blocks, reached) in [
            ("model.layers.3.mlp.up", Some(4), true),
            ("model.layers.2.mlp.up", Some(4), true),
            ("model.layers.1.mlp.up", Some(4), false),
            ("model.layers.1.mlp.up", None, true),
            ("model.layers.1.mlp.up", Some(1), true),
            ("model.layers.3.mlp.down", Some(4), false),
            ("lm_head", Some(4), true),
            ("head", Some(4), false),
            ("layers.0.own", Some(4), true),
            ("model.layers.3", Some(4), false),
        ] {
            assert_eq!(of.reaches(module, blocks), reached, "{module} {blocks:?}");
        }
        // Python's [-0:] is the whole list.
        let all = config(&json!(0), &json!(null));
        assert!(all.reaches("model.layers.0.mlp.up", Some(4)));
        assert!(!all.reaches("lm_head", Some(4)));
        let place = block_path("model.h.12.attn.c");
        let expected = BlockPath {
            block: 12,
            path: "attn.c",
        };
        assert_eq!(place, Some(expected));
        for none in [
            "",
            ".",
            "a",
            "a.1",
            "a.1.",
            "a.99999999999999999999999.b",
            "a..b",
        ] {
            assert_eq!(block_path(none), None, "{none}");
        }
    }

    #[test]
    fn what_mlx_lm_would_fail_on_is_named() {
        let parse = |value: Value| MlxConfig::parse(value.to_string().as_bytes()).unwrap();
        let whole = json!({"rank": 4, "scale": 1.0, "dropout": 0.0});
        let with = |key: &str, value: Value| {
            let mut of = whole.clone();
            of[key] = value;
            json!({"num_layers": 1, "lora_parameters": of})
        };
        assert!(parse(with("rank", json!(4))).problems.is_empty());
        for (config, said) in [
            (json!({"num_layers": 1}), "lora_parameters: has none"),
            (json!({"lora_parameters": whole}), "num_layers is null"),
            (with("scale", json!(null)), "lora_parameters.scale is null"),
            (with("rank", json!(0)), "lora_parameters.rank is 0"),
            (
                with("dropout", json!("x")),
                "lora_parameters.dropout is \"x\"",
            ),
            (with("keys", json!("x")), "lora_parameters.keys is no list"),
            (with("keys", json!([1])), "lora_parameters.keys is no list"),
            (
                json!({"num_layers": 1, "lora_parameters": whole, "fine_tune_type": "full"}),
                "fine_tune_type is 'full'",
            ),
        ] {
            let found = parse(config);
            assert_eq!(found.problems.len(), 1, "{said}: {found:?}");
            assert!(found.problems[0].contains(said), "{:?}", found.problems);
        }
        let dora = json!({"num_layers": 1, "lora_parameters": whole, "fine_tune_type": "dora"});
        assert_eq!(parse(dora).unchecked.len(), 1);
        assert!(MlxConfig::parse(b"[]").is_err());
    }
}
