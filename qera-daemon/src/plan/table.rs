//! The plan as a table for a person.

use core::fmt::Write as _;

use crate::plan::Plan;
use crate::plan::choices::StatisticsChoice;
use crate::plan::device_plan::DevicePlan;
use crate::plan::model_plan::ModelPlan;
use crate::settings::Settings;
use crate::settings::memory_budget::format_bytes;
use crate::weights::given::read_tensor::ReadTensor;

impl Plan {
    pub(crate) fn table(&self, settings: &Settings) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |s: core::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{s}");
        };
        line(format_args!(
            "{:<52} {:>8} {:>9} {:>12} {:>12}",
            "site", "width", "rows", "statistics", "held-out"
        ));
        for site in &self.sites {
            line(format_args!(
                "{:<52} {:>8} {:>9} {:>12} {:>12}",
                site.name,
                site.in_features,
                site.rows,
                format_bytes(site.statistics_bytes),
                format_bytes(site.window_bytes + site.aside_bytes)
            ));
        }
        line(format_args!(
            "\n{:<52} {:>8} {:>12} {:>12} {:>12} {:>9}",
            "layer", "rank", "solving", "factors", "written", "GFlop"
        ));
        for layer in &self.layers {
            line(format_args!(
                "{:<52} {:>8} {:>12} {:>12} {:>12} {:>9.2}",
                layer.name,
                layer.rank,
                format_bytes(layer.solve_bytes),
                format_bytes(layer.factor_bytes),
                format_bytes(layer.written_bytes),
                layer.solve_flops / 1e9
            ));
        }
        text + &self.read_table()
            + &self.rounding_table(settings)
            + &self.choices_table()
            + &self.stages_table()
            + &self.sums(settings)
    }

    /// The table of the given W~, compared with W; empty where W~ is made.
    fn read_table(&self) -> String {
        let rows = self.layers.iter().filter_map(|layer| layer.read.as_ref());
        let rows: Vec<String> = rows.map(|read| read.row() + "\n").collect();
        if rows.is_empty() {
            return String::new();
        }
        format!("\n{}\n{}", ReadTensor::heading(), rows.concat())
    }

    /// What could be gathered.
    fn choices_table(&self) -> String {
        if self.choices.is_empty() {
            return String::new();
        }
        let rows = self.choices.iter().map(|choice| choice.row() + "\n");
        let heading = StatisticsChoice::heading();
        format!("\n{heading}\n{}", rows.collect::<String>())
    }

    fn stages_table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |s: core::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{s}");
        };
        line(format_args!(
            "\n{:<52} {:>8} {:>12} {:>12}",
            "stage", "when", "memory", "at most"
        ));
        for stage in &self.stages {
            line(format_args!(
                "{:<52} {:>8} {:>12} {:>12}",
                stage.name,
                stage.when.name(),
                format_bytes(stage.bytes),
                format_bytes(stage.bound_bytes)
            ));
        }
        text
    }

    /// The lines below the stages.
    fn sums(&self, settings: &Settings) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |s: core::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{s}");
        };
        let total = if self.solving.is_live() {
            "total"
        } else {
            "total, reading or solving"
        };
        line(format_args!(
            "{total:<61} {:>12} {:>12}",
            format_bytes(self.total_bytes),
            format_bytes(self.bound_bytes)
        ));
        line(format_args!(
            "{:<74} {:>12}   ({})",
            "memory budget",
            format_bytes(settings.compute.memory_budget.bytes),
            settings.compute.memory_budget.origin
        ));
        line(format_args!(
            "{} shards, {} held by the state",
            self.shards, self.shards_held
        ));
        let summed = self.sites.iter().map(|site| site.summed_rows).max();
        if let Some(rows) = summed.filter(|rows| *rows > 0) {
            line(format_args!("{rows} of the rows come as sums"));
        }
        line(format_args!(
            "work: {:.1} GFlop to accumulate, about {:.1} GFlop to solve{}",
            // A sum of nothing is -0.
            self.accumulate_flops / 1e9 + 0.0,
            self.solve_flops / 1e9 + 0.0,
            self.rounding_work()
        ));
        for of_device in self.device.iter().flat_map(DevicePlan::lines) {
            line(format_args!("{of_device}"));
        }
        if let Some(why) = &self.device_refused {
            let what = match &self.device {
                Some(_) => "passed over",
                None => "device: none, the CPU computes",
            };
            line(format_args!("{what}: {why}"));
        }
        if let Some(imatrix) = &self.imatrix {
            line(format_args!("{}", imatrix.line()));
        }
        for of_model in self.model.iter().flat_map(ModelPlan::lines) {
            line(format_args!("{of_model}"));
        }
        text
    }
}
