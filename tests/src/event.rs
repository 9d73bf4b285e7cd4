//! What a test waits for: one of the daemon's events (`--log-format json`), by its name and by
//! fields of it.

use serde_json::Value;

/// An event that is waited for or counted.
#[derive(Clone, Debug)]
pub struct ExpectedEvent {
    name: &'static str,
    conditions: Vec<FieldCondition>,
}

/// What must hold for one field.
#[derive(Clone, Debug)]
enum FieldCondition {
    Equals { field: &'static str, value: Value },
    Contains { field: &'static str, text: String },
    AtLeast { field: &'static str, number: u64 },
}

/// Any event of this name.
#[must_use]
pub const fn event(name: &'static str) -> ExpectedEvent {
    ExpectedEvent {
        name,
        conditions: Vec::new(),
    }
}

/// The shard of this name, without its extension, was folded.
#[must_use]
pub fn folded(shard: &str) -> ExpectedEvent {
    event("shard-folded").with("shard", format!("{shard}.safetensors"))
}

/// A generation of so many shards is in place.
#[must_use]
pub fn published(shards: usize) -> ExpectedEvent {
    event("published").with("shards", shards)
}

/// A shard was set aside; the message names it so.
#[must_use]
pub fn quarantined(shard: &str) -> ExpectedEvent {
    event("shard-quarantined").containing("message", shard)
}

impl ExpectedEvent {
    /// Those in which a field is this.
    #[must_use]
    pub fn with(self, field: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.also(FieldCondition::Equals { field, value })
    }

    /// Those in which a field is a text that contains this.
    #[must_use]
    pub fn containing(self, field: &'static str, text: &str) -> Self {
        let text = text.into();
        self.also(FieldCondition::Contains { field, text })
    }

    /// Those in which a field is this or a larger number.
    #[must_use]
    pub fn at_least(self, field: &'static str, number: u64) -> Self {
        self.also(FieldCondition::AtLeast { field, number })
    }

    fn also(mut self, condition: FieldCondition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Whether a line of the log is such an event.
    #[must_use]
    pub fn is(&self, said: &Value) -> bool {
        said["event"] == self.name
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(said))
    }
}

impl FieldCondition {
    fn holds(&self, said: &Value) -> bool {
        match self {
            Self::Equals { field, value } => said[field] == *value,
            Self::Contains { field, text } => {
                said[field].as_str().is_some_and(|s| s.contains(text))
            }
            Self::AtLeast { field, number } => said[field].as_u64().is_some_and(|n| n >= *number),
        }
    }
}
