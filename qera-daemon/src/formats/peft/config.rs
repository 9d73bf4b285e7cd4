//! `adapter_config.json` of a LoRA adapter: what is read of it, what is wrong with it, and what is
//! not understood.

use serde_json::{Map, Value};

use crate::formats::peft::targets::{TargetEntries, Targets, ValuePattern};

/// Keys that have no effect on an adapter once it is loaded.
const WITHOUT_EFFECT: [&str; 21] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "layers_pattern",
    "lora_dropout",
    "lora_ga_config",
    "loftq_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "arrow_config",
    "parent_library",
    "peft_model_class",
    "base_model_class",
];
/// Keys that are read here.
const READ: [&str; 13] = [
    "peft_type",
    "r",
    "lora_alpha",
    "target_modules",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "bias",
    "use_dora",
    "use_rslora",
    "fan_in_fan_out",
    "layers_to_transform",
    "init_lora_weights",
];
/// Values of `init_lora_weights` with which loading changes the base's weights.
const CHANGING_THE_BASE: [&str; 4] = ["pissa", "olora", "corda", "lora_ga"];

/// The configuration of a LoRA adapter.
#[derive(Debug, Default)]
pub(crate) struct PeftConfig {
    /// `target_modules`; `None` where it is missing or has another type.
    pub(crate) targets: Option<Targets>,
    /// Whether `target_modules` alone says which modules are targeted, and is no expression.
    pub(crate) targets_are_known: bool,
    excluded: TargetEntries,
    rank: Option<usize>,
    alpha: Option<f64>,
    ranks: ValuePattern<usize>,
    alphas: ValuePattern<f64>,
    rslora: bool,
    /// Whether the adapter has more than A B.
    pub(crate) dora: bool,
    /// Whether the base stores its weights [in_features, out_features].
    pub(crate) transposed: bool,
    /// The model that the adapter belongs on, by name or folder.
    pub(crate) base_model: Option<String>,
    /// What is wrong with the configuration.
    pub(crate) problems: Vec<String>,
    /// What is not understood in it.
    pub(crate) unchecked: Vec<String>,
}

impl PeftConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// The bytes are no JSON.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let map: Map<String, Value> = serde_json::from_slice(bytes)?;
        let mut config = Self::default();
        config.read_kind(&map);
        config.read_ranks(&map);
        config.read_targets(&map);
        config.read_rest(&map);
        Ok(config)
    }

    /// The rank of a module's pair; `None` where it is unknown.
    #[must_use]
    pub(crate) fn rank_of(&self, module: &str) -> Option<usize> {
        self.ranks.value_of(module, self.rank)
    }

    /// The factor by which A B is multiplied; `None` where it is unknown.
    #[must_use]
    pub(crate) fn scale_of(&self, module: &str) -> Option<f64> {
        let rank = self.rank_of(module)? as f64;
        let alpha = self.alphas.value_of(module, self.alpha)?;
        Some(alpha / if self.rslora { rank.sqrt() } else { rank })
    }

    /// The entry of `target_modules` that targets a module, unless the module is excluded.
    #[must_use]
    pub(crate) fn entry_of(&self, module: &str) -> Option<&str> {
        let entry = self.targets.as_ref()?.entry_of(module);
        entry.filter(|_| self.excluded.entry_of(module).is_none())
    }

    fn read_kind(&mut self, map: &Map<String, Value>) {
        match map.get("peft_type").and_then(Value::as_str) {
            Some("LORA") => {}
            Some(other) => self.problem(format!("peft_type is '{other}', not 'LORA'")),
            None => self.problem("has no peft_type".into()),
        }
        match map.get("bias").unwrap_or(&Value::Null) {
            Value::Null => {}
            Value::String(bias) if bias == "none" => {}
            other => self.problem(format!(
                "bias is {other}: only \"none\" leaves the base as it is"
            )),
        }
        self.rslora = self.flag(map, "use_rslora");
        self.dora = self.flag(map, "use_dora");
        self.transposed = self.flag(map, "fan_in_fan_out");
        if self.dora {
            let message = "use_dora: the magnitudes beside A and B are not looked at";
            self.unchecked.push(message.into());
        }
    }

    fn read_ranks(&mut self, map: &Map<String, Value>) {
        let number = |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|&r| r > 0);
        let finite = |value: &Value| value.as_f64().filter(|alpha| alpha.is_finite());
        let get = |key: &str| map.get(key).unwrap_or(&Value::Null);
        self.rank = number(get("r"));
        if self.rank.is_none() {
            self.problem(format!(
                "r is {}: a number of at least 1 is needed",
                get("r")
            ));
        }
        self.alpha = finite(get("lora_alpha"));
        match self.alpha {
            None => self.problem(format!("lora_alpha is {}, no number", get("lora_alpha"))),
            Some(alpha) if alpha.abs() <= 0.0 => {
                self.problem("lora_alpha is 0: the adapter changes nothing".into());
            }
            Some(_) => {}
        }
        self.ranks = ValuePattern::parse(get("rank_pattern"), number);
        self.alphas = ValuePattern::parse(get("alpha_pattern"), finite);
        for (key, unread) in [
            ("rank_pattern", self.ranks.unread),
            ("alpha_pattern", self.alphas.unread),
        ] {
            if unread {
                let message = format!(
                    "{key}: has regular expressions, or values that are no numbers; it is not applied here"
                );
                self.unchecked.push(message);
            }
        }
    }

    fn read_targets(&mut self, map: &Map<String, Value>) {
        let get = |key: &str| map.get(key).unwrap_or(&Value::Null);
        self.targets = Targets::parse(get("target_modules"));
        self.targets_are_known = true;
        match &self.targets {
            None => {
                self.problem(format!(
                    "target_modules is {}: a list of names or a string is needed",
                    get("target_modules")
                ));
                self.targets_are_known = false;
            }
            Some(Targets::Expression(text)) => self.targets_unknown(format!(
                "target_modules '{text}' is a regular expression: which modules it means is not looked at"
            )),
            Some(_) => {}
        }
        if !is_empty(get("layers_to_transform")) {
            self.targets_unknown(
                "layers_to_transform: which modules it leaves out is not looked at".into(),
            );
        }
        match TargetEntries::listed(get("exclude_modules")) {
            Some(excluded) => self.excluded = excluded,
            None if is_empty(get("exclude_modules")) => {}
            None => self.targets_unknown(
                "exclude_modules is no list: which modules it leaves out is not looked at".into(),
            ),
        }
    }

    fn read_rest(&mut self, map: &Map<String, Value>) {
        let model = map.get("base_model_name_or_path").and_then(Value::as_str);
        self.base_model = model.map(str::to_owned);
        if let Some(kind) = map.get("init_lora_weights").and_then(Value::as_str)
            && CHANGING_THE_BASE
                .iter()
                .any(|known| kind.starts_with(known))
        {
            let message =
                format!("init_lora_weights '{kind}': loading may change the base's weights");
            self.unchecked.push(message);
        }
        for (key, value) in map {
            let known = WITHOUT_EFFECT.contains(&key.as_str()) || READ.contains(&key.as_str());
            if !known && !is_empty(value) {
                self.unchecked
                    .push(format!("{key}: what it does is not known here"));
            }
        }
    }

    fn flag(&mut self, map: &Map<String, Value>, key: &str) -> bool {
        match map.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.problem(format!("{key} is {other}, neither true nor false"));
                false
            }
        }
    }

    fn targets_unknown(&mut self, message: String) {
        self.targets_are_known = false;
        self.unchecked.push(message);
    }

    fn problem(&mut self, message: String) {
        self.problems.push(message);
    }
}

