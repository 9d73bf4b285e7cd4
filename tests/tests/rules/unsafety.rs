//! `unsafe` stands in a few named files.

use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};

use crate::sources::{assert_none, sources};

/// Where `unsafe` may stand: the checkpoint mapping, a setting of the allocator, the innermost
/// loops of the kernels, the calls into the CUDA driver, the proof's runtime, what the firmware
/// takes from its board, the loops that measure a core's peak, the allocator that counts what
/// distrusted headers take.
const UNSAFE_PLACES: [&str; 8] = [
    "qera-daemon/src/disk/mapping.rs",
    "qera-daemon/src/host/allocator.rs",
    "qera-daemon/src/host/kernels/micro/",
    "qera-gpu/src/device/",
    "ci/no_std_proof/src/runtime.rs",
    "firmware/src/platform/",
    "benches/src/peak.rs",
    "tests/tests/gguf_headers/counted.rs",
];

/// Finds the keyword wherever it stands in the syntax tree, macro arguments included.
#[derive(Default)]
struct Unsafe(bool);

impl<'ast> Visit<'ast> for Unsafe {
    fn visit_expr_unsafe(&mut self, _: &'ast syn::ExprUnsafe) {
        self.0 = true;
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.0 |= signature.unsafety.is_some();
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.0 |= item.unsafety.is_some();
        visit::visit_item_impl(self, item);
    }

    fn visit_item_foreign_mod(&mut self, _: &'ast syn::ItemForeignMod) {
        self.0 = true;
    }

    /// Arguments that are expressions are visited as such (a string may hold the word); of other
    /// macros the words count.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let arguments = Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        match call.parse_body_with(arguments) {
            Ok(arguments) => {
                let mut inner = Self::default();
                arguments
                    .iter()
                    .for_each(|argument| inner.visit_expr(argument));
                self.0 |= inner.0;
            }
            Err(_) => {
                let text = call.tokens.to_string();
                let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
                self.0 |= words.any(|word| word == "unsafe");
            }
        }
    }
}

fn has_unsafe(text: &str) -> bool {
    let mut found = Unsafe::default();
    found.visit_file(&syn::parse_file(text).unwrap());
    found.0
}

#[test]
fn unsafe_stands_in_named_files_only() {
    let findings: Vec<_> = sources("rs")
        .into_iter()
        .filter(|source| {
            !UNSAFE_PLACES
                .iter()
                .any(|place| source.path.starts_with(place))
        })
        .filter(|source| has_unsafe(&source.text))
        .map(|source| source.path)
        .collect();
    assert_none("`unsafe` outside the named files", &findings);
}

#[test]
fn unsafe_is_seen_in_every_form() {
    assert!(!has_unsafe("/// unsafe\nfn f() { let _ = \"unsafe\"; }"));
    for form in [
        "fn f() { unsafe { g() } }",
        "unsafe fn f() {}",
        "unsafe impl Send for S {}",
        "fn f() { m!(unsafe { g() }); }",
    ] {
        assert!(has_unsafe(form), "{form}");
    }
}
