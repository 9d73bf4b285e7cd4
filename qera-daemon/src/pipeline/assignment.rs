//! Assigns sites to workers. The widest site comes first, and each goes to the worker with the
//! least work so far, since a row costs in_features squared. The assignment is a function of the
//! sites and the number of workers; the bytes of the result do not depend on it.

use crate::weights::sites::Site;

/// The sites of each of the `workers`, by index and in order.
pub(crate) fn assign(sites: &[Site], workers: usize) -> Vec<Vec<usize>> {
    let mut workers: Vec<Vec<usize>> = vec![Vec::new(); workers];
    let mut load = vec![0_u128; workers.len()];
    let mut order: Vec<usize> = (0..sites.len()).collect();
    order.sort_by_key(|&site| core::cmp::Reverse(sites[site].in_features));
    for site in order {
        let Some(least) = (0..load.len()).min_by_key(|&w| (load[w], w)) else {
            break;
        };
        load[least] += (sites[site].in_features as u128).pow(2);
        workers[least].push(site);
    }
    workers.iter_mut().for_each(|own| own.sort_unstable());
    workers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::second_moment::SecondMomentKind;

    #[test]
    fn every_site_once_and_even() {
        let site = |in_features| Site {
            key: String::new(),
            name: String::new(),
            in_features,
            second_moment: SecondMomentKind::Packed,
            sketch: None,
            layers: Vec::new(),
        };
        let sites: Vec<Site> = (0..8)
            .flat_map(|_| [site(320), site(128), site(128), site(128)])
            .collect();
        let workers = assign(&sites, 2);
        let mut all: Vec<usize> = workers.concat();
        all.sort_unstable();
        assert_eq!(all, (0..32).collect::<Vec<_>>());
        let load = |own: &[usize]| {
            own.iter()
                .map(|&s| sites[s].in_features.pow(2))
                .sum::<usize>()
        };
        assert_eq!(load(&workers[0]), load(&workers[1]));
        assert_eq!(assign(&sites[..1], 4).concat(), [0]);
    }
}
