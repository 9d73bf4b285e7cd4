//! A replay, as a process, and what it says of the layers.

use qera_tests::daemon::{EndedRun, TestDaemon};
use serde_json::Value;

use crate::oracle::Expected;

/// Relative difference that f32 products may leave.
const CLOSE: f64 = 2e-6;

/// What a replay ended with.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) run: EndedRun,
    pub(crate) said: Value,
}

/// `verify --replay activations --checkpoint checkpoint --json` and more.
pub(crate) fn replay(daemon: &TestDaemon, adapter: &str, more: &[&str]) -> Replayed {
    let named = |option| more.contains(&option);
    let mut options = vec!["verify", "--json", "--adapter", adapter];
    for (option, value) in [("--replay", "activations"), ("--checkpoint", "checkpoint")] {
        if !named(option) {
            options.extend([option, value]);
        }
    }
    options.extend(more);
    let run = daemon.run(&options);
    let said = serde_json::from_str(&run.output);
    Replayed {
        said: said.unwrap_or_else(|e| panic!("{e}: {}{}", run.output, run.log)),
        run,
    }
}

impl Replayed {
    /// The layers of the replay, which has a single form.
    pub(crate) fn layers(&self) -> &[Value] {
        let [form] = &self.said["replay"].as_array().unwrap()[..] else {
            panic!("{}", self.said);
        };
        form["layers"].as_array().unwrap()
    }

    pub(crate) fn totals(&self) -> &Value {
        &self.said["replay"][0]["totals"]
    }

    /// What is said of a layer.
    pub(crate) fn layer(&self, name: &str) -> &Value {
        let mut layers = self.layers().iter();
        let layer = layers.find(|layer| layer["name"] == name);
        layer.unwrap_or_else(|| panic!("no {name}: {}", self.said))
    }

    /// Lines of one kind: problems, notes, not_checked.
    pub(crate) fn lines(&self, kind: &str) -> Vec<String> {
        let lines = self.said[kind].as_array().unwrap().iter();
        lines
            .map(|line| line.as_str().unwrap().to_owned())
            .collect()
    }

    /// Asserts that there is nothing wrong.
    pub(crate) fn assert_holds(&self) {
        assert!(
            self.run.code == 0 && self.said["holds"] == true,
            "{}",
            self.said
        );
        assert!(self.lines("problems").is_empty());
    }

    /// Asserts that there are these problems, each of them a part of one, and no other.
    pub(crate) fn assert_problems(&self, said: &[&str]) {
        let problems = self.lines("problems");
        assert_eq!(
            (self.run.code, problems.len()),
            (1, said.len()),
            "{problems:#?}"
        );
        for words in said {
            let named = problems.iter().any(|line| line.contains(words));
            assert!(named, "'{words}' is not in {problems:#?}");
        }
    }

    /// Asserts that a layer's figures are these, as near as f32 products allow.
    pub(crate) fn assert_figures(&self, name: &str, expected: &Expected) {
        let layer = self.layer(name);
        for (figure, expected) in [
            ("output_power", expected.power),
            ("error_without", expected.without),
            ("error_with", expected.with),
            ("relative_without", expected.without / expected.power),
            ("relative_with", expected.with / expected.power),
        ] {
            let found = layer[figure].as_f64().unwrap();
            let far = (found - expected).abs();
            // What is left may be a small part of what f32 products are of.
            let may = CLOSE * expected;
            assert!(far <= may, "{name} {figure}: {found:e}, not {expected:e}");
        }
    }
}
