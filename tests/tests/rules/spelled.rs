//! Paths as a file spells them: in imports, in code, in the arguments of macros.

use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::{self, Visit};

/// A path in one of its places.
#[derive(Debug)]
pub(crate) struct Spelled {
    /// `*` ends one that imports everything.
    pub(crate) segments: Vec<String>,
    /// What an import is called in its module; `None` in code.
    pub(crate) import: Option<String>,
    /// Of an import: others can import it from here.
    pub(crate) public: bool,
    /// The inline modules around it.
    pub(crate) inside: Vec<String>,
}

/// All paths of a file, and the names of the methods that it calls.
#[derive(Default)]
pub(crate) struct Spelling {
    pub(crate) paths: Vec<Spelled>,
    pub(crate) methods: Vec<String>,
    inside: Vec<String>,
}

pub(crate) fn spelling(file: &syn::File) -> Spelling {
    let mut found = Spelling::default();
    found.visit_file(file);
    found
}

impl Spelling {
    fn add_code(&mut self, segments: Vec<String>) {
        self.paths.push(Spelled {
            segments,
            import: None,
            public: false,
            inside: self.inside.clone(),
        });
    }

    fn add_imports(&mut self, tree: &syn::UseTree, before: &[String], public: bool) {
        let after = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_imports(&path.tree, &after(&path.ident), public),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_imports(tree, before, public);
                }
            }
            syn::UseTree::Name(name) => self.add_import(after(&name.ident), None, public),
            syn::UseTree::Rename(name) => {
                self.add_import(after(&name.ident), Some(name.rename.to_string()), public);
            }
            syn::UseTree::Glob(_) => {
                self.add_import([before, &["*".to_owned()]].concat(), None, public);
            }
        }
    }

    fn add_import(&mut self, mut segments: Vec<String>, name: Option<String>, public: bool) {
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        self.paths.push(Spelled {
            import: name.or_else(|| segments.last().cloned()),
            segments,
            public,
            inside: self.inside.clone(),
        });
    }

    /// What a macro makes of its arguments is unknown, so that every path in them counts as one of
    /// code.
    fn add_tokens(&mut self, mut cursor: Cursor<'_>) {
        while !cursor.eof() {
            if let Some((inner, _, _, next)) = cursor.any_group() {
                self.add_tokens(inner);
                cursor = next;
            } else if let Some((ident, mut next)) = cursor.ident() {
                let mut segments = vec![ident.to_string()];
                while let Some((ident, after)) = after_colons(next) {
                    segments.push(ident);
                    next = after;
                }
                self.add_code(segments);
                cursor = next;
            } else if let Some((punct, next)) = cursor.punct() {
                if punct.as_char() == '.'
                    && let Some((ident, _)) = next.ident()
                {
                    self.methods.push(ident.to_string());
                }
                cursor = next;
            } else if let Some((_, next)) = cursor.token_tree() {
                cursor = next;
            }
        }
    }
}

/// The name behind `::`.
fn after_colons(cursor: Cursor<'_>) -> Option<(String, Cursor<'_>)> {
    let (first, cursor) = cursor.punct()?;
    let (second, cursor) = cursor.punct()?;
    let (ident, cursor) = cursor.ident()?;
    (first.as_char() == ':' && second.as_char() == ':').then(|| (ident.to_string(), cursor))
}

impl<'ast> Visit<'ast> for Spelling {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let public = !matches!(item.vis, syn::Visibility::Inherited);
        self.add_imports(&item.tree, &[], public);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        self.add_code(segments.map(|part| part.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.methods.push(call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.add_tokens(TokenBuffer::new2(call.tokens.clone()).begin());
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inside.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.inside.pop();
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

#[test]
fn paths_are_seen_in_every_form() {
    let text = "use a::{b::{self, c as d}, e::*}; mod m { pub(crate) use super::f; }
        fn g(x: h::I) -> impl j::K { l::m::<n::O>(p!(q, r::s(x.t()))); <u::V as w::X>::y().z() }";
    let found = spelling(&syn::parse_file(text).unwrap());
    let spelled = |path: &Spelled| path.segments.join("::");
    let imports: Vec<_> = (found.paths.iter())
        .filter_map(|path| {
            let name = path.import.as_ref()?;
            Some(format!("{}{} {name}", path.inside.concat(), spelled(path)))
        })
        .collect();
    assert_eq!(imports, ["a::b b", "a::b::c d", "a::e::* *", "msuper::f f"]);
    let code: Vec<_> = found.paths.iter().map(spelled).collect();
    for path in ["h::I", "j::K", "l::m", "n::O", "r::s", "u::V", "w::X::y"] {
        assert!(code.iter().any(|found| found == path), "{path} in {code:?}");
    }
    assert_eq!(found.methods, ["t", "z"]);
}
