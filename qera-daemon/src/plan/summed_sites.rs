//! Whose rows a device sums, and how many rows are kept for it.

use qera_gpu::{Triangle, pinned_bytes};

use crate::host::offload::placement::scratch_bytes;
use crate::settings::Settings;
use crate::weights::sites::{Site, Sites};

/// Bytes of rows that are kept until R comes down that holds them, at most: R comes down more
/// seldom the more there are.
const KEPT_BYTES: u64 = 1 << 30;
/// And at most such a share of the memory budget.
const KEPT_SHARE: u64 = 8;

/// Where there is no room even for so much, sites are left out.
const KEPT_LEAST: u64 = 1 << 20;

/// The sites whose rows a device sums: those that the run begins with. One that comes later, where
/// there is no checkpoint, is summed on the host.
#[derive(Debug, Clone, Default)]
pub(crate) struct SummedSites {
    by_site: Vec<bool>,
    /// What each worker keeps at most, as long as that has room.
    kept_whole: u64,
    kept_bytes: u64,
    /// The sites for which the host has no room, by their first members.
    pub(crate) without_room: Vec<String>,
}

impl SummedSites {
    /// By the widths of the sites and the memory of the device, where there is one.
    pub(crate) fn of(settings: &Settings, sites: &Sites) -> Self {
        let Some(accelerator) = settings.compute.device.accelerator() else {
            return Self::default();
        };
        let widths = sites.sites.iter();
        let widths: Vec<usize> = widths
            .map(|site| match site.second_moment.is_whole() {
                true => site.in_features,
                false => 0,
            })
            .collect();
        let by_site = accelerator.shares.summed(accelerator.least, &widths);
        let workers = settings.compute.threads.min(widths.len().max(1)) as u64;
        let kept = KEPT_BYTES.min(settings.compute.memory_budget.bytes / KEPT_SHARE);
        Self {
            by_site,
            kept_whole: kept / workers,
            kept_bytes: kept / workers,
            without_room: Vec::new(),
        }
    }

    /// What takes less of the host's memory: half as many rows kept, or none of the widest sites;
    /// `None` where nothing is summed there.
    pub(crate) fn smaller(&self, sites: &Sites) -> Option<Self> {
        let widest = self.widest(sites)?;
        let mut smaller = self.clone();
        if self.kept_bytes > KEPT_LEAST {
            smaller.kept_bytes /= 2;
            return Some(smaller);
        }
        smaller.kept_bytes = self.kept_whole;
        for (is_summed, site) in smaller.by_site.iter_mut().zip(&sites.sites) {
            if *is_summed && site.in_features == widest {
                *is_summed = false;
                smaller.without_room.push(site.name.clone());
            }
        }
        Some(smaller)
    }

    /// Of these sites alone, which are the first ones.
    pub(crate) fn among(&self, sites: &Sites) -> Self {
        let mut among = self.clone();
        among.by_site.truncate(sites.sites.len());
        among
    }

    /// Whether a device sums the rows of this site.
    pub(crate) fn has(&self, site: usize) -> bool {
        self.by_site.get(site).copied().unwrap_or_default()
    }

    /// Bytes of the device that R of this site takes, where it is summed there.
    pub(crate) fn bytes_there(&self, index: usize, site: &Site) -> Option<u64> {
        let there = self.has(index);
        there.then(|| Triangle::device_bytes(site.in_features))
    }

    /// Bytes of the device that folding takes beside R of all of them.
    pub(crate) fn scratch_bytes_there(&self, sites: &Sites) -> u64 {
        self.widest(sites).map_or(0, scratch_bytes)
    }

    /// Bytes of page-locked memory, here, through which the rows go; 0 where none do.
    pub(crate) fn pinned_bytes(&self, sites: &Sites) -> u64 {
        self.widest(sites).map_or(0, pinned_bytes)
    }

    /// The widest of them.
    fn widest(&self, sites: &Sites) -> Option<usize> {
        let summed = sites.sites.iter().enumerate();
        let summed = summed.filter(|(index, _)| self.has(*index));
        summed.map(|(_, site)| site.in_features).max()
    }

    /// Bytes of rows that one worker keeps, but for those of one input of a shard more.
    pub(crate) const fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }
}
