//! Decides what to do next with a server, from what it serves and what it should serve. It needs no
//! network, no clock and no disk. It is asked again after each step, so that whatever was cut short
//! goes on from what is seen.

use core::fmt;
use std::collections::BTreeSet;

use crate::publish::notify::protocol::{ModelCard, ServedModels};
use crate::settings::notify::AdapterNaming;

/// What a server should serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aim {
    /// The generation's number.
    pub(crate) generation: u64,
    /// The adapter's folder as the server sees it.
    pub(crate) path: String,
    /// Whether the generation was tried as a canary, and may be served.
    pub(crate) is_accepted: bool,
}

/// The names that adapters have on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdapterNames {
    /// The name of `--notify name=`.
    pub(crate) name: String,
    /// The naming of `--notify names=`.
    pub(crate) naming: AdapterNaming,
}

impl AdapterNames {
    /// The name of a generation's adapter.
    #[must_use]
    pub(crate) fn of(&self, generation: u64) -> String {
        match self.naming {
            AdapterNaming::Stable => self.name.clone(),
            AdapterNaming::Generation => format!("{}-{generation:06}", self.name),
        }
    }

    /// The name of an adapter while it is tried.
    #[must_use]
    pub(crate) fn canary(&self) -> String {
        format!("{}-canary", self.name)
    }

    /// Whether this is one of our names, and not a canary's.
    #[must_use]
    pub(crate) fn are_of(&self, id: &str) -> bool {
        match self.naming {
            AdapterNaming::Stable => id == self.name,
            AdapterNaming::Generation => self.number(id).is_some(),
        }
    }

    /// The number of the generation whose name this is.
    fn number(&self, id: &str) -> Option<u64> {
        let rest = id.strip_prefix(&self.name)?.strip_prefix('-')?;
        let number: u64 = rest.parse().ok()?;
        (self.naming == AdapterNaming::Generation && id == self.of(number)).then_some(number)
    }
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerStep {
    /// Unload the adapter of this name, which is not to be served.
    Unload(String),
    /// Load the generation as a canary, beside what is served.
    LoadCanary,
    /// Score the canary, and decide whether its generation is served.
    Try,
    /// Serve the generation.
    Swap(Swap),
    /// A model of the server already has the name that the adapter would take.
    NameTaken(String),
    /// Do nothing: all is as it should be.
    Rest,
}

impl fmt::Display for ServerStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unload(name) => write!(f, "{name} is unloaded"),
            Self::LoadCanary => f.write_str("a canary is loaded"),
            Self::Try => f.write_str("a canary is asked"),
            Self::Swap(_) => f.write_str("a generation is loaded"),
            Self::NameTaken(name) => write!(f, "{name} is a model"),
            Self::Rest => f.write_str("nothing"),
        }
    }
}

/// How a generation comes to be served under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Swap {
    /// Load it, since the name is free.
    Load,
    /// Unload the adapter that has the name, and load the generation at once.
    Replace {
        /// The path of the adapter that had the name, as the server lists it.
        root: Option<String>,
    },
    /// Load it in place, so that every request finds the old adapter or the new one.
    InPlace,
}

/// The next step. `read` holds the generations that clients may still ask for by names of their
/// own; `None`: that may be any.
#[must_use]
pub(crate) fn next_step(
    served: &ServedModels,
    names: &AdapterNames,
    aim: Option<&Aim>,
    read: Option<&BTreeSet<u64>>,
) -> ServerStep {
    let canary = names.canary();
    let is_model = |name: &String| served.find(name).is_some_and(|card| card.parent.is_none());
    let own = aim.map(|aim| names.of(aim.generation));
    if let Some(taken) = own.iter().chain([&canary]).find(|name| is_model(name)) {
        return ServerStep::NameTaken(taken.clone());
    }
    let tried = served.find(&canary);
    let Some((aim, name)) = aim.zip(own) else {
        return tried.map_or(ServerStep::Rest, |_| ServerStep::Unload(canary));
    };
    let now = served.find(&name);
    let is_served = is_at(now, &aim.path);
    match tried {
        Some(_) if is_served || aim.is_accepted => return ServerStep::Unload(canary),
        Some(_) if is_at(tried, &aim.path) => return ServerStep::Try,
        Some(_) => return ServerStep::Unload(canary),
        None if !is_served && !aim.is_accepted => return ServerStep::LoadCanary,
        None => {}
    }
    if !is_served {
        return ServerStep::Swap(match now {
            None => Swap::Load,
            Some(card) if served.swaps_in_place() && is_before(card, &aim.path) => Swap::InPlace,
            Some(card) => Swap::Replace {
                root: card.root.clone(),
            },
        });
    }
    let is_left =
        |number| number != aim.generation && read.is_some_and(|numbers| !numbers.contains(&number));
    let mut left = served
        .adapters()
        .filter(|card| names.number(&card.id).is_some_and(is_left));
    left.next()
        .map_or(ServerStep::Rest, |card| ServerStep::Unload(card.id.clone()))
}

/// Whether an adapter was loaded from this path.
#[must_use]
pub(crate) fn is_at(card: Option<&ModelCard>, path: &str) -> bool {
    card.and_then(|card| card.root.as_deref()) == Some(path)
}

