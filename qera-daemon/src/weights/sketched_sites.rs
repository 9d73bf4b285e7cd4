//! Decides which sites have sketches. It is decided once, from the widths, and then kept by the
//! state.

use crate::host::second_moment::SecondMomentKind;
use crate::weights::layers::Layer;
use crate::weights::sites::{SiteRecord, Sites};
use crate::weights::sketched::{SiteSketch, SketchRecord};

impl Sites {
    /// Gives sketches to the sites where these are smaller than R; the others gather the whole of
    /// R.
    #[must_use]
    pub(crate) fn sketched(self, of: SketchRecord, layers: &[Layer]) -> Self {
        let kept = of.rows - 1;
        let smaller = |m: usize, sketch: &SiteSketch| sketch.is_smaller(m);
        self.with_sketches(of, layers, |_, m, own| {
            Some(SiteSketch::new(kept, own)).filter(|sketch| smaller(m, sketch))
        })
    }

    /// Gives sketches to the sites that have them in a state, for those layers that are selected
    /// today.
    #[must_use]
    pub(crate) fn sketched_as_saved(
        self,
        of: SketchRecord,
        saved: &[SiteRecord],
        layers: &[Layer],
    ) -> Self {
        let kept = of.rows - 1;
        let mut is_sketched = vec![false; self.sites.len()];
        for record in saved.iter().filter(|record| !record.sketched.is_empty()) {
            if let Some(site) = self.saved_as(&record.key, None) {
                is_sketched[site] = true;
            }
        }
        self.with_sketches(of, layers, |site, _, own| {
            is_sketched[site].then(|| SiteSketch::new(kept, own))
        })
    }

    fn with_sketches(
        mut self,
        of: SketchRecord,
        layers: &[Layer],
        sketch: impl Fn(usize, usize, &[&Layer]) -> Option<SiteSketch>,
    ) -> Self {
        for (index, site) in self.sites.iter_mut().enumerate() {
            let own: Vec<&Layer> = site.layers.iter().map(|&layer| &layers[layer]).collect();
            site.sketch = sketch(index, site.in_features, &own);
            site.second_moment = match &site.sketch {
                Some(_) => SecondMomentKind::Diagonal,
                None => SecondMomentKind::Packed,
            };
        }
        self.sketch = Some(of);
        self
    }

    /// Takes the diagonals alone of the sites that have sketches in a state.
    #[must_use]
    pub(crate) fn without_sketches(mut self, saved: &[SiteRecord]) -> Self {
        for record in saved.iter().filter(|record| !record.sketched.is_empty()) {
            if let Some(site) = self.saved_as(&record.key, None) {
                self.sites[site].second_moment = SecondMomentKind::Diagonal;
            }
        }
        self
    }
}
