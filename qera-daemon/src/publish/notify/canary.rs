//! What a canary's answer says of a generation: whether it is another than the base's, and whether
//! the generation is served.

use serde::{Deserialize, Serialize};

/// What a canary is asked where the user gave no text.
pub(crate) const SENTENCE: &str = "The river was high that spring, and the bridge that the engineers had \
                        built the year before stood in water up to its third stone.";

/// How much worse than the best one a generation may be on the canary's text.
const WORSE_MAX: f64 = 0.01;

/// What the text costs, and what answers differ by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CanaryTrial {
    /// Mean negative log likelihood of the text's tokens with the generation.
    pub(crate) loss: f64,
    /// The same without it.
    pub(crate) base_loss: f64,
    /// The largest difference of a token between the base and the generation.
    pub(crate) difference: f64,
    /// The largest difference of a token between two answers of the base.
    pub(crate) base_difference: f64,
}

/// Answers to one text: logarithms of the probabilities of its tokens.
#[derive(Debug)]
pub(crate) struct CanaryAnswers {
    /// Twice without the generation.
    pub(crate) base: [Vec<f64>; 2],
    /// With it.
    pub(crate) canary: Vec<f64>,
}

impl CanaryAnswers {
    /// What they say; none where they are not of the same tokens.
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
    /// Whether it may be served where the best one so far has this loss.
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
