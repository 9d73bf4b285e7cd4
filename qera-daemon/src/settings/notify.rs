//! `--notify`: the servers that each generation is handed to, and how.

use core::net::Ipv6Addr;
use core::time::Duration;
use std::path::{Path, PathBuf};

use crate::disk::open_file::OpenFile;
use crate::error::Fatal;
use crate::settings::options::Options;
use crate::settings::parse::seconds;

/// The form of the option's value, for messages.
const FORM: &str =
    "vllm=URL[,name=NAME][,canary=FILE][,path=PREFIX][,names=generation][,poll=SECONDS]";
/// A longer token, or a longer text for a canary, cannot be meant.
const TOKEN_BYTES_MAX: usize = 4096;
const CANARY_BYTES_MAX: usize = 1 << 16;
/// The adapter's name on a server, where no other was chosen.
const NAME: &str = "qera";
/// Seconds between two looks at a server that serves what it should.
const POLL: f64 = 30.0;

/// The servers, and the file with their token.
#[derive(Debug, Clone, Default)]
pub(crate) struct NotifySettings {
    /// The servers, in the order of the options.
    pub(crate) servers: Vec<NotifiedServer>,
    /// `--notify-token-file`.
    pub(crate) token_file: Option<PathBuf>,
}

/// A server that generations are handed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotifiedServer {
    /// The URL: http or https, host, port, perhaps a path, without a slash at its end.
    pub(crate) url: String,
    /// The adapter's name on the server.
    pub(crate) name: String,
    /// Whether each generation has a name of its own.
    pub(crate) naming: AdapterNaming,
    /// A file with a text that generations are tried on.
    pub(crate) canary: Option<PathBuf>,
    /// Where the server sees `OUT`, if elsewhere.
    pub(crate) prefix: Option<String>,
    /// The time between two looks at what the server serves.
    pub(crate) poll: Duration,
}

/// How generations are named on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdapterNaming {
    /// One name, which always stands for the newest generation.
    Stable,
    /// A name with the generation's number; a router moves clients from one to the next.
    Generation,
}

/// The token of a server, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

/// Why a file of `--notify` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotifyFileError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Everybody on the machine could use the token.
    #[error("{}: everybody may read or write it: chmod o= {}", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The file has another content.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What the file should hold.
        what: &'static str,
    },
}

impl NotifySettings {
    /// Checks the options of this part.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        let mut servers: Vec<NotifiedServer> = Vec::new();
        for text in &options.notify {
            let refuse = |why: &str| {
                let (text, why) = (redacted(text), redacted(why));
                Fatal::Usage(format!("--notify {text}: {why}"))
            };
            let server = NotifiedServer::parse(text).map_err(|why| refuse(&why.to_string()))?;
            let same_url = |other: &&NotifiedServer| other.url.eq_ignore_ascii_case(&server.url);
            for other in servers.iter().filter(same_url) {
                if other.name == server.name {
                    return Err(refuse(
                        "that server is given twice with this name: give one another name=, or leave it out",
                    ));
                }
                if other.uses(&server.name) || server.uses(&other.name) {
                    return Err(refuse(&format!(
                        "'{}' and '{}' would use the same names on that server: a canary is called \
                         NAME-canary, and with names=generation an adapter NAME-000001; give \
                         one another name=",
                        other.name, server.name
                    )));
                }
            }
            servers.push(server);
        }
        let token_file = options.notify_token_file.clone();
        if token_file.is_some() && servers.is_empty() {
            return Err(Fatal::Usage(
                "--notify-token-file: does nothing without --notify".into(),
            ));
        }
        Ok(Self {
            servers,
            token_file,
        })
    }

    /// Checks the files at the start, so that the first generation does not fail by them.
    ///
    /// # Errors
    /// [`Fatal::Usage`] naming the file.
    pub(crate) fn check_files(&self) -> Result<(), Fatal> {
        let usage =
            |option: &str, error: NotifyFileError| Fatal::Usage(format!("--{option} {error}"));
        self.token()
            .map_err(|error| usage("notify-token-file", error))?;
        for server in &self.servers {
            server
                .canary_text()
                .map_err(|error| usage("notify canary=", error))?;
        }
        Ok(())
    }

    /// Reads the token from its file each time, because it may be replaced while the daemon runs.
    ///
    /// # Errors
    /// [`NotifyFileError`].
    pub(crate) fn token(&self) -> Result<Option<Token>, NotifyFileError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let unread = |source| NotifyFileError::Unread {
            path: path.clone(),
            source,
        };
        let file = OpenFile::open(path).map_err(unread)?;
        if file.is_open_to_everybody().map_err(unread)? {
            return Err(NotifyFileError::Open { path: path.clone() });
        }
        let bytes = file.first_bytes(TOKEN_BYTES_MAX + 1).map_err(unread)?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let token = text.trim();
        let is_sound = !token.is_empty()
            && text.len() <= TOKEN_BYTES_MAX
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_sound {
            return Err(NotifyFileError::Content {
                path: path.clone(),
                what: "holds no token: one line of visible ASCII, at most 4096 bytes",
            });
        }
        Ok(Some(Token(token.to_owned())))
    }
}