/// Whether a value is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(change: impl FnOnce(&mut Map<String, Value>)) -> PeftConfig {
        let mut config = json!({
            "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"],
            "bias": "none", "lora_dropout": 0.1, "task_type": "CAUSAL_LM", "init_lora_weights": true,
            "modules_to_save": null, "use_dora": false, "layer_replication": [],
        });
        change(config.as_object_mut().unwrap());
        PeftConfig::parse(config.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_ordinary_configuration_is_understood() {
        let config = parse(|_| ());
        assert!(
            config.problems.is_empty() && config.unchecked.is_empty(),
            "{config:?}"
        );
        assert!(config.targets_are_known);
        assert_eq!(config.rank_of("q_proj"), Some(8));
        assert_eq!(config.scale_of("q_proj"), Some(2.0));
        assert_eq!(config.entry_of("layers.0.q_proj"), Some("q_proj"));
        let rslora = parse(|map| {
            map.insert("use_rslora".into(), true.into());
            map.insert("rank_pattern".into(), json!({"q_proj": 4}));
            map.insert("alpha_pattern".into(), json!({"q_proj": 6}));
            map.insert("exclude_modules".into(), json!(["1.q_proj"]));
        });
        assert_eq!(rslora.scale_of("q_proj"), Some(3.0));
        assert_eq!(rslora.entry_of("layers.1.q_proj"), None);
        assert_eq!(rslora.entry_of("layers.2.q_proj"), Some("q_proj"));
    }

    #[test]
    fn everything_wrong_is_named() {
        for (key, value, said) in [
            ("peft_type", json!("IA3"), "'IA3'"),
            ("peft_type", json!(null), "no peft_type"),
            ("r", json!(0), "r is 0"),
            ("r", json!(2.5), "r is 2.5"),
            ("lora_alpha", json!("x"), "lora_alpha is \"x\""),
            ("lora_alpha", json!(0), "changes nothing"),
            ("target_modules", json!(null), "target_modules is null"),
            ("bias", json!("all"), "bias is \"all\""),
            ("use_dora", json!(3), "use_dora is 3"),
        ] {
            let config = parse(|map| {
                map.insert(key.into(), value);
            });
            assert_eq!(config.problems.len(), 1, "{key}: {config:?}");
            assert!(config.problems[0].contains(said), "{:?}", config.problems);
        }
        let empty = PeftConfig::parse(b"{}").unwrap();
        assert_eq!(empty.problems.len(), 4, "{empty:?}");
        assert!(PeftConfig::parse(b"[]").is_err());
    }

    #[test]
    fn everything_not_understood_is_named() {
        for (key, value, known) in [
            ("target_modules", json!(".*q_proj"), false),
            ("layers_to_transform", json!([0]), false),
            ("exclude_modules", json!("a|b"), false),
            ("rank_pattern", json!({"a.*": 4}), true),
            ("use_dora", json!(true), true),
            ("init_lora_weights", json!("pissa_niter_4"), true),
            ("modules_to_save", json!(["head"]), true),
            ("of_next_year", json!(1), true),
        ] {
            let config = parse(|map| {
                map.insert(key.into(), value);
            });
            assert_eq!(config.unchecked.len(), 1, "{key}: {config:?}");
            assert!(config.unchecked[0].contains(key), "{:?}", config.unchecked);
            assert!(config.problems.is_empty(), "{config:?}");
            assert_eq!(config.targets_are_known, known, "{key}");
        }
    }
}
