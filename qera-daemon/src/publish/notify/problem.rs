//! What can go wrong with a server: which problems pass by themselves, and what a person does about
//! the others.

use core::mem::{Discriminant, discriminant};

use crate::error::Fatal;
use crate::network::{HttpAnswer, NetworkError};
use crate::publish::notify::protocol::{LOAD, UNLOAD, error_message, is_error_of_vllm};
use crate::settings::notify::NotifyFileError;

/// Why a server does not serve what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The server does not answer.
    #[error("{0}")]
    Network(#[from] NetworkError),
    /// The server answers with an error of its own; it may be starting, or busy.
    #[error("answers {status} to {asked}: {message}")]
    Failing {
        /// The HTTP status.
        status: u16,
        /// The path of the request.
        asked: &'static str,
        /// The server's message.
        message: String,
    },
    /// The answer is not understood.
    #[error("answers {asked} with {what}: is it vLLM?")]
    Answer {
        /// The path of the request.
        asked: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
    /// The server does not accept the token.
    #[error("refuses the token ({0}): --notify-token-file FILE holds the server's --api-key")]
    Token(u16),
    /// The server's address has changed.
    #[error("answers {0}, a redirect, which is not followed: name the URL that answers")]
    Redirect(u16),
    /// The server may not load adapters at run time.
    #[error(
        "has no {0}: it is to be started with --enable-lora, VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 \
         and one API server (--api-server-count 1)"
    )]
    Endpoint(&'static str),
    /// The server does not take an adapter of this rank.
    #[error(
        "does not load {path}: {message} (start it with a higher --max-lora-rank, or run with a lower --rank)"
    )]
    Rank {
        /// The generation as the server sees it.
        path: String,
        /// The server's message.
        message: String,
    },
    /// The server does not see the folder at this path.
    #[error(
        "does not see {0}: it must be able to read --out, and path=PREFIX names the path that --out has there"
    )]
    Unseen(String),
    /// The server refuses, and will do so again.
    #[error("refuses {asked} ({status}): {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The path of the request.
        asked: &'static str,
        /// The server's message.
        message: String,
    },
    /// The server says that it did something, and then does not list it.
    #[error(
        "does not show in /v1/models what it was told ({0}): are there several servers behind this \
         URL? Each is named by a --notify of its own"
    )]
    NotShown(String),
    /// A model of the server already has the adapter's name.
    #[error("has a model of the name '{0}': name=NAME chooses another")]
    NameTaken(String),
    /// The server has a path of ours from an earlier output folder.
    #[error(
        "serves {0} from an earlier output folder, and its prefix cache knows that path: restart \
         the server, or choose another --out or name=NAME"
    )]
    Earlier(String),
    /// A file of `--notify`.
    #[error("{0}")]
    File(#[from] NotifyFileError),
    /// The memory could not be written, so that the server is not told.
    #[error("is not told, because what it is told must be on disk before: {0}")]
    Memory(String),
}

/// The kind of a problem, by which a new one is told from one that was already reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProblemKind {
    of: Discriminant<Problem>,
    of_network: Option<Discriminant<NetworkError>>,
    /// Whether trying again is of no use.
    pub(crate) stays: bool,
}

impl Problem {
    /// Whether trying again is of no use.
    #[must_use]
    pub(crate) const fn stays(&self) -> bool {
        match self {
            Self::Network(_) | Self::Failing { .. } | Self::File(_) | Self::Memory(_) => false,
            Self::Answer { .. }
            | Self::Token(_)
            | Self::Redirect(_)
            | Self::Endpoint(_)
            | Self::Rank { .. }
            | Self::Unseen(_)
            | Self::Refused { .. }
            | Self::NotShown(_)
            | Self::NameTaken(_)
            | Self::Earlier(_) => true,
        }
    }

    /// Whether a server may have been replaced by another when it answers again.
    #[must_use]
    pub(crate) const fn is_absence(&self) -> bool {
        matches!(self, Self::Network(NetworkError::Unreachable(_)))
    }

    /// Whether the server did not answer in time.
    #[must_use]
    pub(crate) const fn is_silence(&self) -> bool {
        matches!(self, Self::Network(NetworkError::TimedOut(_)))
    }

    /// Whether the server answered, so that it is known what it has done.
    #[must_use]
    pub(crate) const fn is_answer(&self) -> bool {
        !matches!(self, Self::Network(_))
    }

