//! A server that answers as vLLM 0.32 does, in its words, as far as it is asked here; what goes
//! wrong is scripted.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use qera_tests::daemon::PATIENCE;
use serde_json::{Value, json};

use super::received::Received;

pub(super) const MODELS: &str = "/v1/models";
pub(super) const LOAD: &str = "/v1/load_lora_adapter";
pub(super) const UNLOAD: &str = "/v1/unload_lora_adapter";
pub(super) const COMPLETIONS: &str = "/v1/completions";

/// What the server does instead of answering.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// These bytes, then the connection is closed.
    Bytes(Vec<u8>),
    /// A status and a body.
    Status(u16, String),
    /// The answer redirects to this address.
    Redirect(String),
    /// More than any answer has.
    Huge,
    /// Nothing, until the server is dropped.
    Hang,
    /// None: the answer that it should be.
    Nothing,
}

/// A fault at a path.
#[derive(Debug)]
struct Scripted {
    path: &'static str,
    fault: Fault,
    /// How often it still happens.
    left: usize,
}

#[derive(Debug)]
struct Adapter {
    name: String,
    path: String,
    /// Whether the engine has it, or only the list.
    in_engine: bool,
}

#[derive(Debug, Default)]
struct State {
    adapters: Vec<Adapter>,
    received: Vec<Received>,
    faults: VecDeque<Scripted>,
    /// The loss that each generation gives; 1.0 for those that are not listed.
    losses: BTreeMap<u64, f64>,
    /// `--max-lora-rank`.
    max_rank: u64,
    /// Adapters that the engine has room for.
    room: usize,
    /// A name under which no generation newer than this one is loaded.
    stuck: Option<StuckName>,
    /// Whether it has our plugin.
    has_plugin: bool,
}

#[derive(Debug)]
struct StuckName {
    name: String,
    last: u64,
}

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// On a port of its own.
    pub(super) fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap())
    }

    /// On this address: with nothing loaded, as after a restart.
    pub(super) fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            max_rank: 16,
            room: 2,
            ..State::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            move || accept(&listener, &state, &stop)
        });
        Self {
            address,
            state,
            stop,
            thread: Some(thread),
        }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `vllm=URL`, and more.
    pub(super) fn option(&self, more: &str) -> String {
        format!("vllm={},poll=0.2{more}", self.url())
    }

    /// The next so many requests of a path go wrong.
    pub(super) fn fail(&self, path: &'static str, times: usize, fault: Fault) {
        let scripted = Scripted {
            path,
            fault,
            left: times,
        };
        self.state.lock().unwrap().faults.push_back(scripted);
    }

    pub(super) fn set_loss(&self, generation: u64, loss: f64) {
        self.state.lock().unwrap().losses.insert(generation, loss);
    }

    pub(super) fn set_max_rank(&self, rank: u64) {
        self.state.lock().unwrap().max_rank = rank;
    }

    /// From now on no generation newer than this one is loaded under the name.
    pub(super) fn stick(&self, name: &str, last: u64) {
        let name = name.to_owned();
        self.state.lock().unwrap().stuck = Some(StuckName { name, last });
    }

    pub(super) fn set_room(&self, room: usize) {
        self.state.lock().unwrap().room = room;
    }

    pub(super) fn add_plugin(&self) {
        self.state.lock().unwrap().has_plugin = true;
    }

    /// The requests that came so far, without those that only look.
    pub(super) fn told(&self) -> Vec<String> {
        let received = self.received();
        let briefs = received.iter().map(Received::brief);
        briefs.filter(|brief| brief != "look").collect()
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// The path that a name stands for.
    pub(super) fn root(&self, name: &str) -> Option<String> {
        let state = self.state.lock().unwrap();
        let found = state.adapters.iter().find(|of| of.name == name)?;
        Some(found.path.clone())
    }

    /// Somebody else has loaded another path under this name.
    pub(super) fn move_to(&self, name: &str, path: &Path) {
        let mut state = self.state.lock().unwrap();
        let found = state.adapters.iter_mut().find(|of| of.name == name);
        found.unwrap().path = path.display().to_string();
    }

    /// How often this was told.
    pub(super) fn count(&self, brief: &str) -> usize {
        self.told().iter().filter(|told| *told == brief).count()
    }

    /// Waits until this holds.
    pub(super) fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.told());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until so many looks more came.
    pub(super) fn wait_for_looks(&self, count: usize) {
        let looks = |of: &Self| {
            let received = of.received();
            received.iter().filter(|of| of.path == MODELS).count()
        };
        let enough = looks(self) + count;
        self.wait_until("looks", |of| looks(of) >= enough);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>, stop: &Arc<AtomicBool>) {
    for stream in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let (state, stop) = (Arc::clone(state), Arc::clone(stop));
        let Ok(stream) = stream else { continue };
        std::thread::spawn(move || serve(stream, &state, &stop));
    }
}

