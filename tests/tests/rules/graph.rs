//! Which file of a crate uses which, as its paths say.

use std::collections::BTreeMap;

use crate::spelled::{Spelled, spelling};
use crate::syntax::{Parsed, place};

/// One file uses what another one defines.
pub(crate) struct Use {
    /// The modules that the files are.
    pub(crate) from: Vec<String>,
    pub(crate) to: Vec<String>,
    /// Their paths.
    pub(crate) file: String,
    pub(crate) target: String,
    /// The place and the path that stands there.
    pub(crate) finding: String,
}

/// Imports by the module that they stand in and their name there.
type Imports = BTreeMap<(Vec<String>, String), Vec<String>>;

struct Names<'a> {
    /// The file of each module.
    files: BTreeMap<&'a [String], &'a str>,
    imports: Imports,
}

/// The uses between the files of a crate; the one for a pair of files is the first that its text
/// has.
pub(crate) fn uses(files: &[Parsed]) -> Vec<Use> {
    let spellings: Vec<_> = files
        .iter()
        .map(|file| spelling(&file.file).paths)
        .collect();
    let mut names = Names {
        files: files
            .iter()
            .map(|f| (f.module.as_slice(), f.path.as_str()))
            .collect(),
        imports: Imports::new(),
    };
    // Twice, since an import may begin with the name of another one.
    for _ in 0..2 {
        for (file, paths) in files.iter().zip(&spellings) {
            for path in paths {
                names.add_import(file, path);
            }
        }
    }
    let mut found = Vec::new();
    for (file, paths) in files.iter().zip(&spellings) {
        let mut targets: Vec<&[String]> = vec![&file.module];
        for path in paths {
            if let Some(target) = names.target(file, path)
                && !targets.contains(&target)
            {
                targets.push(target);
                let last_two = &path.segments[path.segments.len().saturating_sub(2)..];
                let written = path.segments.join("::");
                found.push(Use {
                    from: file.module.clone(),
                    to: target.to_vec(),
                    file: file.path.clone(),
                    target: names.files[target].to_owned(),
                    finding: format!("{}: {written}", line_of(file, last_two)),
                });
            }
        }
    }
    found
}

/// The line of a path, or of its last name where an import is spread over lines.
fn line_of(file: &Parsed, words: &[String]) -> String {
    let place_of = |words| place(&file.path, &file.text, words);
    let exact = place_of(words);
    if exact == file.path && words.len() > 1 {
        return place_of(&words[words.len() - 1..]);
    }
    exact
}

impl<'a> Names<'a> {
    fn add_import(&mut self, file: &Parsed, path: &Spelled) {
        if let Some(name) = &path.import
            && let Some(target) = self.absolute(file, path)
        {
            let module = [file.module.as_slice(), &path.inside].concat();
            if target != [module.as_slice(), core::slice::from_ref(name)].concat() {
                self.imports.insert((module, name.clone()), target);
            }
        }
    }

    /// From the crate's root, or `None` for another crate's path and for a name alone.
    fn absolute(&self, file: &Parsed, path: &Spelled) -> Option<Vec<String>> {
        let module = [file.module.as_slice(), &path.inside].concat();
        let (first, rest) = path.segments.split_first()?;
        let mut base = module.clone();
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => drop(base.pop()),
            _ => {
                let child = [module.as_slice(), core::slice::from_ref(first)].concat();
                base = match self.imports.get(&(module, first.clone())) {
                    Some(imported) if path.import.as_ref() != Some(first) => imported.clone(),
                    _ if self.files.contains_key(child.as_slice()) => child,
                    _ => return None,
                };
            }
        }
        let ups = rest.iter().take_while(|part| *part == "super").count();
        base.truncate(base.len().saturating_sub(ups));
        base.extend_from_slice(&rest[ups..]);
        Some(base)
    }

    /// The module that defines what the path names, through whatever imports it again.
    fn target(&self, file: &Parsed, path: &Spelled) -> Option<&'a [String]> {
        // A name alone was imported, or is of this file.
        if path.import.is_none() && path.segments.len() < 2 {
            return None;
        }
        let mut absolute = self.absolute(file, path)?;
        for _ in 0..8 {
            let module = self.longest(&absolute)?;
            let Some(name) = absolute.get(module.len()) else {
                return Some(module);
            };
            let Some(next) = self.imports.get(&(module.to_vec(), name.clone())) else {
                return Some(module);
            };
            absolute = [next.as_slice(), &absolute[module.len() + 1..]].concat();
        }
        self.longest(&absolute)
    }

    /// The longest beginning of a path that is a file's module.
    fn longest(&self, path: &[String]) -> Option<&'a [String]> {
        (0..=path.len())
            .rev()
            .find_map(|length| self.files.get_key_value(&path[..length]))
            .map(|(module, _)| *module)
    }
}

/// Uses of a made-up crate, as `from -> to`.
fn drawn(uses: &[Use]) -> Vec<String> {
    let name = |module: &[String]| module.join("/");
    let mut drawn: Vec<_> = (uses.iter())
        .map(|found| format!("{} -> {}", name(&found.from), name(&found.to)))
        .collect();
    drawn.sort();
    drawn
}

#[test]
fn uses_are_seen_in_every_form() {
    let files = crate::syntax::made_up(&[
        ("lib.rs", "mod a; pub use a::b::B;"),
        (
            "a/mod.rs",
            "mod b; mod c; pub(crate) use self::b::B as Renamed;",
        ),
        (
            "a/b.rs",
            "pub(crate) struct B; #[cfg(test)] mod tests { use crate::code::C; }",
        ),
        (
            "a/c.rs",
            "use std::fs; use super::b; fn f() { b::g(); fs::read(); }",
        ),
        ("again.rs", "use crate::a::Renamed;"),
        ("root.rs", "use crate::B;"),
        ("code.rs", "fn f(x: crate::a::c::D) {}"),
        (
            "macro_argument.rs",
            "fn f() { assert!(crate::a::b::g(), \"crate::code\"); }",
        ),
        ("module.rs", "use crate::a;\nuse a::c;\nfn f() { c::g() }"),
        (
            "inline.rs",
            "mod m { use super::super::again; fn f() { self::g(); again::g(); } }",
        ),
    ]);
    let found = uses(&files);
    let expected = [
        " -> a/b",
        "a -> a/b",
        "a/c -> a/b",
        "again -> a/b",
        "code -> a/c",
        "inline -> again",
        "macro_argument -> a/b",
        "module -> a",
        "module -> a/c",
        "root -> a/b",
    ];
    assert_eq!(drawn(&found), expected);
    let module = found
        .iter()
        .find(|found| found.to == ["a", "c"] && found.from == ["module"]);
    assert_eq!(module.unwrap().finding, "src/module.rs:2: a::c");
}