    /// The kind of problem, whichever generation it is about.
    #[must_use]
    pub(crate) fn kind(&self) -> ProblemKind {
        ProblemKind {
            of: discriminant(self),
            of_network: match self {
                Self::Network(error) => Some(discriminant(error)),
                _ => None,
            },
            stays: self.stays(),
        }
    }

    /// The problem that the memory could not be written.
    #[must_use]
    pub(crate) fn memory(error: Fatal) -> Self {
        Self::Memory(error.to_string())
    }

    /// The problem that an answer without success shows. `path` is the generation that it is about.
    #[must_use]
    pub(crate) fn of(asked: &'static str, answer: &HttpAnswer, path: &str) -> Self {
        let message = error_message(&answer.body);
        let status = answer.status;
        match status {
            300..=399 => Self::Redirect(status),
            401 | 403 => Self::Token(status),
            // For a path that is not served the web framework answers, and not vLLM.
            404 | 405 if !is_error_of_vllm(&answer.body) => match asked {
                LOAD | UNLOAD => Self::Endpoint(asked),
                _ => Self::Answer {
                    asked,
                    what: format!("{status}"),
                },
            },
            _ if message.contains("max_lora_rank") => Self::Rank {
                path: path.to_owned(),
                message,
            },
            _ if message.contains("No adapter found for") => Self::Unseen(path.to_owned()),
            408 | 409 | 425 | 429 | 500.. => Self::Failing {
                status,
                asked,
                message,
            },
            _ => Self::Refused {
                status,
                asked,
                message,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::notify::protocol::MODELS;

    fn of(status: u16, body: &str) -> Problem {
        let answer = HttpAnswer {
            status,
            body: body.as_bytes().to_vec(),
        };
        Problem::of(LOAD, &answer, "/out/generations/000001")
    }

    fn error(message: &str) -> String {
        serde_json::json!({"error": {"message": message, "code": 0}}).to_string()
    }

    #[test]
    fn what_stays_is_told_from_what_passes_by_the_words_of_vllm() {
        let rank = "Call to add_lora method failed: LoRA rank 32 is greater than max_lora_rank 16.";
        let unseen = "Loading lora q failed: No adapter found for /out/generations/000001";
        for (status, body, words, stays) in [
            (500, error(rank), "a higher --max-lora-rank", true),
            (404, error(unseen), "path=PREFIX", true),
            (
                404,
                r#"{"detail":"Not Found"}"#.into(),
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
                true,
            ),
            (
                405,
                r#"{"detail":"Method Not Allowed"}"#.into(),
                "has no /v1/load_lora_adapter",
                true,
            ),
            (
                401,
                r#"{"error":"Unauthorized"}"#.into(),
                "--notify-token-file",
                true,
            ),
            (403, String::new(), "refuses the token (403)", true),
            (307, String::new(), "answers 307, a redirect", true),
            (
                400,
                error("no"),
                "refuses /v1/load_lora_adapter (400): no",
                true,
            ),
            (
                404,
                error("no such"),
                "refuses /v1/load_lora_adapter (404)",
                true,
            ),
            (500, error("out of memory"), "answers 500 to", false),
            (503, "<h1>busy</h1>".into(), "<h1>busy</h1>", false),
            (429, String::new(), "answers 429", false),
        ] {
            let problem = of(status, &body);
            assert!(problem.to_string().contains(words), "{problem}");
            assert_eq!(problem.stays(), stays, "{problem}");
            assert!(problem.is_answer() && !problem.is_absence());
        }
    }

    #[test]
    fn a_problem_is_the_same_whichever_generation_it_is_about() {
        let rank = |path: &str| Problem::Rank {
            path: path.into(),
            message: "LoRA rank".into(),
        };
        assert_eq!(rank("1").kind(), rank("2").kind());
        let network = |error| Problem::Network(error);
        let absent = network(NetworkError::Unreachable("a".into()));
        assert_eq!(
            absent.kind(),
            network(NetworkError::Unreachable("b".into())).kind()
        );
        assert_ne!(absent.kind(), network(NetworkError::TooLarge).kind());
        assert_ne!(absent.kind(), rank("1").kind());
        assert!(absent.is_absence() && !absent.is_answer() && !absent.stays());
        let answer = HttpAnswer {
            status: 500,
            body: Vec::new(),
        };
        assert!(
            Problem::of(MODELS, &answer, "")
                .to_string()
                .contains(MODELS)
        );
    }
}
