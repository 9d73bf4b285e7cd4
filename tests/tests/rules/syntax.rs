//! A crate's files as syntax trees without their tests, and what the rules look for in them:
//! routines and types by name.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};

use crate::sources::{Source, sources};

/// A file of a crate, parsed, without what is compiled for tests only.
pub(crate) struct Parsed {
    /// Relative to the root, with forward slashes.
    pub(crate) path: String,
    /// The module that the file is, from the crate's root.
    pub(crate) module: Vec<String>,
    pub(crate) text: String,
    pub(crate) file: syn::File,
}

/// The files below a folder that is the root of a crate's modules, as `qera-core/src`.
pub(crate) fn parsed(folder: &str) -> Vec<Parsed> {
    let below = format!("{folder}/");
    let files = sources("rs")
        .into_iter()
        .filter(|source| source.path.starts_with(&below));
    let found = without_tests(&below, files);
    assert!(!found.is_empty(), "no file below {folder}");
    found
}

/// A crate made up for a test of a rule: paths below `src/`, and texts.
pub(crate) fn made_up(files: &[(&str, &str)]) -> Vec<Parsed> {
    let sources = files.iter().map(|(path, text)| Source {
        path: format!("src/{path}"),
        text: (*text).to_owned(),
    });
    without_tests("src/", sources)
}

fn without_tests(below: &str, sources: impl Iterator<Item = Source>) -> Vec<Parsed> {
    let mut files = Vec::new();
    let mut of_tests = Vec::new();
    for source in sources {
        let module = module_of(source.path.strip_prefix(below).unwrap());
        let mut file = syn::parse_file(&source.text).unwrap();
        remove_tests(&mut file.items, &module, &mut of_tests);
        files.push(Parsed {
            path: source.path,
            module,
            text: source.text,
            file,
        });
    }
    files.retain(|file| !of_tests.iter().any(|tests| file.module.starts_with(tests)));
    files
}

fn module_of(path: &str) -> Vec<String> {
    let mut module: Vec<_> = path
        .strip_suffix(".rs")
        .unwrap()
        .split('/')
        .map(str::to_owned)
        .collect();
    if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
        module.pop();
    }
    module
}

/// Removes items under `#[cfg(test)]` and `#[test]`; adds those that are modules, which may be
/// files of their own.
fn remove_tests(items: &mut Vec<syn::Item>, module: &[String], removed: &mut Vec<Vec<String>>) {
    let child = |name: &syn::Ident| [module, &[name.to_string()]].concat();
    items.retain_mut(|item| {
        let test = attributes(item).iter().any(for_tests_only);
        match item {
            syn::Item::Mod(inner) if test => removed.push(child(&inner.ident)),
            syn::Item::Mod(inner) => {
                let name = child(&inner.ident);
                if let Some((_, items)) = &mut inner.content {
                    remove_tests(items, &name, removed);
                }
            }
            syn::Item::Impl(inner) => inner.items.retain(|item| {
                let attributes: &[_] = match item {
                    syn::ImplItem::Fn(item) => &item.attrs,
                    syn::ImplItem::Const(item) => &item.attrs,
                    _ => &[],
                };
                !attributes.iter().any(for_tests_only)
            }),
            _ => {}
        }
        !test
    });
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, ..))]`, but not `#[cfg(not(test))]`.
fn for_tests_only(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else {
        return attribute.path().is_ident("test");
    };
    let condition = list.tokens.to_string();
    let mut words = condition.split(|c: char| !c.is_alphanumeric() && c != '_');
    attribute.path().is_ident("cfg")
        && words.clone().any(|word| word == "test")
        && !words.any(|word| word == "not" || word == "any")
}

/// The numbers of the lines that hold the words one after the other, as whole identifiers, and are
/// no comments.
pub(crate) fn lines_with(text: &str, words: &[String]) -> Vec<usize> {
    let holds = |line: &str| {
        let parts = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
        parts.windows(words.len()).any(|found| found == words)
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//") && holds(line))
        .map(|(index, _)| index + 1)
        .collect()
}

/// Where the words stand first: `path:line`, or the path alone where they are spread over lines.
pub(crate) fn place(path: &str, text: &str, words: &[String]) -> String {
    match lines_with(text, words).first() {
        Some(line) => format!("{path}:{line}"),
        None => path.to_owned(),
    }
}

/// A function, a method or what a trait asks for.
pub(crate) struct Routine<'a> {
    /// With the type that it belongs to: `Mxint::encode`.
    pub(crate) name: String,
    pub(crate) signature: &'a syn::Signature,
    /// The path and the line.
    pub(crate) place: String,
}

