//! The description of a packed model in config.json (`quantization_config`; in older folders
//! quantize_config.json): which of the three methods, and how each weight is packed. Anything that
//! is not read is refused by name.

use serde_json::{Map, Value};

use crate::formats::packed::name_pattern::{NamePattern, UnreadExpression};
use crate::formats::packed::scheme::{Bits, CodeLayout, InputGroups, Scheme, ZeroReading};

/// The methods that are read, for messages.
const READ: &str = "compressed-tensors (pack-quantized, 4 and 8 bits), gptq (4 and 8 bits) and awq \
                    (GEMM, 4 bits) are read";
/// The name of the class of every linear layer.
const LINEAR: &str = "Linear";
/// The format of compressed-tensors that is read.
const PACK_QUANTIZED: &str = "pack-quantized";
/// The format where each group states its own.
const MIXED: &str = "mixed-precision";

/// How a model is packed.
#[derive(Debug, Clone)]
pub(crate) enum PackingConfig {
    /// The weights were packed by compressed-tensors, which lists targets.
    CompressedTensors(PackedTargets),
    /// The weights were packed by GPTQ.
    Gptq(GptqConfig),
    /// The weights were packed by AWQ with its GEMM layout.
    Awq(Scheme),
}

/// How GPTQ packed a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GptqConfig {
    /// The scheme of each weight.
    pub(crate) scheme: Scheme,
    /// Whether some weights have another scheme, which their shapes tell.
    pub(crate) dynamic: bool,
}

/// How compressed-tensors packed a model.
#[derive(Debug, Clone)]
pub(crate) struct PackedTargets {
    groups: Vec<TargetGroup>,
    ignored: Vec<NamePattern>,
}

#[derive(Debug, Clone)]
struct TargetGroup {
    targets: Vec<NamePattern>,
    scheme: Scheme,
}

/// Why a configuration cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The quantization configuration is no JSON object.
    #[error("is no object")]
    NoObject,
    /// The configuration does not name its method.
    #[error("has no quant_method: {READ}")]
    NoMethod,
    /// The configuration names a method that is not read.
    #[error("its quant_method is '{}': {READ}", .0.escape_debug())]
    Method(String),
    /// A field is missing, or has another value than it may have.
    #[error("its {key} is {found}, {expected} is read")]
    Field {
        /// Path of the field.
        key: String,
        /// The value that was found.
        found: String,
        /// The value that was expected.
        expected: &'static str,
    },
    /// Weights are rotated before they are quantized.
    #[error(
        "its transform_config is not empty: such weights are rotated together with their inputs, \
         which is not supported"
    )]
    Transform,
    /// Activations are quantized, too.
    #[error(
        "its {0} is quantized, too: only weights are corrected, and pack-quantized has none of that"
    )]
    Activations(String),
    /// A pattern of names cannot be read.
    #[error("{key}: {error}")]
    Pattern {
        /// Path of the field.
        key: String,
        /// Why the pattern cannot be read.
        error: UnreadExpression,
    },
}

impl PackingConfig {
    /// Reads a configuration; `fallback` is the method where the file need not state it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn parse(config: &Value, fallback: Option<&str>) -> Result<Self, ConfigError> {
        let object = config.as_object().ok_or(ConfigError::NoObject)?;
        let fields = Fields { object, path: "" };
        let method = fields.text("quant_method")?.or(fallback);
        match method.ok_or(ConfigError::NoMethod)? {
            "compressed-tensors" => targets(&fields).map(Self::CompressedTensors),
            "gptq" => gptq(&fields).map(Self::Gptq),
            "awq" => awq(&fields).map(Self::Awq),
            other => Err(ConfigError::Method(other.to_owned())),
        }
    }

    /// The method's name.
    #[must_use]
    pub(crate) const fn method(&self) -> &'static str {
        match self {
            Self::CompressedTensors(_) => "compressed-tensors",
            Self::Gptq(_) => "gptq",
            Self::Awq(_) => "awq",
        }
    }
}