/// Whether an adapter is an older generation of the same folder. If a path was served before, the
/// server's cache of it would be taken for what is loaded there now.
fn is_before(card: &ModelCard, path: &str) -> bool {
    let root = card.root.as_deref().unwrap_or_default();
    let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.len());
    root.len() == path.len() && folder(root) == folder(path) && {
        let at = folder(root).unwrap_or_default();
        root[..at] == path[..at] && root < path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE_READ: BTreeSet<u64> = BTreeSet::new();

    const PATH: &str = "/out/generations/000012";
    const OLD: &str = "/out/generations/000011";

    /// A server's list of adapters with their roots, beside a model `m`.
    fn served(adapters: &[(&str, &str)]) -> ServedModels {
        let adapters = adapters
            .iter()
            .map(|(id, root)| serde_json::json!({"id": id, "root": root, "parent": "m"}));
        let model = serde_json::json!({"id": "m", "root": "/m", "parent": null});
        let all: Vec<_> = [model].into_iter().chain(adapters).collect();
        let body = serde_json::json!({ "data": all }).to_string();
        ServedModels::parse(body.as_bytes()).unwrap()
    }

    fn names(naming: AdapterNaming) -> AdapterNames {
        AdapterNames {
            name: "qera".into(),
            naming,
        }
    }

    fn aim(is_accepted: bool) -> Aim {
        Aim {
            generation: 12,
            path: PATH.into(),
            is_accepted,
        }
    }

    #[track_caller]
    fn check(adapters: &[(&str, &str)], is_accepted: bool, expected: &ServerStep) {
        let names = names(AdapterNaming::Stable);
        let step = next_step(
            &served(adapters),
            &names,
            Some(&aim(is_accepted)),
            Some(&NONE_READ),
        );
        assert_eq!(step, *expected, "{adapters:?}");
    }

    fn unload(name: &str) -> ServerStep {
        ServerStep::Unload(name.into())
    }

    #[test]
    fn a_generation_is_tried_and_then_served() {
        check(&[], false, &ServerStep::LoadCanary);
        check(&[("qera", OLD)], false, &ServerStep::LoadCanary);
        check(
            &[("qera", OLD), ("qera-canary", PATH)],
            false,
            &ServerStep::Try,
        );
        let canary = unload("qera-canary");
        check(&[("qera", OLD), ("qera-canary", PATH)], true, &canary);
        let replace = Swap::Replace {
            root: Some(OLD.into()),
        };
        check(&[("qera", OLD)], true, &ServerStep::Swap(replace));
        check(&[("qera", PATH)], true, &ServerStep::Rest);
    }

    #[test]
    fn what_was_cut_short_goes_on_from_what_is_seen() {
        // We were killed between unloading and loading, or the server was restarted.
        check(&[], true, &ServerStep::Swap(Swap::Load));
        // A canary of another generation was left over.
        let canary = unload("qera-canary");
        check(&[("qera-canary", OLD)], false, &canary);
        // Our memory is gone, but the server has what it should.
        check(&[("qera", PATH)], false, &ServerStep::Rest);
        check(&[("qera", PATH), ("qera-canary", PATH)], false, &canary);
        // Another adapter, loaded from another place, has a path of ours under a foreign name.
        check(&[("qera", PATH), ("mine", OLD)], true, &ServerStep::Rest);
    }

    #[test]
    fn with_the_plugin_a_newer_one_is_loaded_over_an_older_one_and_never_the_other_way() {
        let step = |root: &str| {
            let body = serde_json::json!({
                "data": [
                    {"id": "m", "root": "/m", "parent": null},
                    {"id": "qera", "root": root, "parent": "m"},
                ],
                "qera": {"plugin": "0.1.0", "swaps_in_place": true},
            });
            let served = ServedModels::parse(body.to_string().as_bytes()).unwrap();
            let names = names(AdapterNaming::Stable);
            next_step(&served, &names, Some(&aim(true)), Some(&NONE_READ))
        };
        assert_eq!(step(OLD), ServerStep::Swap(Swap::InPlace));
        for root in [
            "/out/generations/000013",
            "/elsewhere/000011",
            "/aut/generations/000011",
            "qera/base",
        ] {
            let root = Some(root.to_owned());
            let replace = ServerStep::Swap(Swap::Replace { root: root.clone() });
            assert_eq!(step(root.as_deref().unwrap()), replace);
        }
    }

    #[test]
    fn without_an_aim_only_a_canary_goes() {
        let names = names(AdapterNaming::Stable);
        let step = |adapters: &[(&str, &str)]| {
            next_step(&served(adapters), &names, None, Some(&NONE_READ))
        };
        assert_eq!(step(&[("qera", OLD)]), ServerStep::Rest);
        assert_eq!(
            step(&[("qera", OLD), ("qera-canary", PATH)]),
            unload("qera-canary")
        );
    }

    #[test]
    fn with_a_name_each_the_older_goes_after_the_newer_was_there_for_a_while() {
        let names = names(AdapterNaming::Generation);
        let step = |adapters: &[(&str, &str)], read: Option<&[u64]>| {
            let read = read.map(|numbers| numbers.iter().copied().collect());
            next_step(&served(adapters), &names, Some(&aim(true)), read.as_ref())
        };
        let old = ("qera-000011", OLD);
        assert_eq!(step(&[old], Some(&[])), ServerStep::Swap(Swap::Load));
        let both = [old, ("qera-000012", PATH)];
        assert_eq!(step(&both, None), ServerStep::Rest);
        assert_eq!(step(&both, Some(&[11, 12])), ServerStep::Rest);
        assert_eq!(step(&both, Some(&[12])), unload("qera-000011"));
        let foreign = [("qera-11", OLD), ("qera-new", OLD), ("qera-000012", PATH)];
        assert_eq!(step(&foreign, Some(&[12])), ServerStep::Rest);
    }

    #[test]
    fn a_models_name_is_never_taken() {
        let step = |name: &str| {
            let names = AdapterNames {
                name: name.into(),
                naming: AdapterNaming::Stable,
            };
            next_step(&served(&[]), &names, Some(&aim(true)), Some(&NONE_READ))
        };
        assert_eq!(step("m"), ServerStep::NameTaken("m".into()));
        assert_eq!(step("q"), ServerStep::Swap(Swap::Load));
    }
}