pub(crate) fn routines(parsed: &Parsed) -> Vec<Routine<'_>> {
    let mut found = Routines {
        parsed,
        owner: String::new(),
        seen: BTreeMap::new(),
        routines: Vec::new(),
    };
    found.visit_file(&parsed.file);
    found.routines
}

struct Routines<'a> {
    parsed: &'a Parsed,
    owner: String,
    /// How often a name was seen, since the n-th `fn new` of the tree is the n-th of the text.
    seen: BTreeMap<String, usize>,
    routines: Vec<Routine<'a>>,
}

impl<'ast> Visit<'ast> for Routines<'ast> {
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let outer = core::mem::replace(&mut self.owner, type_name(&item.self_ty));
        visit::visit_item_impl(self, item);
        self.owner = outer;
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let outer = core::mem::replace(&mut self.owner, item.ident.to_string());
        visit::visit_item_trait(self, item);
        self.owner = outer;
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        let name = signature.ident.to_string();
        let seen = self.seen.entry(name.clone()).or_default();
        let lines = lines_with(&self.parsed.text, &["fn".to_owned(), name.clone()]);
        let place = match lines.get(*seen) {
            Some(line) => format!("{}:{line}", self.parsed.path),
            None => self.parsed.path.clone(),
        };
        *seen += 1;
        let name = if self.owner.is_empty() {
            name
        } else {
            format!("{}::{name}", self.owner)
        };
        self.routines.push(Routine {
            name,
            signature,
            place,
        });
    }
}

/// The last name of a type's path, or nothing.
fn type_name(ty: &syn::Type) -> String {
    match ty {
        syn::Type::Path(path) => path.path.segments.last().unwrap().ident.to_string(),
        _ => String::new(),
    }
}

/// A struct, enum, union, trait or alias.
pub(crate) struct TypeName {
    pub(crate) name: String,
    pub(crate) place: String,
}

pub(crate) fn type_names(parsed: &Parsed) -> Vec<TypeName> {
    let mut found = TypeNames {
        parsed,
        names: Vec::new(),
    };
    found.visit_file(&parsed.file);
    found.names
}

struct TypeNames<'a> {
    parsed: &'a Parsed,
    names: Vec<TypeName>,
}

impl TypeNames<'_> {
    fn add(&mut self, keyword: &str, name: &syn::Ident) {
        let words = [keyword.to_owned(), name.to_string()];
        self.names.push(TypeName {
            name: name.to_string(),
            place: place(&self.parsed.path, &self.parsed.text, &words),
        });
    }
}

impl<'ast> Visit<'ast> for TypeNames<'ast> {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.add("struct", &item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.add("enum", &item.ident);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.add("union", &item.ident);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.add("type", &item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.add("trait", &item.ident);
        visit::visit_item_trait(self, item);
    }
}

#[test]
fn tests_are_left_out_wherever_they_stand() {
    let files = made_up(&[
        (
            "a/mod.rs",
            "#[cfg(test)] mod tests; #[cfg(not(test))] struct Kept; #[cfg(test)] struct Gone;
             mod inner { #[cfg(all(test, unix))] type Gone = u8; enum Kept {} }
             impl S { #[cfg(test)] fn gone() {} fn kept() {} }",
        ),
        ("a/tests.rs", "struct Gone;"),
    ]);
    assert_eq!(files.len(), 1);
    let names = |parsed: &Parsed| type_names(parsed).into_iter().map(|found| found.name);
    assert_eq!(names(&files[0]).collect::<Vec<_>>(), ["Kept", "Kept"]);
    let kept = routines(&files[0]);
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (kept[0].name.as_str(), kept[0].place.as_str()),
        ("S::kept", "src/a/mod.rs:3")
    );
}
