//! The recorded rows. Every shard of a folder is read as a run reads it; a shard that is refused is
//! named and left out. Of the others it is kept how many rows of which layer input they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::error::Fatal;
use crate::publish::check::findings::Findings;
use crate::replay::claims::ReplayClaims;
use crate::settings::Settings;
use crate::source::admission::Admitted;
use crate::source::grouping::group;
use crate::source::intake::{Intake, Scan};
use crate::source::reading::{WholeShard, content, read};
use crate::source::refusal::Refusal;
use crate::source::shard::ShardHeader;
use crate::state::journal::{Gathered, Record};
use crate::weights::Weights;
use crate::weights::opening::Model;
use crate::weights::sites::Sites;

/// A shard that was read whole and checked.
#[derive(Debug)]
pub(crate) struct RecordedShard {
    /// The entries that will be read from it again.
    pub(crate) admitted: Admitted,
    /// Number of rows that count, for each site.
    pub(crate) rows: BTreeMap<usize, usize>,
}

/// The shards, and the layers whose inputs they have.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// The weights in full precision.
    pub(crate) weights: Arc<Weights>,
    /// Which layers share an input.
    pub(crate) sites: Sites,
    /// Shards that were not refused, in the order of their names.
    pub(crate) shards: Vec<RecordedShard>,
    /// Number of these shards that have sums over rows, with or without rows.
    with_sums: usize,
    /// The shards that a run has gathered which takes them in this order.
    gathered: Gathered,
}

impl Recorded {
    /// Reads every shard of a folder.
    ///
    /// # Errors
    /// [`Fatal`] for a folder that cannot be listed, or a weight that cannot be used.
    pub(crate) fn read(
        settings: &Settings,
        model: &Model,
        folder: &Path,
        findings: &mut Findings,
    ) -> Result<Self, Fatal> {
        let scan = Intake::new(folder, false).scan()?;
        let listed = ListedShards::of(scan, findings);
        let grouping = group(settings, Some(model), listed.headers, |_| Ok(()))?;
        for of in &grouping.refused {
            refused(&of.refusal, findings);
        }
        let Some(weights) = grouping.weights else {
            return Err(Fatal::Usage("--checkpoint PATH is needed".into()));
        };
        let mut recorded = Self {
            weights,
            sites: grouping.sites,
            shards: Vec::new(),
            with_sums: 0,
            gathered: Gathered::default(),
        };
        for admitted in grouping.admitted {
            recorded.take(admitted, findings);
        }
        if recorded.with_sums > 0 {
            findings.note(format!(
                "replay: {} of {} shards have sums in the place of rows: sums cannot be replayed, and only the other rows are",
                recorded.with_sums,
                recorded.shards.len()
            ));
        }
        Ok(recorded)
    }

    /// Reads a shard whole, as a run does before it folds a row.
    fn take(&mut self, admitted: Admitted, findings: &mut Findings) {
        let WholeShard { content, rows, .. } = match read(&admitted) {
            Ok(whole) => whole,
            Err(refusal) => return refused(&refusal, findings),
        };
        let shard = match rows {
            Ok(shard) => shard,
            Err(refusal) => return refused(&refusal, findings),
        };
        self.gathered.advance(&Record {
            number: self.gathered.position + 1,
            name: shard.name,
            content,
            file: admitted.identity,
            rows: shard.rows,
            full_precision: admitted.full_precision,
        });
        self.with_sums += usize::from(!shard.sums.is_empty());
        let rows = shard.sites.iter().map(|of| (of.site, of.rows()));
        self.shards.push(RecordedShard {
            rows: rows.collect(),
            admitted,
        });
    }

    /// Number of rows of a site.
    #[must_use]
    pub(crate) fn rows_of(&self, site: usize) -> usize {
        let shards = self.shards.iter();
        shards.filter_map(|shard| shard.rows.get(&site)).sum()
    }

    /// Whether a manifest's figures are of these very shards, as far as can be told: a run that
    /// took them in another order has another digest.
    #[must_use]
    pub(crate) fn is_of(&self, claims: Option<&ReplayClaims>) -> bool {
        let said = claims.map(ReplayClaims::inputs);
        said.filter(|_| self.with_sums == 0).is_some_and(|said| {
            said.shards == self.gathered.shards && said.journal_digest == self.gathered.digest
        })
    }
}

/// The shards of a folder that can be read, each content once.
struct ListedShards {
    headers: Vec<ShardHeader>,
}

impl ListedShards {
    fn of(scan: Scan, findings: &mut Findings) -> Self {
        for refusal in scan.refused.iter().chain(&scan.unanswered) {
            refused(refusal, findings);
        }
        if scan.incomplete > 0 {
            findings.not_checked(format!(
                "replay: {} shards that are being written",
                scan.incomplete
            ));
        }
        let mut listed = Self {
            headers: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        for header in scan.ready {
            match content(&header) {
                Err(refusal) => refused(&refusal, findings),
                Ok(content) if seen.insert(content.clone()) => listed.headers.push(header),
                Ok(_) => findings.note(format!(
                    "replay: shard {} repeats another and counts once",
                    header.name
                )),
            }
        }
        listed
    }
}

fn refused(refusal: &Refusal, findings: &mut Findings) {
    findings.problem(format!("replay: {refusal}"));
}
