//! What stands behind one door.

use std::collections::BTreeSet;

use crate::sources::{Source, assert_none, sources};
use crate::spelled::spelling;
use crate::syntax::{Parsed, lines_with, made_up, parsed};

/// The doors of qera-daemon: to files, to the time, to the network.
const DISK: &str = "qera-daemon/src/disk/";
const NETWORK: &str = "qera-daemon/src/network.rs";
const CLOCK: &str = "qera-daemon/src/disk/clock.rs";

/// What may reach past the door to files: what is never durable, and is read once. File, path,
/// reason.
const DISK_EXCEPTIONS: [(&str, &str, &str); 5] = [
    (
        "settings/memory_budget.rs",
        "fs::read_to_string",
        "reads /proc and control groups",
    ),
    (
        "source/watch.rs",
        "fs::read_to_string",
        "reads /proc/self/mountinfo",
    ),
    (
        "host/kernels/pages.rs",
        "memmap2::MmapMut",
        "maps memory, no file",
    ),
    ("host/kernels/pages.rs", "MmapMut::map_anon", "the same"),
    ("host/kernels/pages.rs", "memmap2::Advice", "the same"),
];

/// The increment of splitmix64, in hexadecimal and decimal digits; in two pieces, so that it is not
/// found here.
const SPLITMIX: [&str; 2] = [
    concat!("9e3779b97f4a", "7c15"),
    concat!("1140071481", "9323198485"),
];

#[test]
fn exit_codes_live_in_one_file() {
    let numbers = [
        "process::exit",
        "ExitCode::from",
        "ExitCode::SUCCESS",
        "ExitCode::FAILURE",
        "_exit(",
    ];
    let mut findings = Vec::new();
    for source in sources("rs") {
        let of_product = source.path.starts_with("qera-") && source.path.contains("/src/");
        if of_product && source.path != "qera-daemon/src/exit.rs" {
            let code = source
                .text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let words = code.flat_map(|line| numbers.iter().filter(|word| line.contains(*word)));
            findings.extend(words.map(|word| format!("{}: {word}", source.path)));
        }
    }
    assert_none("exit codes outside qera-daemon/src/exit.rs", &findings);
}

/// Whether a path leads to files. Questions that `std::path::Path` answers itself (`exists`,
/// `is_dir`) are not seen.
fn leads_to_files(path: &[String]) -> bool {
    let [first, rest @ ..] = path else {
        return false;
    };
    match first.as_str() {
        "fs" | "memmap2" => true,
        "os" => rest.iter().any(|part| part == "fs"),
        "File" | "OpenOptions" | "Mmap" | "MmapMut" | "MmapOptions" => !rest.is_empty(),
        _ => false,
    }
}

/// Whether a path leads to the network; a socket of the machine itself (`std::os::unix::net`) does
/// not.
fn leads_to_the_network(path: &[String]) -> bool {
    let first = path.first().map(String::as_str);
    match first {
        Some("ureq" | "rustls" | "net") => true,
        Some("TcpStream" | "TcpListener" | "UdpSocket" | "ToSocketAddrs") => path.len() > 1,
        _ => false,
    }
}

/// Whether a path asks what time it is.
fn asks_the_time(path: &[String]) -> bool {
    path.windows(2).any(|pair| {
        ["Instant", "SystemTime"].contains(&pair[0].as_str())
            && ["now", "elapsed"].contains(&pair[1].as_str())
    })
}

/// Paths of a file that pass a test, without `std::`, each with the lines where it stands.
fn matching(file: &Parsed, wanted: fn(&[String]) -> bool) -> Vec<Reach> {
    let mut paths = BTreeSet::new();
    for path in spelling(&file.file).paths {
        let segments = match path.segments.split_first() {
            Some((first, rest)) if first == "std" => rest,
            _ => &path.segments,
        };
        if wanted(segments) {
            paths.insert(segments.to_vec());
        }
    }
    // An import of a whole module says no more than what is then named by it.
    let modules: Vec<_> = paths
        .iter()
        .filter(|path| path.len() == 1)
        .cloned()
        .collect();
    for module in modules {
        if paths
            .iter()
            .any(|path| path.len() > 1 && path.starts_with(&module))
        {
            paths.remove(&module);
        }
    }
    let reach = |path: Vec<String>| Reach::new(file, &path);
    paths.into_iter().map(reach).collect()
}