impl NotifiedServer {
    /// Parses an option's value.
    ///
    /// # Errors
    /// [`NotifyError`].
    fn parse(text: &str) -> Result<Self, NotifyError> {
        let mut parts = text.split(',').map(|part| {
            let split = part.split_once('=');
            split.ok_or_else(|| NotifyError::Form(part.to_owned()))
        });
        let url = match parts.next() {
            Some(Ok(("vllm", url))) => parse_url(url)?,
            _ => return Err(NotifyError::NoServer),
        };
        let mut server = Self {
            url,
            name: NAME.into(),
            naming: AdapterNaming::Stable,
            canary: None,
            prefix: None,
            poll: Duration::from_secs_f64(POLL),
        };
        let mut seen = Vec::new();
        for part in parts {
            let (key, value) = part?;
            if seen.contains(&key) {
                return Err(NotifyError::Form(format!("{key} again")));
            }
            seen.push(key);
            server.set(key, value)?;
        }
        Ok(server)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), NotifyError> {
        match key {
            "name" if is_name(value) => value.clone_into(&mut self.name),
            "name" => return Err(NotifyError::Name(value.to_owned())),
            "canary" if !value.is_empty() => self.canary = Some(PathBuf::from(value)),
            "path" if is_prefix(value) => {
                self.prefix = Some(value.trim_end_matches('/').to_owned());
            }
            "path" => return Err(NotifyError::Prefix(value.to_owned())),
            "names" if value == "generation" => self.naming = AdapterNaming::Generation,
            "poll" => {
                let number = value.parse().ok();
                self.poll = seconds("notify poll", number)
                    .map_err(|_| NotifyError::Form(format!("poll={value}")))?;
            }
            _ => return Err(NotifyError::Form(format!("{key}={value}"))),
        }
        Ok(())
    }

    /// Whether this server's adapters may get this name.
    fn uses(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.name);
        rest.and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|rest| {
                let is_number = rest.len() >= 6 && rest.bytes().all(|byte| byte.is_ascii_digit());
                rest == "canary" || self.naming == AdapterNaming::Generation && is_number
            })
    }

    /// Identifies the server, in messages and on disk.
    #[must_use]
    pub(crate) fn key(&self) -> String {
        format!("{} {}", self.url, self.name)
    }

    /// The text that generations are tried on; `None` where there is none.
    ///
    /// # Errors
    /// [`NotifyFileError`].
    pub(crate) fn canary_text(&self) -> Result<Option<String>, NotifyFileError> {
        let Some(path) = &self.canary else {
            return Ok(None);
        };
        let unread = |source| NotifyFileError::Unread {
            path: path.clone(),
            source,
        };
        let file = OpenFile::open(path).map_err(unread)?;
        let bytes = file.first_bytes(CANARY_BYTES_MAX + 1).map_err(unread)?;
        let is_short = bytes.len() <= CANARY_BYTES_MAX;
        match String::from_utf8(bytes) {
            Ok(text) if is_short && !text.trim().is_empty() => Ok(Some(text)),
            _ => Err(NotifyFileError::Content {
                path: path.clone(),
                what: "is no text of at most 65536 bytes of UTF-8 that fits the model's context",
            }),
        }
    }

    /// A generation's folder as the server sees it.
    #[must_use]
    pub(crate) fn path_of(&self, out: &Path, generation: u64) -> String {
        let out = out.display().to_string();
        let prefix = self.prefix.as_deref().unwrap_or(&out);
        format!("{prefix}/generations/{generation:06}")
    }
}

/// What is wrong with a value of `--notify`.
#[derive(Debug, thiserror::Error)]
enum NotifyError {
    #[error("begins with vllm=URL: {FORM}")]
    NoServer,
    #[error("'{0}' is not understood: {FORM}")]
    Form(String),
    #[error("'{0}' is no name: letters, digits, '.', '_' and '-', at most 64")]
    Name(String),
    #[error(
        "path={0}: the absolute path at which the server sees --out; what is not absolute a server \
         looks for on a hub"
    )]
    Prefix(String),
    #[error(
        "the URL is http://HOST:PORT or https://HOST:PORT, perhaps with a path; without /v1, query, \
         fragment, name and password (--notify-token-file)"
    )]
    Url,
}

