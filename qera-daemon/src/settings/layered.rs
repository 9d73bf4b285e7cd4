//! Merging of the three sources of options: defaults < `--config FILE` < command line.
//!
//! Each source is written as a TOML table and laid over the one below it. So a new option needs no
//! merging code of its own, and `config --show` can say where each value came from.

use core::fmt::{self, Write as _};
use std::collections::BTreeMap;
use std::path::Path;

use crate::disk::read_small;
use crate::error::Fatal;
use crate::settings::options::Options;

/// The origin of a value that nobody gave.
const DEFAULT: &str = "default";
/// The origin of a value from the command line.
const COMMAND_LINE: &str = "command line";

/// The merged options, with the origin of each key.
#[derive(Debug, Clone)]
pub(crate) struct Layered {
    /// The options after merging.
    pub(crate) options: Options,
    origins: BTreeMap<String, String>,
    table: toml::Table,
    /// The line of each option in the file, counted from 1.
    lines: BTreeMap<String, usize>,
}

impl Layered {
    /// Merges defaults, the file (if any) and the command line.
    ///
    /// # Errors
    /// [`Fatal::Usage`] naming the file, and line and key where TOML says so, when the file cannot
    /// be read, is not TOML, or has a key that is no option.
    pub(crate) fn merge(file: Option<&Path>, command_line: &Options) -> Result<Self, Fatal> {
        let mut merged = Self::of_defaults()?;
        if let Some(path) = file {
            let text = text_of(path)?;
            merged.lay(&parsed(path, &text)?, &path.display().to_string())?;
            merged.lines = lines_of_keys(&text);
        }
        merged.lay(command_line, COMMAND_LINE)?;
        merged.merged()
    }

    /// The options of a settings file's text, over the defaults.
    ///
    /// # Errors
    /// [`Fatal::Usage`] as for [`merge`](Self::merge).
    pub(crate) fn of_text(text: &str) -> Result<Self, Fatal> {
        let mut merged = Self::of_defaults()?;
        let options = toml::from_str(text).map_err(|e| Fatal::Usage(in_one_line(text, &e)))?;
        merged.lay(&options, "text")?;
        merged.merged()
    }

    fn of_defaults() -> Result<Self, Fatal> {
        let mut merged = Self {
            options: Options::default(),
            origins: BTreeMap::new(),
            table: toml::Table::new(),
            lines: BTreeMap::new(),
        };
        merged.lay(&Options::defaults(), DEFAULT)?;
        Ok(merged)
    }

    fn merged(mut self) -> Result<Self, Fatal> {
        if self.table.contains_key("quantized") {
            // Nothing is quantized, so that defaults must go: only an option that was given is
            // refused.
            for key in Options::OF_THE_QUANTIZER {
                if self
                    .origins
                    .get(key)
                    .is_some_and(|origin| origin == DEFAULT)
                {
                    self.table.remove(key);
                }
            }
        }
        self.options = self.table.clone().try_into().map_err(usage)?;
        Ok(self)
    }

    fn lay(&mut self, options: &Options, origin: &str) -> Result<(), Fatal> {
        for (key, value) in toml::Table::try_from(options).map_err(usage)? {
            self.origins.insert(key.clone(), origin.to_owned());
            self.table.insert(key, value);
        }
        Ok(())
    }

    /// Whether this option was given.
    #[must_use]
    pub(crate) fn is_said(&self, option: &str) -> bool {
        let origin = self.origins.get(option);
        origin.is_some_and(|origin| origin != DEFAULT)
    }

    /// Refuses a command without this option, where its default is of no use.
    ///
    /// # Errors
    /// [`Fatal::Usage`] with this message.
    pub(crate) fn needs(&self, option: &str, message: &str) -> Result<(), Fatal> {
        match self.is_said(option) {
            true => Ok(()),
            false => Err(Fatal::Usage(message.to_owned())),
        }
    }

    /// Adds file and line to the error about a wrong value, if the file gave that value. The
    /// message names the option.
    #[must_use]
    pub(crate) fn with_place(&self, fatal: Fatal) -> Fatal {
        let Fatal::Usage(message) = fatal else {
            return fatal;
        };
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let options = message.split(|c| !is_part(c));
        let mut options = options.filter_map(|word| word.strip_prefix("--"));
        let found = options.find_map(|option| {
            let origin = self.origins.get(option)?;
            let is_of_file = origin != DEFAULT && origin != COMMAND_LINE;
            let line = self.lines.get(option).filter(|_| is_of_file)?;
            Some(format!("--config {origin}: line {line}: {message}"))
        });
        Fatal::Usage(found.unwrap_or(message))
    }

    /// What `config --show` prints: valid TOML, each line with its origin as a comment.
    #[must_use]
    pub(crate) fn show(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.table {
            let origin = self.origins.get(key).map_or(DEFAULT, String::as_str);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:<40} # {origin}",
                format!("{key} = {}", on_one_line(value))
            );
        }
        for (key, meaning) in Options::WITHOUT_DEFAULT
            .iter()
            .filter(|(key, _)| !self.table.contains_key(*key))
        {
            let _ = writeln!(text, "# {:<38} # default: {meaning}", format!("{key} ="));
        }
        text
    }
}