impl PackedTargets {
    /// How a module's weight is packed: by its name, by an expression that matches it, or by its
    /// class, in this order. `None` where it is ignored, or no target.
    #[must_use]
    pub(crate) fn scheme_of(&self, module: &str) -> Option<Scheme> {
        if self
            .ignored
            .iter()
            .any(|of| of.meets(module) || of.is(LINEAR))
        {
            return None;
        }
        let of = |meets: &dyn Fn(&NamePattern) -> bool| {
            let mut groups = self.groups.iter();
            groups.find(|group| group.targets.iter().any(meets))
        };
        let found = of(&|target| target.is(module))
            .or_else(|| of(&|target| target.meets(module)))
            .or_else(|| of(&|target| target.is(LINEAR)));
        found.map(|group| group.scheme)
    }
}

/// The fields of an object.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// The path of the object, which messages put before names.
    path: &'a str,
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &'static str) -> ConfigError {
        let found = self.get(key);
        ConfigError::Field {
            key: format!("{}{key}", self.path),
            found: found.map_or_else(|| "missing".into(), ToString::to_string),
            expected,
        }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let found = self.get(key).map(|value| value.as_str());
        found
            .map(|text| text.ok_or_else(|| self.wrong(key, "a text")))
            .transpose()
    }

    fn switch(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let found = self.get(key).map(|value| value.as_bool());
        found
            .map(|switch| switch.ok_or_else(|| self.wrong(key, "true or false")))
            .transpose()
    }

    fn object(&self, key: &str, path: &'a str) -> Result<Option<Self>, ConfigError> {
        let found = self.get(key).map(|value| value.as_object());
        let object = found.map(|object| object.ok_or_else(|| self.wrong(key, "an object")));
        Ok(object.transpose()?.map(|object| Self { object, path }))
    }

    fn bits(&self, key: &str) -> Result<Bits, ConfigError> {
        let bits = self.get(key).and_then(Value::as_u64).and_then(Bits::of);
        bits.ok_or_else(|| self.wrong(key, "4 or 8"))
    }

    /// A number of inputs in a group; -1 means all of them.
    fn grouping(&self, key: &str) -> Result<InputGroups, ConfigError> {
        let found = self.get(key).and_then(Value::as_i64);
        let size = found.and_then(|size| usize::try_from(size).ok());
        match size.filter(|size| *size > 0) {
            Some(size) => Ok(InputGroups::Size(size)),
            None if found == Some(-1) => Ok(InputGroups::Channel),
            None => Err(self.wrong(key, "a number of inputs, or -1")),
        }
    }

    fn patterns(&self, key: &str) -> Result<Vec<NamePattern>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let list = value.as_array();
        let list = list.ok_or_else(|| self.wrong(key, "a list of names"))?;
        let pattern = |value: &Value| {
            let text = value.as_str();
            let text = text.ok_or_else(|| self.wrong(key, "a list of names"))?;
            NamePattern::parse(text).map_err(|error| ConfigError::Pattern {
                key: format!("{}{key}", self.path),
                error,
            })
        };
        list.iter().map(pattern).collect()
    }
}

fn gptq(fields: &Fields<'_>) -> Result<GptqConfig, ConfigError> {
    let zeros = match fields.text("checkpoint_format")? {
        None | Some("gptq") => ZeroReading::OneLess,
        Some("gptq_v2") => ZeroReading::AsStored,
        Some(_) => return Err(fields.wrong("checkpoint_format", "gptq or gptq_v2")),
    };
    let dynamic = fields.object("dynamic", "dynamic.")?;
    Ok(GptqConfig {
        scheme: Scheme {
            layout: CodeLayout::Gptq {
                zeros,
                ordered: fields.switch("desc_act")?.unwrap_or_default(),
            },
            bits: fields.bits("bits")?,
            grouping: fields.grouping("group_size")?,
        },
        dynamic: dynamic.is_some_and(|of| !of.object.is_empty()),
    })
}

