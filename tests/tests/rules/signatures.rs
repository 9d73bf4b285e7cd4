//! What functions take and return: parts with names, and one result at a time.

use syn::visit::{self, Visit};

use crate::sources::assert_none;
use crate::syntax::{Parsed, Routine, made_up, parsed, place, routines};

/// The crates of the product.
const PRODUCT: [&str; 3] = ["qera-core/src", "qera-gpu/src", "qera-daemon/src"];

/// The tuples of two and more parts in a type. The list of arguments of `Fn(A, B)` and `fn(A, B)`
/// is none, nor are the types in it.
#[derive(Default)]
struct Tuples(Vec<usize>);

impl<'ast> Visit<'ast> for Tuples {
    fn visit_type_tuple(&mut self, tuple: &'ast syn::TypeTuple) {
        if tuple.elems.len() > 1 {
            self.0.push(tuple.elems.len());
        }
        visit::visit_type_tuple(self, tuple);
    }

    fn visit_parenthesized_generic_arguments(
        &mut self,
        arguments: &'ast syn::ParenthesizedGenericArguments,
    ) {
        self.visit_return_type(&arguments.output);
    }

    fn visit_type_bare_fn(&mut self, pointer: &'ast syn::TypeBareFn) {
        self.visit_return_type(&pointer.output);
    }
}

/// Whether it is `m[(i, j)]`, the way in which every library of the field writes an entry of a
/// matrix.
fn is_indexing(routine: &Routine<'_>) -> bool {
    routine.name.ends_with("::index") || routine.name.ends_with("::index_mut")
}

fn tuples(file: &Parsed) -> Vec<String> {
    let mut findings = Vec::new();
    for routine in routines(file).iter().filter(|r| !is_indexing(r)) {
        let mut add = |verb: &str, found: Tuples| {
            for parts in found.0 {
                let (place, name) = (&routine.place, &routine.name);
                findings.push(format!("{place}: {name} {verb} a tuple of {parts} parts"));
            }
        };
        let mut taken = Tuples::default();
        taken.visit_generics(&routine.signature.generics);
        for input in &routine.signature.inputs {
            taken.visit_fn_arg(input);
        }
        add("takes", taken);
        let mut returned = Tuples::default();
        returned.visit_return_type(&routine.signature.output);
        add("returns", returned);
    }
    findings
}

/// The name that a type's path ends with, and the types in its angle brackets.
fn last_name(path: &syn::Path) -> Option<(String, Vec<&syn::Type>)> {
    let last = path.segments.last()?;
    let mut types = Vec::new();
    if let syn::PathArguments::AngleBracketed(arguments) = &last.arguments {
        for argument in &arguments.args {
            if let syn::GenericArgument::Type(ty) = argument {
                types.push(ty);
            }
        }
    }
    Some((last.ident.to_string(), types))
}

fn ends_with(ty: &syn::Type, name: &str) -> bool {
    let syn::Type::Path(path) = ty else {
        return false;
    };
    last_name(&path.path).is_some_and(|(last, _)| last == name)
}

/// `Result<Result<..>, ..>`, `Option<Option<..>>` and `Result<_, String>`, wherever they stand in a
/// type.
#[derive(Default)]
struct Doubled {
    /// The names that stand in themselves.
    nested: Vec<String>,
    text_errors: usize,
}

impl<'ast> Visit<'ast> for Doubled {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some((name, types)) = last_name(path)
            && ["Result", "Option"].contains(&name.as_str())
        {
            if types.first().is_some_and(|inner| ends_with(inner, &name)) {
                self.nested.push(name.clone());
            }
            let error = types.get(1).filter(|_| name == "Result");
            if error.is_some_and(|error| ends_with(error, "String")) {
                self.text_errors += 1;
            }
        }
        visit::visit_path(self, path);
    }
}

/// A type in another one of its kind, in signatures and fields.
fn nested(file: &Parsed) -> Vec<String> {
    let mut findings = Vec::new();
    for routine in routines(file) {
        let mut found = Doubled::default();
        found.visit_signature(routine.signature);
        let (place, name) = (&routine.place, &routine.name);
        let written = found.nested.iter();
        findings.extend(written.map(|nested| format!("{place}: {name} has {nested} in {nested}")));
    }
    let mut fields = Fields::default();
    fields.visit_file(&file.file);
    for DoubledField { name, nested } in fields.0 {
        let words = [name.as_str(), &nested, &nested].map(str::to_owned);
        let place = place(&file.path, &file.text, &words);
        findings.push(format!(
            "{place}: the field `{name}` has {nested} in {nested}"
        ));
    }
    findings
}

/// A field of a struct or a variant that holds a type in another one of its kind.
struct DoubledField {
    /// `_` where it has none.
    name: String,
    nested: String,
}

#[derive(Default)]
struct Fields(Vec<DoubledField>);