/// A value as TOML on one line: the library writes texts with line ends as texts of several lines.
fn on_one_line(value: &toml::Value) -> String {
    match value {
        toml::Value::Array(values) => {
            let values: Vec<String> = values.iter().map(on_one_line).collect();
            format!("[{}]", values.join(", "))
        }
        // Escapes of JSON are those of TOML. Only DEL may stand in a text of JSON and not of TOML.
        toml::Value::String(text) if text.contains(char::is_control) => serde_json::json!(text)
            .to_string()
            .replace('\u{7f}', "\\u007f"),
        other => other.to_string(),
    }
}

fn text_of(path: &Path) -> Result<String, Fatal> {
    let refuse = |e: &dyn fmt::Display| Fatal::Usage(format!("--config {}: {e}", path.display()));
    let text = read_small(path).map_err(|e| refuse(&e))?;
    String::from_utf8(text).map_err(|e| refuse(&e))
}

fn parsed(path: &Path, text: &str) -> Result<Options, Fatal> {
    toml::from_str(text).map_err(|e| {
        let said = in_one_line(text, &e);
        Fatal::Usage(format!("--config {}: {said}", path.display()))
    })
}

/// The line of each key, counted from 1.
fn lines_of_keys(text: &str) -> BTreeMap<String, usize> {
    let keys = text.lines().zip(1..).filter_map(|(line, number)| {
        let key = line.split_once('=')?.0.trim().trim_matches(['"', '\'']);
        Some((key.to_owned(), number))
    });
    keys.collect()
}

/// The library's error in one line, with its place; the library itself spreads it over several.
fn in_one_line(text: &str, error: &toml::de::Error) -> String {
    let said = error.message().lines().collect::<Vec<_>>().join("; ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return said;
    };
    let line = before.matches('\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    format!("line {line}, column {}: {said}", last.chars().count() + 1)
}

fn usage(error: impl fmt::Display) -> Fatal {
    Fatal::Usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_is_shown_on_a_line_of_its_own() {
        let text = "map = [\"a=^b\\n$1\", \"c=d\"]\nout = \"\\u007f\\t\\\"\\u0001\"\n";
        let layered = Layered::of_text(text).unwrap();
        let shown = layered.show();
        let has_origin = |line: &str| line.starts_with('#') || line.contains(" # ");
        assert!(shown.lines().all(has_origin), "{shown}");
        let again = Layered::of_text(&shown).unwrap();
        assert_eq!(again.options.map, layered.options.map);
        assert_eq!(again.options.out, layered.options.out);
    }

    #[test]
    fn command_line_beats_file_beats_default() {
        let dir = std::env::temp_dir().join(format!("qera-layered-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("qera.toml");
        std::fs::write(&file, "rank = 8\nshrinkage = 0.5\nmethod = \"approx\"\n").unwrap();
        let flags = Options {
            rank: Some(4),
            ..Options::default()
        };
        let merged = Layered::merge(Some(&file), &flags).unwrap();
        assert_eq!(merged.options.rank, Some(4));
        assert_eq!(merged.options.method.as_deref(), Some("approx"));
        assert_eq!(merged.options.shrinkage.as_deref(), Some("0.5"));
        assert_eq!(merged.options.block_size, Some(32));
        let shown = merged.show();
        assert!(
            shown
                .lines()
                .any(|l| l.starts_with("rank = 4") && l.ends_with("# command line"))
        );
        assert!(
            shown
                .lines()
                .any(|l| l.starts_with("method") && l.contains("qera.toml"))
        );
        assert!(
            shown
                .lines()
                .any(|l| l.starts_with("block-size = 32") && l.ends_with("# default"))
        );

        // A value that is valid TOML, but not valid for the option.
        std::fs::write(&file, "rank = 8\n\n\"tolerance\" = -1\nmethod = 'exact'\n").unwrap();
        let merged = Layered::merge(Some(&file), &flags).unwrap();
        let placed = |said: &str| merged.with_place(Fatal::Usage(said.into())).to_string();
        let refused = placed("--tolerance: must be above 0");
        assert!(
            refused.contains("qera.toml: line 3: --tolerance: must"),
            "{refused}"
        );
        for said in ["--rank: too many", "--out: none", "--once and --watch"] {
            assert_eq!(placed(said), said, "not of the file");
        }

        std::fs::write(&file, "rank = 8\n  ranks = 8\n").unwrap();
        let refused = Layered::merge(Some(&file), &flags).unwrap_err().to_string();
        assert!(
            refused.contains("ranks") && refused.contains("qera.toml"),
            "{refused}"
        );
        assert!(refused.contains("line 2, column 3: "), "{refused}");
        for wrong in ["rank = \"a\nb\"\n", "rank = [\n1,\n2]\n", "rank\n=\n"] {
            std::fs::write(&file, wrong).unwrap();
            let refused = Layered::merge(Some(&file), &flags).unwrap_err().to_string();
            assert!(
                !refused.contains('\n') && refused.contains("line "),
                "{refused}"
            );
            let refused = Layered::of_text(wrong).unwrap_err().to_string();
            assert!(
                !refused.contains('\n') && refused.contains("line "),
                "{refused}"
            );
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