fn awq(fields: &Fields<'_>) -> Result<Scheme, ConfigError> {
    let version = fields.text("version")?.unwrap_or("gemm");
    if !version.eq_ignore_ascii_case("gemm") {
        return Err(fields.wrong("version", "gemm"));
    }
    let bits = fields.bits("bits").ok();
    let bits = bits.filter(|bits| *bits == Bits::Four);
    Ok(Scheme {
        layout: CodeLayout::Awq {
            symmetric: !fields.switch("zero_point")?.unwrap_or(true),
        },
        bits: bits.ok_or_else(|| fields.wrong("bits", "4"))?,
        grouping: fields.grouping("group_size")?,
    })
}

fn targets(fields: &Fields<'_>) -> Result<PackedTargets, ConfigError> {
    let format = fields.text("format")?;
    if !matches!(format, Some(PACK_QUANTIZED | MIXED)) {
        return Err(fields.wrong("format", PACK_QUANTIZED));
    }
    let status = fields.text("quantization_status")?;
    if status.is_some_and(|status| status != "compressed") {
        return Err(fields.wrong("quantization_status", "compressed"));
    }
    let transform = fields.object("transform_config", "transform_config.")?;
    if transform.is_some_and(|of| !of.object.is_empty()) {
        return Err(ConfigError::Transform);
    }
    if let Some(sparsity) = fields.object("sparsity_config", "sparsity_config.")?
        && sparsity
            .text("format")?
            .is_some_and(|format| format != "dense")
    {
        return Err(sparsity.wrong("format", "dense"));
    }
    let groups = fields.object("config_groups", "")?;
    let groups = groups.ok_or_else(|| fields.wrong("config_groups", "an object"))?;
    let group = |name: &String| {
        let path = format!("config_groups.{name}.");
        let group = groups.object(name, "")?;
        let group = group.ok_or_else(|| groups.wrong(name, "an object"))?;
        let group = Fields {
            path: &path,
            ..group
        };
        target_group(&group, format)
    };
    Ok(PackedTargets {
        groups: groups.object.keys().map(group).collect::<Result<_, _>>()?,
        ignored: fields.patterns("ignore")?,
    })
}

fn target_group(fields: &Fields<'_>, format: Option<&str>) -> Result<TargetGroup, ConfigError> {
    let own = fields.text("format")?.or(format);
    if own != Some(PACK_QUANTIZED) {
        return Err(fields.wrong("format", PACK_QUANTIZED));
    }
    for key in ["input_activations", "output_activations"] {
        if fields.get(key).is_some() {
            return Err(ConfigError::Activations(format!("{}{key}", fields.path)));
        }
    }
    let path = format!("{}weights.", fields.path);
    let weights = fields.get("weights").and_then(Value::as_object);
    let object = weights.ok_or_else(|| fields.wrong("weights", "an object"))?;
    let weights = Fields {
        object,
        path: &path,
    };
    if weights.text("type")?.is_some_and(|of| of != "int") {
        return Err(weights.wrong("type", "int"));
    }
    let grouping = match weights.text("strategy")? {
        Some("channel") => InputGroups::Channel,
        Some("group") => weights.grouping("group_size")?,
        // Where nothing is said, the size decides.
        None if weights.get("group_size").is_some() => weights.grouping("group_size")?,
        _ => return Err(weights.wrong("strategy", "group or channel")),
    };
    Ok(TargetGroup {
        targets: fields.patterns("targets")?,
        scheme: Scheme {
            layout: CodeLayout::CompressedTensors {
                symmetric: weights.switch("symmetric")?.unwrap_or(true),
                ordered: is_ordered(&weights)?,
            },
            bits: weights.bits("num_bits")?,
            grouping,
        },
    })
}

/// Whether the groups of inputs are in another order than the inputs. Where only the order of
/// rounding differed (`weight`, `static`), they are not.
fn is_ordered(weights: &Fields<'_>) -> Result<bool, ConfigError> {
    match weights.get("actorder") {
        None => Ok(false),
        Some(Value::Bool(group)) => Ok(*group),
        Some(Value::String(of)) => match of.to_lowercase().as_str() {
            "group" | "dynamic" => Ok(true),
            "weight" | "static" => Ok(false),
            _ => Err(weights.wrong("actorder", "group or weight")),
        },
        Some(_) => Err(weights.wrong("actorder", "group or weight")),
    }
}