impl<'ast> Visit<'ast> for Fields {
    fn visit_field(&mut self, field: &'ast syn::Field) {
        let mut found = Doubled::default();
        found.visit_type(&field.ty);
        for nested in found.nested {
            let name = field.ident.as_ref();
            self.0.push(DoubledField {
                name: name.map_or("_".to_owned(), ToString::to_string),
                nested,
            });
        }
    }
}

fn text_errors(file: &Parsed) -> Vec<String> {
    let mut findings = Vec::new();
    for routine in routines(file) {
        let mut found = Doubled::default();
        found.visit_signature(routine.signature);
        if found.text_errors > 0 {
            findings.push(format!(
                "{}: {} has a Result<_, String>",
                routine.place, routine.name
            ));
        }
    }
    findings
}

fn in_crates(crates: &[&str], rule: fn(&Parsed) -> Vec<String>) -> Vec<String> {
    let files = crates.iter().flat_map(|folder| parsed(folder));
    files.flat_map(|file| rule(&file)).collect()
}

#[test]
fn parts_have_names() {
    let crates = [PRODUCT.as_slice(), &["tests/src"]].concat();
    assert_none(
        "functions that take or return unnamed parts: name them in a struct",
        &in_crates(&crates, tuples),
    );
}

#[test]
fn results_are_not_doubled() {
    let crates = [PRODUCT.as_slice(), &["tests/src", "benches/src"]].concat();
    assert_none(
        "a result in a result, an option in an option: name the cases in an enum",
        &in_crates(&crates, nested),
    );
}

#[test]
fn errors_are_types() {
    assert_none(
        "errors that are mere text: what failed has a type",
        &in_crates(&PRODUCT, text_errors),
    );
}

#[test]
fn tuples_are_seen_in_every_form() {
    let sound =
        "fn a(x: (u8,), f: impl Fn((u8, u8), u8) -> u8, g: fn(u8, u8), h: &dyn Fn(u8, u8)) {}
        fn b() { let f = |x: (u8, u8)| x; struct S((u8, u8)); }
        impl Index<(u8, u8)> for S { fn index(&self, at: (u8, u8)) -> &u8 {} }
        #[cfg(test)] mod tests { fn c() -> (u8, u8) { (0, 0) } }";
    assert!(tuples(&made_up(&[("a.rs", sound)])[0]).is_empty());
    for form in [
        "fn f(x: (u8, u8)) {}",
        "fn f(x: &[(u8, u8)]) {}",
        "fn f(x: impl Iterator<Item = (u8, u8)>) {}",
        "fn f<I>(x: I) where I: Iterator<Item = (u8, u8)> {}",
        "fn f(x: impl Fn(u8) -> (u8, u8)) {}",
        "fn f() -> Result<Option<Vec<(u8, u8)>>, E> {}",
        "impl S { fn f() -> (u8, u8) {} }",
        "trait T { fn f() -> (u8, u8); }",
        "fn g() { fn f() -> (u8, u8) {} }",
    ] {
        assert_eq!(tuples(&made_up(&[("a.rs", form)])[0]).len(), 1, "{form}");
    }
    let text = "struct S;\nimpl S {\n    fn f(x: (u8, u8)) -> [(u8, (u8, u8, u8)); 2] {}\n}";
    assert_eq!(
        tuples(&made_up(&[("a.rs", text)])[0]),
        [
            "src/a.rs:3: S::f takes a tuple of 2 parts",
            "src/a.rs:3: S::f returns a tuple of 2 parts",
            "src/a.rs:3: S::f returns a tuple of 3 parts"
        ]
    );
}

#[test]
fn doubled_results_are_seen_in_every_form() {
    let found = |text: &str| {
        let file = &made_up(&[("a.rs", text)])[0];
        (nested(file).len(), text_errors(file).len())
    };
    for sound in [
        "fn f() -> Result<Option<String>, E> {}",
        "fn f() -> Option<Result<u8, E>> { let x: Option<Option<u8>> = None; }",
        "struct S(Result<u8, String>);",
    ] {
        assert_eq!(found(sound), (0, 0), "{sound}");
    }
    for form in [
        "fn f() -> Result<Result<u8, E>, F> {}",
        "fn f() -> io::Result<Result<u8, E>> {}",
        "fn f(x: &[Option<Option<u8>>]) {}",
        "fn f(x: impl Fn() -> Option<core::option::Option<u8>>) {}",
        "struct S { x: Vec<Option<Option<u8>>> }",
        "enum E { A(Option<Option<u8>>) }",
    ] {
        assert_eq!(found(form), (1, 0), "{form}");
    }
    let text = "struct S {\n    y: u8,\n    x: Option<Option<u8>>,\n}";
    assert_eq!(
        nested(&made_up(&[("a.rs", text)])[0]),
        ["src/a.rs:3: the field `x` has Option in Option"]
    );
    for form in [
        "fn f() -> Result<u8, String> {}",
        "fn f(x: Option<Result<u8, std::string::String>>) {}",
        "trait T { fn f() -> Result<(), String>; }",
    ] {
        assert_eq!(found(form), (0, 1), "{form}");
    }
}