fn parse_url(url: &str) -> Result<String, NotifyError> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let url = url.trim_end_matches('/');
    let host = rest.and_then(|rest| rest.split('/').next());
    let is_sound = host.is_some_and(is_host)
        && url.bytes().all(|byte| byte.is_ascii_graphic())
        && !url.contains(['@', '?', '#', '\\', '"'])
        && !url.ends_with("/v1");
    if is_sound {
        Ok(url.to_owned())
    } else {
        Err(NotifyError::Url)
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn is_host(host: &str) -> bool {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .filter(|(address, _)| address.parse::<Ipv6Addr>().is_ok())
            .map(|(_, end)| end),
        None => {
            let at = host.find(':').unwrap_or(host.len());
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            (at > 0 && host.bytes().take(at).all(is_good)).then(|| &host[at..])
        }
    };
    end.is_some_and(|end| {
        let port = end.strip_prefix(':').map(|port| port.parse().unwrap_or(0));
        end.is_empty() || port.is_some_and(|port: u16| port > 0)
    })
}

/// The text without what may be a password: the part before an `@`.
fn redacted(text: &str) -> String {
    let Some((secret, rest)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    let start = match (secret.find("://"), secret.find('=')) {
        (Some(at), _) => at + 3,
        (None, Some(at)) => at + 1,
        (None, None) => 0,
    };
    format!("{}...@{rest}", &secret[..start])
}

fn is_name(name: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(is_good)
}

fn is_prefix(prefix: &str) -> bool {
    let mut parts = prefix.split('/');
    prefix.starts_with('/') && !parts.any(|part| part == ".." || part == ".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn resolved(notify: &[&str]) -> Result<NotifySettings, Fatal> {
        NotifySettings::resolve(&Options {
            notify: notify.iter().map(|&text| text.to_owned()).collect(),
            ..Options::defaults()
        })
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let server = |text| resolved(&[text]).unwrap().servers.remove(0);
        let found = server("vllm=http://a:8000/");
        assert_eq!(found.url, "http://a:8000");
        assert_eq!(found.name, "qera");
        assert_eq!(found.naming, AdapterNaming::Stable);
        assert_eq!(found.poll, Duration::from_secs(30));
        assert_eq!(found.key(), "http://a:8000 qera");
        assert_eq!(
            found.path_of(Path::new("/out"), 12),
            "/out/generations/000012"
        );
        let found =
            server("vllm=https://a/b,name=x-1,canary=c.txt,path=/mnt/q/,names=generation,poll=0.5");
        assert_eq!(found.url, "https://a/b");
        assert_eq!(found.name, "x-1");
        assert_eq!(found.naming, AdapterNaming::Generation);
        assert_eq!(found.canary.as_deref(), Some(Path::new("c.txt")));
        assert_eq!(found.poll, Duration::from_millis(500));
        assert_eq!(
            found.path_of(Path::new("/out"), 12),
            "/mnt/q/generations/000012"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_text() {
        for (wrong, why) in [
            ("http://a", "begins with vllm=URL"),
            ("name=a", "begins with vllm=URL"),
            ("vllm=a:8000", "the URL is http://"),
            ("vllm=ftp://a", "the URL is http://"),
            ("vllm=http://", "the URL is http://"),
            ("vllm=http://:80", "the URL is http://"),
            ("vllm=http://h:99999", "the URL is http://"),
            ("vllm=http://h:0", "the URL is http://"),
            ("vllm=http://h:", "the URL is http://"),
            ("vllm=http://h:1:2", "the URL is http://"),
            ("vllm=http://[::1", "the URL is http://"),
            ("vllm=http://[::x]:80", "the URL is http://"),
            ("vllm=http://[::1]80", "the URL is http://"),
            ("vllm=http://a/v1", "without /v1"),
            ("vllm=http://a?b=c", "query"),
            ("vllm=http://a b", "the URL is http://"),
            ("vllm=http://a,name=", "is no name"),
            ("vllm=http://a,name=a/b", "is no name"),
            ("vllm=http://a,path=out", "absolute path"),
            ("vllm=http://a,path=/a/../b", "absolute path"),
            ("vllm=http://a,names=both", "'names=both' is not understood"),
            ("vllm=http://a,poll=0", "'poll=0' is not understood"),
            ("vllm=http://a,canary=", "'canary=' is not understood"),
            ("vllm=http://a,colour=red", "'colour=red' is not understood"),
            ("vllm=http://a,name=a,name=b", "'name again' is not"),
            ("vllm=http://a,name", "'name' is not understood"),
        ] {
            let said = resolved(&[wrong]).unwrap_err().to_string();
            assert!(said.starts_with(&format!("--notify {wrong}: ")), "{said}");
            assert!(said.contains(why), "{said}");
        }
        for sound in ["http://[::1]", "http://[::1]:80/b", "http://a_b.c-d:65535"] {
            assert!(resolved(&[&format!("vllm={sound}")]).is_ok(), "{sound}");
        }
        let twice = ["vllm=http://a", "vllm=http://a/,poll=1"];
        let said = resolved(&twice).unwrap_err().to_string();
        assert!(said.contains("is given twice with this name"), "{said}");
        assert!(resolved(&["vllm=http://a", "vllm=http://a,name=b"]).is_ok());
        let alone = NotifySettings::resolve(&Options {
            notify_token_file: Some("token".into()),
            ..Options::defaults()
        });
        assert!(alone.unwrap_err().to_string().contains("without --notify"));
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for wrong in [
            "vllm=http://me:secret@a",
            "vllm=http://me:secret@a:80,name=b",
            "vllm=http://me:12,secret@a",
            "vllm=http://me:se@secret@a",
            "http://me:secret@a",
            "vllm=me:secret@a",
            "vllm=http://a,secret@b",
        ] {
            let said = resolved(&[wrong]).unwrap_err().to_string();
            assert!(
                said.starts_with("--notify ") && said.contains("...@"),
                "{said}"
            );
            assert!(!said.contains("secret") && !said.contains("se@"), "{said}");
        }
        let said = resolved(&["vllm=http://me:secret@a"]).unwrap_err();
        assert!(
            said.to_string().contains("vllm=http://...@a: the URL"),
            "{said}"
        );
    }

    #[test]
    fn names_on_one_server_do_not_come_into_each_others_way() {
        let both = |first: &str, second: &str| {
            let with = |name: &str| format!("vllm=http://a,name={name}");
            let there = resolved(&[&with(first), &with(second)]);
            let back = resolved(&[&with(second), &with(first)]);
            assert_eq!(there.is_ok(), back.is_ok());
            there.map_err(|error| error.to_string())
        };
        for other in ["qera-canary", "qera-canary,names=generation"] {
            let said = both("qera", other).unwrap_err();
            assert!(
                said.contains("'qera' and 'qera-canary' would use the same"),
                "{said}"
            );
        }
        assert!(both("qera,names=generation", "qera-000012").is_err());
        assert!(both("qera,names=generation", "qera").is_err());
        for fine in ["qera-000012", "qera-canary-2", "qera2", "qeracanary"] {
            assert!(both("qera", fine).is_ok(), "{fine}");
        }
        assert!(resolved(&["vllm=http://A", "vllm=http://a"]).is_err());
        let elsewhere = ["vllm=http://a", "vllm=http://b,name=qera-canary"];
        assert!(resolved(&elsewhere).is_ok());
    }

    #[test]
    fn a_token_is_one_line_that_not_everybody_may_read_and_is_never_shown() {
        let folder = std::env::temp_dir().join(format!("qera-token-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("token");
        let settings = NotifySettings {
            token_file: Some(path.clone()),
            ..resolved(&["vllm=http://a"]).unwrap()
        };
        let write = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let said = settings.check_files().unwrap_err().to_string();
        assert!(said.starts_with("--notify-token-file "), "{said}");
        write("secret\n", 0o640);
        settings.check_files().unwrap();
        let token = settings.token().unwrap().unwrap();
        assert_eq!(token.header(), "Bearer secret");
        assert!(!format!("{token:?}").contains("secret"));
        for mode in [0o604, 0o602] {
            write("secret\n", mode);
            let said = settings.check_files().unwrap_err().to_string();
            assert!(said.contains("chmod o= "), "{said}");
        }
        for wrong in ["", "\n", "a b", "a\nb", "\u{e9}", &"x".repeat(5000)] {
            write(wrong, 0o600);
            let said = settings.check_files().unwrap_err().to_string();
            assert!(said.contains("holds no token"), "{said}");
            assert!(wrong.is_empty() || !said.contains(wrong.trim()) || wrong == "\n");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_canary_is_a_text_of_bounded_size() {
        let folder = std::env::temp_dir().join(format!("qera-canary-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("canary.txt");
        let text = format!("vllm=http://a,canary={}", path.display());
        let settings = resolved(&[&text]).unwrap();
        let check = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            settings.check_files().map_err(|error| error.to_string())
        };
        assert!(check("A text.".as_bytes()).is_ok());
        let long = vec![b'a'; 65537];
        for wrong in [&b""[..], b" \n", b"\xff\xfe", &long] {
            let said = check(wrong).unwrap_err();
            assert!(said.starts_with("--notify canary= "), "{said}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
