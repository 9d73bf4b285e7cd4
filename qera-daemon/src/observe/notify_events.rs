//! Events about servers that generations are handed to (`--notify`), and what `status` shows of
//! them.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A server serves a generation, as its `/v1/models` says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GenerationServed<'a> {
    /// The server's URL.
    pub(crate) server: &'a str,
    /// The adapter's name on the server.
    pub(crate) name: &'a str,
    /// The generation.
    pub(crate) generation: u64,
    /// The generation's folder, as the server sees it.
    pub(crate) path: &'a str,
    /// How the generation got there.
    pub(crate) swap: SwapKind,
    /// For how many milliseconds requests to the name were refused; `None` where none were.
    pub(crate) window_ms: Option<f64>,
}

/// How a generation came to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SwapKind {
    /// The server had the generation already.
    Found,
    /// The generation was loaded under a free name.
    Loaded,
    /// Another generation was unloaded before it was loaded.
    Replaced,
    /// The generation took the place of another in one step.
    InPlace,
}

impl fmt::Display for GenerationServed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            name,
            generation,
            path,
            swap,
            window_ms,
        } = self;
        write!(
            f,
            "{server} serves generation {generation} as {name} ({path}"
        )?;
        match swap {
            SwapKind::Found => f.write_str(", as before)"),
            SwapKind::Loaded => f.write_str(")"),
            SwapKind::Replaced => {
                let window = window_ms.unwrap_or_default();
                write!(f, "; {name} was unknown for {window:.0} ms)")
            }
            SwapKind::InPlace => f.write_str(", swapped in place)"),
        }
    }
}

/// The result of a canary.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CanaryTried<'a> {
    /// URL of the server.
    pub(crate) server: &'a str,
    /// The generation.
    pub(crate) generation: u64,
    /// Whether the generation may be served.
    pub(crate) accepted: bool,
    /// The canary's figures.
    #[serde(flatten)]
    pub(crate) shown: CanaryShown,
}

/// The numbers of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CanaryShown {
    /// Mean negative log likelihood of the text's tokens with the generation.
    pub(crate) loss: f64,
    /// The mean loss of the text without an adapter.
    pub(crate) base_loss: f64,
    /// The best loss of those accepted before; `None` where there is none, or the text is not the
    /// user's.
    pub(crate) best_loss: Option<f64>,
    /// The largest difference in a token's log likelihood between the base and the generation.
    pub(crate) difference: f64,
    /// The largest such difference between two answers of the base.
    pub(crate) base_difference: f64,
}

impl fmt::Display for CanaryTried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            generation,
            accepted,
            shown,
        } = self;
        write!(
            f,
            "canary of generation {generation} on {server}: {:.4} nats a token, the base {:.4}",
            shown.loss, shown.base_loss
        )?;
        if let Some(best) = shown.best_loss {
            write!(f, ", the best generation {best:.4}")?;
        }
        if shown.difference <= shown.base_difference {
            f.write_str("; it answers as the base does, as if it corrected nothing")?;
        }
        if *accepted {
            return Ok(());
        }
        f.write_str("; more than 1 % worse: it is not served, and no server is told of it again")
    }
}

/// A server does not serve what it should.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NotifyFailed<'a> {
    /// The server's URL.
    pub(crate) server: &'a str,
    /// The adapter's name on the server.
    pub(crate) name: &'a str,
    /// The generation that it should serve; `None` where none is published.
    pub(crate) generation: Option<u64>,
    /// Whether this is tried again.
    pub(crate) retried: bool,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

impl fmt::Display for NotifyFailed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            name,
            generation,
            retried,
            message,
        } = self;
        write!(f, "warning: --notify: {server} {message}")?;
        if let Some(generation) = generation {
            let end = if *retried {
                "it is tried again"
            } else {
                "it is not tried again with this one"
            };
            write!(
                f,
                "; generation {generation} is not served as {name}, {end}"
            )?;
        }
        Ok(())
    }
}

/// A server as `status` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerStatus {
    /// The server's URL.
    pub(crate) server: String,
    /// The adapter's name on the server.
    pub(crate) name: String,
    /// The generation that it was last seen to serve.
    pub(crate) generation: Option<u64>,
    /// The generation that it should serve.
    pub(crate) wanted: Option<u64>,
    /// How the served generation got there.
    pub(crate) swap: Option<SwapKind>,
    /// For how many milliseconds requests to the name were refused at the latest swap.
    pub(crate) window_ms: Option<f64>,
    /// The figures of the latest canary.
    pub(crate) canary: Option<CanaryShown>,
    /// Generations that the server's canary showed to be worse.
    pub(crate) rejected: Vec<u64>,
    /// What is wrong now.
    pub(crate) problem: Option<String>,
}