/// A path past a door.
struct Reach {
    path: String,
    finding: String,
}

impl Reach {
    fn new(file: &Parsed, path: &[String]) -> Self {
        let code = file.text.split("#[cfg(test)]\nmod").next().unwrap();
        let mut lines = lines_with(code, path);
        if lines.is_empty() {
            lines = lines_with(code, &path[path.len() - 1..]);
        }
        let lines: Vec<_> = lines.iter().map(usize::to_string).collect();
        let path = path.join("::");
        Self {
            finding: format!("{}:{}: {path}", file.path, lines.join(",")),
            path,
        }
    }
}

fn past_the_disk(files: &[Parsed], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut unused: Vec<_> = exceptions.iter().collect();
    for file in files.iter().filter(|file| !file.path.starts_with(DISK)) {
        for reach in matching(file, leads_to_files) {
            let allowed = |(place, path, _): &(&str, &str, &str)| {
                file.path.ends_with(&format!("src/{place}")) && reach.path == *path
            };
            unused.retain(|exception| !allowed(exception));
            if !exceptions.iter().any(allowed) {
                findings.push(reach.finding);
            }
        }
    }
    for (place, path, reason) in unused {
        findings.push(format!(
            "{place} has no {path} any more ({reason}): no exception"
        ));
    }
    findings
}

fn past_the_clock(files: &[Parsed]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path != CLOCK) {
        let paths = matching(file, asks_the_time).into_iter();
        findings.extend(paths.map(|reach| reach.finding));
        // By name: the type of what it is called on is unknown here.
        if spelling(&file.file)
            .methods
            .iter()
            .any(|name| name == "elapsed")
        {
            findings.push(Reach::new(file, &["elapsed".to_owned()]).finding);
        }
    }
    findings
}

fn past_the_network(files: &[Parsed]) -> Vec<String> {
    let others = files.iter().filter(|file| file.path != NETWORK);
    let found = others.flat_map(|file| matching(file, leads_to_the_network));
    found.map(|reach| reach.finding).collect()
}

#[test]
fn servers_are_asked_through_the_network() {
    let findings = past_the_network(&parsed("qera-daemon/src"));
    assert_none(&format!("ways to servers past {NETWORK}"), &findings);
}

#[test]
fn ways_past_the_network_are_seen_in_every_form() {
    let found = |text: &str| past_the_network(&made_up(&[("a.rs", text)]));
    for sound in [
        "use std::os::unix::net::UnixDatagram; use crate::network::Client; fn f(net: u8) {}",
        "#[cfg(test)]\nmod tests { use std::net::TcpListener; }",
    ] {
        assert!(found(sound).is_empty(), "{sound}");
    }
    for form in [
        "use ureq::Agent;",
        "use std::net::TcpStream;",
        "use std::{io, net::UdpSocket};",
        "fn f() { std::net::TcpStream::connect(a) }",
        "fn f() { TcpStream::connect(a) }",
        "fn f() { m!(ureq::get(a)) }",
        "fn f(x: &ureq::Error) {}",
    ] {
        assert_eq!(found(form).len(), 1, "{form}");
    }
}

#[test]
fn files_are_reached_through_the_disk() {
    let findings = past_the_disk(&parsed("qera-daemon/src"), &DISK_EXCEPTIONS);
    assert_none(&format!("ways to files past {DISK}"), &findings);
}

#[test]
fn the_time_is_asked_of_the_clock() {
    let findings = past_the_clock(&parsed("qera-daemon/src"));
    assert_none(&format!("ways to the time past {CLOCK}"), &findings);
}

