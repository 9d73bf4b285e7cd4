//! The door to the network: whoever asks a server does it here. A request gets one answer of
//! bounded size in bounded time, from the named host only: no redirect is followed, and the
//! environment's proxies are not used.

use core::time::Duration;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Error};

use crate::disk::read;

/// The longest answer that is read. The answer to a canary has a few hundred bytes for each token.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
const HEADER_BYTES_MAX: usize = 64 << 10;
/// How long is waited for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The files in which systems keep trusted certificates.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// A client that asks servers.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
}

/// A request to a server.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The URL: scheme, host, port and path.
    pub(crate) url: &'a str,
    /// The JSON that is posted; without it the URL is fetched.
    pub(crate) body: Option<Vec<u8>>,
    /// The header `Authorization`.
    pub(crate) authorization: Option<String>,
    /// The header `X-Request-Id`.
    pub(crate) id: Option<&'a str>,
    /// The time limit, from the name of the host to the last byte of the answer.
    pub(crate) limit: Duration,
}

/// A server's answer.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The whole body.
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    /// There is no connection, so that nothing was asked.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The request may have been made, but no whole answer came in time.
    #[error("did not answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The answer is longer than is read.
    #[error("gave an answer of more than {} MiB", ANSWER_BYTES_MAX >> 20)]
    TooLarge,
    /// The answer is no HTTP, or ends too early.
    #[error("its answer is cut off or no HTTP: {0}")]
    Broken(String),
}

impl Client {
    /// A client with the certificates that the system trusts, or those of `SSL_CERT_FILE`.
    #[must_use]
    pub(crate) fn new() -> Self {
        let tls = TlsConfig::builder().root_certs(roots()).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(HEADER_BYTES_MAX)
            .timeout_connect(Some(CONNECT_LIMIT))
            // A server that restarts closes its connections, so that each request gets a new one.
            .max_idle_connections(0)
            .user_agent(concat!("qera/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.new_agent(),
        }
    }

    /// Makes a request, and waits for the answer.
    ///
    /// # Errors
    /// [`NetworkError`] where there is no whole answer; an answer with any status is none.
    pub(crate) fn ask(&self, request: Request<'_>) -> Result<HttpAnswer, NetworkError> {
        let limit = request.limit;
        let why = |error| NetworkError::of(error, limit);
        let mut headers = Vec::new();
        headers.extend(request.authorization.map(|value| ("Authorization", value)));
        headers.extend(request.id.map(|id| ("X-Request-Id", id.to_owned())));
        let answered = match request.body {
            None => {
                let get = self.agent.get(request.url);
                let get = headers
                    .iter()
                    .fold(get, |get, (name, value)| get.header(*name, value));
                get.config().timeout_global(Some(limit)).build().call()
            }
            Some(body) => {
                let post = self.agent.post(request.url);
                let post = post.header("Content-Type", "application/json");
                let post = headers
                    .iter()
                    .fold(post, |post, (name, value)| post.header(*name, value));
                post.config()
                    .timeout_global(Some(limit))
                    .build()
                    .send(&body[..])
            }
        };
        let mut response = answered.map_err(why)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        let body = body.read_to_vec().map_err(why)?;
        Ok(HttpAnswer { status, body })
    }
}

impl NetworkError {
    fn of(error: Error, limit: Duration) -> Self {
        match error {
            Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => Self::Unreachable(
                format!("no connection within {} s", CONNECT_LIMIT.as_secs()),
            ),
            Error::Timeout(_) => Self::TimedOut(limit),
            Error::BodyExceedsLimit(_) => Self::TooLarge,
            Error::HostNotFound => Self::Unreachable("its host name is not known".into()),
            Error::ConnectionFailed => Self::Unreachable("no connection".into()),
            Error::Io(error) if is_of_connecting(error.kind()) || is_of_the_name(&error) => {
                Self::Unreachable(error.to_string())
            }
            Error::Tls(what) => Self::Unreachable(what.to_owned()),
            Error::Rustls(error) => Self::Unreachable(error.to_string()),
            other => Self::Broken(other.to_string()),
        }
    }
}

/// Errors of TLS about a certificate, or about a server that does not speak TLS, are of this kind.
const fn is_of_connecting(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, InvalidData, NetworkDown,
        NetworkUnreachable,
    };
    matches!(
        kind,
        ConnectionRefused
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
            | AddrNotAvailable
            | InvalidData
    )
}

/// Whether the host's name was not found, which is an error without a kind of its own.
fn is_of_the_name(error: &std::io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address")
}

/// The certificates of `SSL_CERT_FILE`, else the system's, else those that the program was built
/// with.
fn roots() -> RootCerts {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let usual = SYSTEM_ROOTS.iter().map(std::path::PathBuf::from);
    let mut files = named.into_iter().chain(usual);
    let read = files.find_map(|path| read(&path).ok());
    let certificates: Vec<_> = parse_pem(&read.unwrap_or_default())
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        RootCerts::WebPki
    } else {
        RootCerts::new_with_certs(&certificates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::ToSocketAddrs;

    #[test]
    fn an_unknown_name_is_no_broken_answer() {
        let unknown = ("nowhere.invalid", 80).to_socket_addrs().unwrap_err();
        let error = NetworkError::of(Error::Io(unknown), Duration::from_secs(1));
        assert!(matches!(error, NetworkError::Unreachable(_)), "{error}");
        let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let error = NetworkError::of(Error::Io(cut), Duration::from_secs(1));
        assert!(matches!(error, NetworkError::Broken(_)), "{error}");
    }
}