/// Reads a request; none where the connection ends before it does.
fn receive(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
        // No HTTP method begins so, but TLS does.
        if !bytes[0].is_ascii_uppercase() {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    let body = serde_json::from_slice(&bytes[end..end + length]).unwrap_or_default();
    Some(Received {
        at: Instant::now(),
        path,
        headers,
        body,
    })
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, stop: &AtomicBool) {
    let Some(request) = receive(&mut stream) else {
        return;
    };
    let fault = {
        let mut state = state.lock().unwrap();
        state.received.push(request.clone());
        state.next_fault(&request.path)
    };
    let answer = match fault {
        None | Some(Fault::Nothing) => state.lock().unwrap().answer(&request),
        Some(Fault::Status(status, body)) => Reply { status, body },
        Some(Fault::Bytes(bytes)) => {
            let _ = stream.write_all(&bytes);
            return;
        }
        Some(Fault::Redirect(to)) => {
            let head = format!("HTTP/1.1 307 x\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            return;
        }
        Some(Fault::Huge) => {
            let _ = stream.write_all(b"HTTP/1.1 200 x\r\nConnection: close\r\n\r\n");
            while stream.write_all(&[b' '; 1 << 12]).is_ok() {}
            return;
        }
        Some(Fault::Hang) => {
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            return;
        }
    };
    let head = format!(
        "HTTP/1.1 {} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(answer.body.as_bytes());
}

#[derive(Debug)]
struct Reply {
    status: u16,
    body: String,
}

fn error(status: u16, kind: &str, message: &str) -> Reply {
    let error = json!({"message": message, "type": kind, "param": null, "code": status});
    Reply {
        status,
        body: json!({ "error": error }).to_string(),
    }
}

fn fine(body: impl ToString) -> Reply {
    Reply {
        status: 200,
        body: body.to_string(),
    }
}

impl State {
    fn next_fault(&mut self, path: &str) -> Option<Fault> {
        let at = self.faults.iter().position(|of| of.path == path)?;
        let scripted = &mut self.faults[at];
        scripted.left -= 1;
        let fault = scripted.fault.clone();
        if scripted.left == 0 {
            self.faults.remove(at);
        }
        Some(fault)
    }

    fn answer(&mut self, request: &Received) -> Reply {
        let text = |key: &str| request.body[key].as_str().unwrap_or_default().to_owned();
        match request.path.as_str() {
            MODELS => self.models(),
            LOAD => self.load(
                &text("lora_name"),
                &text("lora_path"),
                request.body["load_inplace"] == true,
            ),
            UNLOAD => self.unload(&text("lora_name")),
            COMPLETIONS => self.complete(&text("model"), &text("prompt")),
            _ => Reply {
                status: 404,
                body: r#"{"detail":"Not Found"}"#.into(),
            },
        }
    }

    fn models(&self) -> Reply {
        let base = json!({"id": "m", "object": "model", "root": "/m", "parent": null});
        let adapters = self
            .adapters
            .iter()
            .map(|of| json!({"id": of.name, "object": "model", "root": of.path, "parent": "m"}));
        let all: Vec<Value> = [base].into_iter().chain(adapters).collect();
        let mut list = json!({"object": "list", "data": all});
        if self.has_plugin {
            list["qera"] = json!({"plugin": "0.1.0", "swaps_in_place": true});
        }
        fine(list)
    }

    fn load(&mut self, name: &str, path: &str, in_place: bool) -> Reply {
        let known = self.adapters.iter().position(|of| of.name == name);
        if known.is_some() && !in_place {
            return error(
                400,
                "InvalidUserInput",
                &format!(
                    "The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True."
                ),
            );
        }
        if self.stuck.as_ref().is_some_and(|stuck| {
            let number = path.rsplit('/').next().and_then(|of| of.parse().ok());
            stuck.name == name && number > Some(stuck.last)
        }) {
            return error(500, "InternalServerError", "the engine is stuck");
        }
        let config = std::fs::read(Path::new(path).join("adapter_config.json"));
        let Ok(config) = config else {
            let said = format!("Loading lora {name} failed: No adapter found for {path}");
            return error(404, "NotFoundError", &said);
        };
        let config: Value = serde_json::from_slice(&config).unwrap();
        let rank = config["r"].as_u64().unwrap();
        if rank > self.max_rank {
            let max = self.max_rank;
            let said = format!("LoRA rank {rank} is greater than max_lora_rank {max}.");
            return error(500, "InternalServerError", &said);
        }
        if let Some(at) = known {
            self.adapters.remove(at);
        }
        self.adapters.push(Adapter {
            name: name.into(),
            path: path.into(),
            in_engine: true,
        });
        self.make_room(name);
        fine(format!(
            "Success: LoRA adapter '{name}' added successfully."
        ))
    }

    /// The engine puts aside what it has no room for, the oldest first, but not this one.
    fn make_room(&mut self, but: &str) {
        let in_engine = self.adapters.iter().filter(|of| of.in_engine).count();
        let surplus = in_engine.saturating_sub(self.room);
        let others = self.adapters.iter_mut();
        let others = others.filter(|of| of.in_engine && of.name != but);
        others.take(surplus).for_each(|of| of.in_engine = false);
    }

    fn unload(&mut self, name: &str) -> Reply {
        let Some(at) = self.adapters.iter().position(|of| of.name == name) else {
            let said = format!("The lora adapter '{name}' cannot be found.");
            return error(404, "NotFoundError", &said);
        };
        if !self.adapters[at].in_engine {
            let said = format!("Failed to remove lora adapter '{name}' from the engine.");
            return error(500, "InternalServerError", &said);
        }
        self.adapters.remove(at);
        fine(format!(
            "Success: LoRA adapter '{name}' removed successfully."
        ))
    }

    fn complete(&mut self, model: &str, prompt: &str) -> Reply {
        let loss = match self.adapters.iter_mut().find(|of| of.name == model) {
            Some(adapter) => {
                adapter.in_engine = true;
                let number = adapter.path.rsplit('/').next().unwrap().parse().unwrap();
                self.losses.get(&number).copied().unwrap_or(1.0)
            }
            None if model == "m" => 2.0,
            None => {
                let said = format!("The model `{model}` does not exist.");
                return error(404, "NotFoundError", &said);
            }
        };
        self.make_room(model);
        let words = prompt.split_whitespace().skip(1);
        let tokens = words.map(|word| json!({"7": {"logprob": -loss, "decoded_token": word}}));
        let logprobs: Vec<Value> = [Value::Null].into_iter().chain(tokens).collect();
        fine(json!({"choices": [{"text": "x", "prompt_logprobs": logprobs}]}))
    }
}