impl fmt::Display for ServerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, name, .. } = self;
        match self.generation {
            None => write!(f, "{server} serves no generation as {name}")?,
            Some(generation) => write!(f, "{server} serves generation {generation} as {name}")?,
        }
        if let Some(rejected) = self.rejected.last() {
            write!(f, "; generation {rejected} was worse on the canary's text")?;
        }
        if let Some(problem) = &self.problem {
            write!(f, "; it {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event::Event;

    const SERVER: &str = "http://a:8000";

    #[track_caller]
    fn check(event: &Event<'_>, text: &str, json: &str) {
        assert_eq!(event.to_string(), text);
        assert_eq!(serde_json::to_string(event).unwrap(), json);
    }

    #[test]
    fn how_a_generation_came_to_be_served_is_told() {
        let served = |swap, window_ms| {
            Event::Served(GenerationServed {
                server: SERVER,
                name: "qera",
                generation: 12,
                path: "/out/generations/000012",
                swap,
                window_ms,
            })
        };
        check(
            &served(SwapKind::Replaced, Some(41.5)),
            "http://a:8000 serves generation 12 as qera (/out/generations/000012; qera was unknown for 42 ms)",
            r#"{"event":"served","server":"http://a:8000","name":"qera","generation":12,"path":"/out/generations/000012","swap":"replaced","window_ms":41.5}"#,
        );
        for (swap, end) in [
            (SwapKind::Found, ", as before)"),
            (SwapKind::Loaded, "000012)"),
            (SwapKind::InPlace, ", swapped in place)"),
        ] {
            assert!(served(swap, None).to_string().ends_with(end));
        }
    }

    #[test]
    fn what_a_canary_shows_is_told() {
        let tried = |accepted, difference, best_loss| {
            Event::Canary(CanaryTried {
                server: SERVER,
                generation: 12,
                accepted,
                shown: CanaryShown {
                    loss: 3.5,
                    base_loss: 4.0,
                    best_loss,
                    difference,
                    base_difference: 0.125,
                },
            })
        };
        check(
            &tried(true, 0.5, None),
            "canary of generation 12 on http://a:8000: 3.5000 nats a token, the base 4.0000",
            r#"{"event":"canary","server":"http://a:8000","generation":12,"accepted":true,"loss":3.5,"base_loss":4.0,"best_loss":null,"difference":0.5,"base_difference":0.125}"#,
        );
        let rejected = tried(false, 0.5, Some(3.0)).to_string();
        assert!(
            rejected.contains("the best generation 3.0000; more than 1 % worse"),
            "{rejected}"
        );
        let same = tried(true, 0.125, None).to_string();
        assert!(
            same.ends_with("it answers as the base does, as if it corrected nothing"),
            "{same}"
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_the_generation() {
        let failed = |generation, retried| {
            Event::NotifyFailed(NotifyFailed {
                server: SERVER,
                name: "qera",
                generation,
                retried,
                message: "cannot be reached: no".into(),
            })
        };
        check(
            &failed(Some(12), true),
            "warning: --notify: http://a:8000 cannot be reached: no; generation 12 is not served as qera, it is tried again",
            r#"{"event":"notify-failed","server":"http://a:8000","name":"qera","generation":12,"retried":true,"message":"cannot be reached: no"}"#,
        );
        let stays = failed(Some(12), false).to_string();
        assert!(
            stays.ends_with("it is not tried again with this one"),
            "{stays}"
        );
        let early = failed(None, true).to_string();
        assert!(early.ends_with("cannot be reached: no"), "{early}");
    }

    #[test]
    fn a_line_of_status_says_what_is_served_and_what_is_wrong() {
        let mut status = ServerStatus {
            server: SERVER.into(),
            name: "qera".into(),
            ..ServerStatus::default()
        };
        assert_eq!(
            status.to_string(),
            "http://a:8000 serves no generation as qera"
        );
        status.generation = Some(11);
        status.rejected = vec![12];
        status.problem = Some("cannot be reached: no".into());
        assert_eq!(
            status.to_string(),
            "http://a:8000 serves generation 11 as qera; generation 12 was worse on the canary's text; it cannot be reached: no"
        );
    }
}
