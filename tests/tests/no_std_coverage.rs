//! Every public routine of qera-core is called by the no_std proof, and the proof calls nothing
//! that does not exist.
//!
//! A public routine is a `pub fn`, free or of a type, in qera-core/src outside of tests; the
//! workspace's `unreachable_pub` lint sees to it that `pub` means reachable. A call counts when it
//! names the routine in full: `decode_rows(..)`, `dtype::decode_rows(..)` or `Mxint::encode(..)`,
//! not `format.encode(..)`, which could be anybody's `encode`, and not inside a macro's arguments,
//! which are no Rust yet.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Parses every Rust file below a folder.
fn parse_folder(folder: &Path) -> Vec<syn::File> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(parse_folder(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap());
        }
    }
    files
}

/// Public routines by name: `decode_rows`, `Mxint::encode`.
#[derive(Default)]
struct PublicRoutines(BTreeSet<String>);

impl<'ast> Visit<'ast> for PublicRoutines {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !module
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("cfg"))
        {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        // Functions inside functions are nobody's interface: not visited.
        if matches!(function.vis, syn::Visibility::Public(_)) {
            self.0.insert(function.sig.ident.to_string());
        }
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        let syn::Type::Path(owner) = &*block.self_ty else {
            return;
        };
        let owner = &owner.path.segments.last().unwrap().ident;
        for item in &block.items {
            if let syn::ImplItem::Fn(method) = item
                && matches!(method.vis, syn::Visibility::Public(_))
            {
                self.0.insert(format!("{owner}::{}", method.sig.ident));
            }
        }
    }
}

/// What is called by a path: its last segment, and its last two.
#[derive(Default)]
struct Calls(BTreeSet<String>);

impl<'ast> Visit<'ast> for Calls {
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func {
            let segments: Vec<String> = function
                .path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect();
            let last_two = segments[segments.len().saturating_sub(2)..].join("::");
            // `Type::method` counts as itself only, `module::function` as the function.
            let is_method = last_two.contains("::") && last_two.starts_with(char::is_uppercase);
            self.0.insert(if is_method {
                last_two
            } else {
                segments.last().unwrap().clone()
            });
        }
        visit::visit_expr_call(self, call);
    }
}

fn public_routines(files: &[syn::File]) -> BTreeSet<String> {
    let mut routines = PublicRoutines::default();
    files.iter().for_each(|file| routines.visit_file(file));
    routines.0
}

fn calls(files: &[syn::File]) -> BTreeSet<String> {
    let mut calls = Calls::default();
    files.iter().for_each(|file| calls.visit_file(file));
    calls.0
}

#[test]
fn the_proof_calls_every_public_routine() {
    let routines = public_routines(&parse_folder(&root().join("qera-core/src")));
    assert!(
        routines.len() > 50
            && routines.contains("decode_rows")
            && routines.contains("Autocorrelation::fold_block")
    );
    let called = calls(&parse_folder(&root().join("ci/no_std_proof/src")));
    let missing: Vec<_> = routines.difference(&called).collect();
    assert!(
        missing.is_empty(),
        "public routines that ci/no_std_proof does not call by their full path: {missing:?}"
    );
}

/// The test sees what it claims to see.
#[test]
fn a_routine_that_is_not_called_is_found() {
    let file = |source: &str| vec![syn::parse_file(source).unwrap()];
    let library = file(
        "pub fn free() {} fn private() {} pub(crate) fn inner() {}
         pub struct S; impl S { pub fn called(&self) {} pub fn forgotten(&self) {} fn own(&self) {} }
         impl Default for S { fn default() -> Self { S } }
         #[cfg(test)] mod tests { pub fn of_tests() {} }",
    );
    let routines = public_routines(&library);
    assert_eq!(
        routines.iter().collect::<Vec<_>>(),
        ["S::called", "S::forgotten", "free"]
    );
    let called = calls(&file(
        "fn main() { crate::m::free(); S::called(&S); S.forgotten(); let f = Other::free; }",
    ));
    assert_eq!(
        routines.difference(&called).collect::<Vec<_>>(),
        ["S::forgotten"]
    );
}
