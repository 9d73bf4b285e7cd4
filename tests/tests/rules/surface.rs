//! The library of qera-daemon is a small facade: what its benches measure and its tests hold
//! against oracles.

use syn::visit::{self, Visit};

use crate::sources::assert_none;
use crate::syntax::{Parsed, made_up, parsed};

const SOURCE: &str = "qera-daemon/src";

/// Most definitions that are public, and most public fields and variants of them.
const ITEMS_MAX: usize = 80;
const PARTS_MAX: usize = 80;

/// What is exactly `pub`: the workspace's `unreachable_pub` lint sees to it that it is reachable
/// too.
#[derive(Default)]
pub(crate) struct Surface {
    /// Functions, methods, types, traits, constants, statics, modules. A name that lib.rs exports
    /// is counted where it is defined.
    pub(crate) items: Vec<String>,
    /// Fields of structs, variants of enums.
    parts: Vec<String>,
}

pub(crate) fn surface(file: &Parsed) -> Surface {
    let mut found = Surface::default();
    found.visit_file(&file.file);
    found
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

impl Surface {
    fn add(&mut self, visibility: &syn::Visibility, name: &syn::Ident) {
        if is_public(visibility) {
            self.items.push(name.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for Surface {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            syn::Item::Const(item) => self.add(&item.vis, &item.ident),
            syn::Item::Enum(item) => {
                self.add(&item.vis, &item.ident);
                if is_public(&item.vis) {
                    let variants = item.variants.iter();
                    self.parts
                        .extend(variants.map(|variant| variant.ident.to_string()));
                }
            }
            syn::Item::Fn(item) => self.add(&item.vis, &item.sig.ident),
            syn::Item::Mod(item) => self.add(&item.vis, &item.ident),
            syn::Item::Static(item) => self.add(&item.vis, &item.ident),
            syn::Item::Struct(item) => self.add(&item.vis, &item.ident),
            syn::Item::Trait(item) => self.add(&item.vis, &item.ident),
            syn::Item::Type(item) => self.add(&item.vis, &item.ident),
            syn::Item::Union(item) => self.add(&item.vis, &item.ident),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.vis, &item.sig.ident);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.add(&item.vis, &item.ident);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if is_public(&field.vis) {
            let name = field.ident.as_ref();
            self.parts
                .push(name.map_or("0".to_owned(), ToString::to_string));
        }
    }
}

/// What is too much, with the names of every file.
fn excess(files: &[Parsed], what: &str, max: usize, of: fn(Surface) -> Vec<String>) -> Vec<String> {
    let names = files.iter().map(|file| (&file.path, of(surface(file))));
    let names: Vec<_> = names.collect();
    let count: usize = names.iter().map(|(_, names)| names.len()).sum();
    if count <= max {
        return Vec::new();
    }
    let mut findings = vec![format!("{count} public {what}, at most {max}")];
    for (path, names) in names {
        if !names.is_empty() {
            findings.push(format!("{path}: {}: {}", names.len(), names.join(" ")));
        }
    }
    findings
}

#[test]
fn the_library_has_few_public_items() {
    let findings = excess(&parsed(SOURCE), "items", ITEMS_MAX, |found| found.items);
    assert_none("the public side of qera-daemon's library", &findings);
}

#[test]
fn the_library_has_few_public_fields_and_variants() {
    let what = "fields and variants";
    let findings = excess(&parsed(SOURCE), what, PARTS_MAX, |found| found.parts);
    assert_none("the public side of qera-daemon's library", &findings);
}

#[test]
fn public_items_are_counted_once_and_parts_apart() {
    let files = made_up(&[
        ("lib.rs", "pub mod a; pub(crate) mod b; pub use a::{f, S};"),
        (
            "a.rs",
            "pub fn f() {} pub struct S { pub x: u8, pub(crate) y: u8, z: u8 }
             impl S { pub const C: u8 = 0; pub fn g() {} pub(crate) fn h() {} fn i() {} }
             pub enum E { A { x: u8 }, B } enum P { A } pub trait T { fn j(); } pub type U = u8;
             pub static V: u8 = 0; pub const W: u8 = 0; pub struct X(pub u8);
             #[cfg(test)] mod tests { pub fn k() {} }",
        ),
    ]);
    let found = surface(&files[1]);
    assert_eq!(
        found.items,
        ["f", "S", "C", "g", "E", "T", "U", "V", "W", "X"]
    );
    assert_eq!(found.parts, ["x", "A", "B", "0"]);
    assert!(excess(&files, "items", 11, |found| found.items).is_empty());
    let findings = excess(&files, "items", 10, |found| found.items);
    let expected = ["11 public items, at most 10", "src/lib.rs: 1: a"];
    assert_eq!(findings[..2], expected);
    assert_eq!(excess(&files, "parts", 3, |found| found.parts).len(), 2);
}
