//! Judges a canary's answer: whether it differs from the base's, and whether the generation may be
//! served.

use serde::{Deserialize, Serialize};

/// The text that a canary is scored on where the user gave none.
pub(crate) const SENTENCE: &str = "The river was high that spring, and the bridge that the engineers had \
                        built the year before stood in water up to its third stone.";

/// How much larger a generation's loss on the canary's text may be, relative to the best one's.
const WORSE_MAX: f64 = 0.01;

/// The losses of a canary's text, and the differences between answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CanaryTrial {
    /// Mean negative log likelihood of the text's tokens with the generation.
    pub(crate) loss: f64,
    /// The mean loss of the text without an adapter.
    pub(crate) base_loss: f64,
    /// The largest difference between the base and the generation in a token's log likelihood.
    pub(crate) difference: f64,
    /// The largest such difference between two answers of the base.
    pub(crate) base_difference: f64,
}

/// A server's answers to one text: logarithms of the probabilities of its tokens.
#[derive(Debug)]
pub(crate) struct CanaryAnswers {
    /// Two answers without the generation.
    pub(crate) base: [Vec<f64>; 2],
    /// The answer with the generation.
    pub(crate) canary: Vec<f64>,
}

impl CanaryAnswers {
    /// The losses and differences; `None` where the answers are not about the same tokens.
    #[must_use]
    pub(crate) fn trial(&self) -> Option<CanaryTrial> {
        let Self {
            base: [first, second],
            canary,
        } = self;
        let is_whole = !first.is_empty() && first.len() == second.len();
        (is_whole && first.len() == canary.len()).then(|| CanaryTrial {
            loss: loss(canary),
            base_loss: loss(first),
            difference: difference(first, canary),
            base_difference: difference(first, second),
        })
    }
}

impl CanaryTrial {
    /// Whether the generation may be served, where the best one so far has the loss `best`.
    #[must_use]
    pub(crate) fn is_good(&self, best: Option<f64>) -> bool {
        best.is_none_or(|best| self.loss <= best * (1.0 + WORSE_MAX))
    }
}

fn loss(logprobs: &[f64]) -> f64 {
    -logprobs.iter().sum::<f64>() / logprobs.len() as f64
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(canary: &[f64]) -> Option<CanaryTrial> {
        let answers = CanaryAnswers {
            base: [vec![-1.0, -2.0], vec![-1.0, -2.125]],
            canary: canary.to_vec(),
        };
        answers.trial()
    }

    #[test]
    fn a_generation_is_held_against_the_best_one() {
        let found = trial(&[-0.5, -1.5]).unwrap();
        assert_eq!((found.loss, found.base_loss), (1.0, 1.5));
        assert_eq!((found.difference, found.base_difference), (0.5, 0.125));
        assert!(found.is_good(None));
        assert!(found.is_good(Some(0.995)));
        assert!(!found.is_good(Some(0.985)));
        assert_eq!(trial(&[-1.0]), None);
    }
}
