//! What a device computed that is still of use.

use std::collections::BTreeSet;

/// Names of what was computed on the device. What the CPU has computed anew since is not among
/// them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Worked {
    summed: BTreeSet<String>,
    solved: BTreeSet<String>,
    rounded: BTreeSet<String>,
}

/// How much that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkedCounts {
    /// Inputs of whose rows R holds sums from there.
    pub(crate) inputs_summed: usize,
    /// Layers whose latest solve was there from beginning to end.
    pub(crate) layers_solved: usize,
    /// Layers that were rounded there from beginning to end.
    pub(crate) layers_rounded: usize,
}

impl Worked {
    /// R of an input came down with rows that were summed there.
    pub(crate) fn summed(&mut self, input: String) {
        self.summed.insert(input);
    }

    /// Layers were solved, there or on the CPU.
    pub(crate) fn solved<'n>(&mut self, layers: impl Iterator<Item = &'n str>, there: bool) {
        note(&mut self.solved, layers, there);
    }

    /// Layers were rounded, there or on the CPU.
    pub(crate) fn rounded<'n>(&mut self, layers: impl Iterator<Item = &'n str>, there: bool) {
        note(&mut self.rounded, layers, there);
    }

    /// `None` where nothing was computed there.
    pub(crate) fn counts(&self) -> Option<WorkedCounts> {
        let [inputs_summed, layers_solved, layers_rounded] =
            [&self.summed, &self.solved, &self.rounded].map(BTreeSet::len);
        (inputs_summed + layers_solved + layers_rounded > 0).then_some(WorkedCounts {
            inputs_summed,
            layers_solved,
            layers_rounded,
        })
    }
}

fn note<'n>(names: &mut BTreeSet<String>, layers: impl Iterator<Item = &'n str>, there: bool) {
    for layer in layers {
        if there {
            names.insert(layer.to_owned());
        } else {
            names.remove(layer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cpu_computed_since_does_not_count() {
        let mut worked = Worked::default();
        assert_eq!(worked.counts(), None);
        worked.summed("a".into());
        worked.solved(["a", "b"].into_iter(), true);
        worked.solved(["b"].into_iter(), false);
        worked.rounded(["b"].into_iter(), false);
        let counts = WorkedCounts {
            inputs_summed: 1,
            layers_solved: 1,
            layers_rounded: 0,
        };
        assert_eq!(worked.counts(), Some(counts));
    }
}