#[test]
fn ways_past_the_disk_are_seen_in_every_form() {
    let found = |text: &str| past_the_disk(&made_up(&[("a.rs", text)]), &[]);
    for sound in [
        "use crate::disk::File; fn f(file: File, fs: u8) { path.exists() }",
        "#[cfg(test)]\nmod tests { use std::fs; }",
        "/// std::fs::read\nfn f() { let _ = \"fs::read\"; }",
    ] {
        assert!(found(sound).is_empty(), "{sound}");
    }
    for form in [
        "use std::fs;",
        "use std::{fs::File, io};",
        "use std::os::unix::fs::FileExt;",
        "use memmap2::Mmap;",
        "fn f() { std::fs::read(p) }",
        "fn f() { fs::read(p) }",
        "fn f() { File::open(p) }",
        "fn f() { m!(OpenOptions::new()) }",
        "fn f(x: &std::fs::Metadata) {}",
    ] {
        assert_eq!(found(form).len(), 1, "{form}");
    }
    let text = "use std::fs; fn f() { fs::read(p); fs::write(p, q) }";
    assert_eq!(found(text).len(), 2);
    let files = made_up(&[(
        "a.rs",
        "fn f() {\n    std::fs::read(p);\n    fs::read(q);\n}",
    )]);
    assert_eq!(past_the_disk(&files, &[]), ["src/a.rs:2,3: fs::read"]);
    assert!(past_the_disk(&files, &[("a.rs", "fs::read", "why")]).is_empty());
    assert_eq!(
        past_the_disk(&files, &[("a.rs", "fs::write", "why")]),
        [
            "src/a.rs:2,3: fs::read",
            "a.rs has no fs::write any more (why): no exception"
        ]
    );
}

#[test]
fn ways_past_the_clock_are_seen_in_every_form() {
    let found = |text: &str| past_the_clock(&made_up(&[("a.rs", text)]));
    assert!(found("use std::time::Instant; fn f(x: Instant) { clock.now() - x }").is_empty());
    for form in [
        "fn f() { Instant::now() }",
        "fn f() { std::time::SystemTime::now() }",
        "fn f() { x.get_or_insert_with(Instant::now) }",
        "fn f() { m!(Instant::now()) }",
        "fn f() { begun.elapsed() }",
        "fn f() { m!(begun.elapsed()) }",
        "fn f() { Instant::elapsed(&begun) }",
    ] {
        assert_eq!(found(form).len(), 1, "{form}");
    }
    assert_eq!(
        found("fn f() {\n    g();\n    x.elapsed()\n}"),
        ["src/a.rs:3: elapsed"]
    );
}

/// Files that hold the increment of splitmix64, however its digits are grouped.
fn splitmixes(files: &[Source]) -> Vec<String> {
    let holds = |source: &&Source| {
        let digits = source.text.replace('_', "").to_lowercase();
        SPLITMIX.iter().any(|constant| digits.contains(constant))
    };
    let files = files.iter().filter(holds);
    files.map(|source| source.path.clone()).collect()
}

#[test]
fn splitmix64_is_written_once() {
    let mut findings = splitmixes(&sources("rs"));
    if findings.len() == 1 {
        findings.clear();
    }
    assert_none("splitmix64 has one file", &findings);
}

#[test]
fn splitmix64_is_seen_however_it_is_written() {
    let [hexadecimal, decimal] = SPLITMIX;
    let file = |text: String| Source {
        path: "a.rs".to_owned(),
        text,
    };
    for form in [
        format!("0x{hexadecimal}"),
        format!("0x{}_u64", hexadecimal.to_uppercase()),
        format!("0x{}_{}", &hexadecimal[..4], &hexadecimal[4..]),
        format!("{}_{}", &decimal[..2], &decimal[2..]),
    ] {
        assert_eq!(splitmixes(&[file(form)]), ["a.rs"]);
    }
    assert!(splitmixes(&[file("0x9E37".to_owned())]).is_empty());
}
