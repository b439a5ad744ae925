//! Requests over a WebSocket: `WS /api/v1/stream`.
//!
//! ```text
//! client ► {"model", "inputs", …, "id": "a"}     an inference request
//!          {"requests": […], "id": "b"}          a batch
//!          {"cancel": "b"}                       ends a request of that name
//! server ► {"id": "a", "final": true, "result": answer}
//!          {"id": "b", "final": false, "index": 0, "result": answer}   as each is ready
//!          {"id": "b", "final": true}
//!          {"id": "a", "final": true, "error": problem}
//! ```
//!
//! [`MOST_IN_FLIGHT`] requests of a connection run or wait at the same time; beyond, no more is
//! read until one has ended, so that a client which floods fills its own socket and nothing else.
//! Every request has an instance of its own, as over HTTP; with `?session=MODEL` they share one: see
//! [`super::session`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use lethe_server::handler::{batch, query_value};
use lethe_server::{Problem, Response as Answer};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Server;
use super::access::Caller;
use super::body::{self, Inflow, Part};
use super::inference::Ask;
use super::listener::Place;
use super::session::{self, Session, Turn};

/// Requests of one connection that run or wait at the same time.
const MOST_IN_FLIGHT: usize = 16;
/// Answers that wait for a client to read them; then the runs wait.
const MOST_UNSENT: usize = 16;
/// Bytes of answers to requests that do so; one that is larger waits until no other does.
const MOST_UNSENT_BYTES: u32 = 16 << 20;
/// What a client's ping or pong takes beside its data (RFC 6455, 5.2): two bytes and a mask.
const CONTROL_FRAME_BYTES: usize = 6;
/// How often a silent client is asked whether it is there; it is let go after twice that.
const PING: Duration = Duration::from_secs(20);

/// Opens the stream, for whoever may.
pub(super) async fn open(
    State(server): State<Arc<Server>>,
    Extension(place): Extension<Place>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let id = server.request_id(&headers);
    let id = id.to_str().unwrap_or_default();
    let mut caller = match server.caller(&headers, id, "WS /api/v1/stream", place.peer) {
        Ok(caller) => caller,
        Err(problem) => return super::with_headers(problem, None),
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) => {
            let detail = "this path takes a WebSocket: GET with Upgrade: websocket";
            let mut response = body::http(Problem::new(426, "LETHE-UPGRADE", detail).into(), None);
            let websocket = axum::http::HeaderValue::from_static("websocket");
            response
                .headers_mut()
                .insert(axum::http::header::UPGRADE, websocket);
            return response;
        }
    };
    let session = match session(&server, &mut caller, &uri).await {
        Ok(session) => session,
        Err(problem) => return super::with_headers(problem, None),
    };
    let limit = server
        .settings
        .max_body_bytes
        .min(caller.limits().body_bytes);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    place.inflow.begin(&server.bodies);
    upgrade
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(move |socket| async move {
            let (to, from) = socket.split();
            let (queue, unsent) = mpsc::channel(MOST_UNSENT);
            let answers = Answers {
                queue,
                bytes: Arc::new(Semaphore::new(MOST_UNSENT_BYTES as usize)),
            };
            let sending = tokio::spawn(send(to, unsent));
            receive(server, caller, session, from, &place.inflow, answers).await;
            // It ends when the last answer is sent, or the client is gone.
            drop(sending.await);
            drop(place);
        })
        .into_response()
}

/// The session that the address asks for.
async fn session(
    server: &Arc<Server>,
    caller: &mut Caller,
    uri: &Uri,
) -> Result<Option<Session>, Problem> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let Some(model) = query_value(path, "session")? else {
        return Ok(None);
    };
    caller.route = session::ROUTE;
    Session::open(server, caller.clone(), &model)
        .await
        .map(Some)
}

/// What is sent to a client.
enum Outgoing {
    Text(Zeroizing<Vec<u8>>),
    Result(Zeroizing<Vec<u8>>, Unsent),
    Pong(bytes::Bytes),
    Close(u16, &'static str),
}

/// What an answer takes until it is sent: of the room for all bodies, and of the bytes that a
/// connection may leave unsent.
struct Unsent {
    _part: Option<Part>,
    _bytes: Option<OwnedSemaphorePermit>,
}

/// The client has gone.
struct Gone;

/// Where answers wait for a client to read them.
#[derive(Clone)]
struct Answers {
    queue: mpsc::Sender<Outgoing>,
    bytes: Arc<Semaphore>,
}

impl Answers {
    async fn send(&self, message: Outgoing) -> Result<(), Gone> {
        self.queue.send(message).await.map_err(|_| Gone)
    }

    /// Sends the answer to a request, or of one of a batch, when there is room for it.
    async fn result(
        &self,
        server: &Server,
        id: &str,
        index: Option<usize>,
        answer: Answer,
    ) -> Result<(), Gone> {
        // Many clients may each leave their answers unread.
        let (answer, part) = match server.bodies.take(answer.body.len()) {
            Ok(part) => (answer, Some(part)),
            Err(problem) => (Answer::from(problem), None),
        };
        let len = u32::try_from(answer.body.len()).unwrap_or(u32::MAX);
        let bytes = self.bytes.clone();
        let bytes = bytes.acquire_many_owned(len.min(MOST_UNSENT_BYTES)).await;
        let unsent = Unsent {
            _part: part,
            // They are never closed.
            _bytes: bytes.ok(),
        };
        let json = result(id, index, &answer);
        drop(answer);
        self.send(Outgoing::Result(json, unsent)).await
    }

    /// Waits until nobody reads any more.
    async fn closed(&self) {
        self.queue.closed().await;
    }
}

async fn send(mut to: SplitSink<WebSocket, Message>, mut unsent: mpsc::Receiver<Outgoing>) {
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    let text = |json: &[u8]| str::from_utf8(json).ok().map(Message::text);
    loop {
        // Given back when it is sent.
        let mut room = None;
        let message = tokio::select! {
            next = unsent.recv() => match next {
                Some(Outgoing::Text(json)) => match text(&json) {
                    Some(message) => message,
                    None => continue,
                },
                Some(Outgoing::Result(json, of_result)) => match text(&json) {
                    Some(message) => {
                        room = Some(of_result);
                        message
                    }
                    None => continue,
                },
                Some(Outgoing::Pong(data)) => Message::Pong(data),
                Some(Outgoing::Close(code, reason)) => {
                    let frame = CloseFrame { code, reason: reason.into() };
                    // The client may be gone already.
                    drop(to.send(Message::Close(Some(frame))).await);
                    return;
                }
                None => return drop(to.close().await),
            },
            _ = ping.tick() => Message::Ping(bytes::Bytes::new()),
        };
        let sent = tokio::time::timeout(2 * PING, to.send(message)).await;
        drop(room);
        if !sent.is_ok_and(|sent| sent.is_ok()) {
            return;
        }
    }
}

/// A message of a client, as far as the host looks at it.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    cancel: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    requests: Option<&'a RawValue>,
}

async fn receive(
    server: Arc<Server>,
    caller: Caller,
    session: Option<Session>,
    mut from: SplitStream<WebSocket>,
    inflow: &Inflow,
    answers: Answers,
) {
    let mut running: JoinSet<String> = JoinSet::new();
    let mut by_id: HashMap<String, AbortHandle> = HashMap::new();
    let mut drain = tokio::time::interval(Duration::from_millis(200));
    let mut heard = Instant::now();
    let mut used = heard;
    let close = loop {
        let is_over = session.as_ref().is_some_and(Session::is_over);
        if is_over && running.is_empty() {
            let why = session::over("the session has ended: its instance was stopped");
            break Some((close_code::ERROR, "the instance was stopped", Some(why)));
        }
        tokio::select! {
            biased;
            Some(ended) = running.join_next() => {
                used = Instant::now();
                if let Ok(id) = ended {
                    by_id.remove(&id);
                }
            }
            message = from.next(), if running.len() < MOST_IN_FLIGHT && !is_over => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) => {
                        let received = Received {
                            text: Zeroizing::new(text.as_bytes().to_vec()),
                            part: inflow.message(),
                        };
                        used = heard;
                        let shared = session.as_ref();
                        start(&server, &caller, shared, received, &answers, &mut running, &mut by_id).await;
                    }
                    Some(Ok(Message::Binary(_))) => {
                        break Some((close_code::UNSUPPORTED, "messages are JSON texts", None));
                    }
                    Some(Ok(Message::Ping(data))) => {
                        inflow.forget(CONTROL_FRAME_BYTES + data.len());
                        drop(answers.send(Outgoing::Pong(data)).await);
                    }
                    Some(Ok(Message::Pong(data))) => inflow.forget(CONTROL_FRAME_BYTES + data.len()),
                    Some(Ok(Message::Close(_))) | None => break None,
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a stream broke off");
                        if let Some(problem) = inflow.refusal() {
                            break Some((close_code::AGAIN, "no room for the message", Some(problem)));
                        }
                        break Some((close_code::PROTOCOL, "not understood, or too large", None));
                    }
                }
            }
            // Nobody reads any more.
            () = answers.closed() => break None,
            _ = drain.tick() => {
                if server.draining.load(Ordering::Relaxed) && running.is_empty() {
                    break Some((close_code::AWAY, "the server stops", None));
                }
                if running.is_empty() && heard.elapsed() > 2 * PING + Duration::from_secs(5) {
                    break Some((close_code::AWAY, "no answer to pings", None));
                }
                if running.len() < MOST_IN_FLIGHT {
                    let longest = server.settings.request_timeout;
                    if inflow.unfinished_for().is_some_and(|time| time > longest) {
                        let detail = format!("a message did not come within {longest:?}");
                        let late = Problem::new(504, "LETHE-DEADLINE", detail);
                        break Some((close_code::POLICY, "too slow", Some(late)));
                    }
                } else {
                    inflow.rest();
                }
                let idle = server.settings.session_idle;
                if session.is_some() && running.is_empty() && used.elapsed() > idle {
                    let why = format!("the session has ended: it rested for more than {idle:?}");
                    let why = session::over(&why);
                    break Some((close_code::AWAY, "rested for too long", Some(why)));
                }
            }
        }
    };
    // Nobody waits for what still runs: dropped, the runs are told to stop.
    drop(running);
    // Before anything is said, for which a client may let us wait.
    if let Some(session) = session {
        session.end().await;
    }
    if let Some((code, reason, problem)) = close {
        if let Some(problem) = problem {
            drop(answers.send(failed("", &problem)).await);
        }
        drop(answers.send(Outgoing::Close(code, reason)).await);
    }
}

/// A message, and its part of the room for all bodies.
struct Received {
    text: Zeroizing<Vec<u8>>,
    part: Option<Part>,
}

async fn start(
    server: &Arc<Server>,
    caller: &Caller,
    session: Option<&Session>,
    received: Received,
    answers: &Answers,
    running: &mut JoinSet<String>,
    by_id: &mut HashMap<String, AbortHandle>,
) {
    let Received { mut text, part } = received;
    let incoming: Incoming<'_> = match serde_json::from_slice(&text) {
        Ok(incoming) => incoming,
        Err(error) => {
            let detail = format!("not a message: {error}");
            let problem = Problem::not_understood("LETHE-JSON", detail);
            return drop(answers.send(failed("", &problem)).await);
        }
    };
    if let Some(id) = incoming.cancel {
        // One that has ended, or never was, needs no answer: its own is there or never comes.
        if let Some(run) = by_id.remove(&*id) {
            run.abort();
            let problem = Problem::new(499, "LETHE-CANCELLED", "the request was given up");
            drop(answers.send(failed(&id, &problem)).await);
        }
        return;
    }
    let id = incoming.id.unwrap_or_default().into_owned();
    if !id.is_empty() && by_id.contains_key(&id) {
        let detail = format!("a request named {id:?} is running");
        let problem = Problem::new(409, "LETHE-REQUEST-ID", detail);
        return drop(answers.send(failed(&id, &problem)).await);
    }
    let items = match incoming
        .requests
        .map(|_| batch::requests(&text))
        .transpose()
    {
        Ok(items) => items.map(|items| {
            let items = items.iter().map(|item| item.get().as_bytes().to_vec());
            items.collect::<Vec<_>>()
        }),
        Err(problem) => return drop(answers.send(failed(&id, &problem)).await),
    };
    let asker = Asker {
        server: server.clone(),
        caller: caller.clone(),
        session: session.cloned(),
    };
    // Taken here, so that turns are in the order of the messages.
    let mut turn = session.map(Session::turn);
    let answers = answers.clone();
    let name = id.clone();
    let run = running.spawn(async move {
        let _held = part;
        match items {
            None => {
                let answer = asker.ask(std::mem::take(&mut text), turn.take()).await;
                // Where the client has gone nothing is left to do.
                drop(match answer {
                    Ok(answer) => answers.result(&asker.server, &name, None, answer).await,
                    Err(problem) => answers.send(failed(&name, &problem)).await,
                });
            }
            Some(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    let answer = asker.ask(item, turn.take()).await;
                    let answer = answer.unwrap_or_else(Answer::from);
                    let sent = answers.result(&asker.server, &name, Some(index), answer);
                    if sent.await.is_err() {
                        return name;
                    }
                }
                drop(answers.send(end(&name)).await);
            }
        }
        name
    });
    if !id.is_empty() {
        by_id.insert(id, run);
    }
}

/// Who asks, and where.
struct Asker {
    server: Arc<Server>,
    caller: Caller,
    session: Option<Session>,
}

impl Asker {
    /// Answers one request, in a session in its turn, or in the next one where it has none.
    async fn ask(
        &self,
        body: Vec<u8>,
        turn: Option<impl Future<Output = Turn>>,
    ) -> Result<Answer, Problem> {
        let Self {
            server,
            caller,
            session,
        } = self;
        let ask = Ask::json(body);
        let deadline = Instant::now() + server.settings.request_timeout;
        let run = async {
            match (session, turn) {
                (None, _) => {
                    let name = server.model_in_body(&ask)?.map(Cow::into_owned);
                    let answered = server.infer(caller, name.as_deref(), ask, deadline).await;
                    answered.map(|answered| answered.answer)
                }
                (Some(session), Some(turn)) => session.infer(turn, ask, deadline).await,
                (Some(session), None) => session.infer(session.turn(), ask, deadline).await,
            }
        };
        let late = |_| Problem::new(504, "LETHE-DEADLINE", "the request took too long");
        tokio::time::timeout_at(deadline, run).await.map_err(late)?
    }
}

fn head(id: &str, is_final: bool) -> Vec<u8> {
    let id = serde_json::to_string(id).expect("a text is JSON");
    format!("{{\"id\":{id},\"final\":{is_final}").into_bytes()
}

fn result(id: &str, index: Option<usize>, answer: &Answer) -> Zeroizing<Vec<u8>> {
    let mut json = Zeroizing::new(head(id, index.is_none()));
    json.reserve_exact(answer.body.len() + 64);
    if let Some(index) = index {
        json.extend_from_slice(format!(",\"index\":{index}").as_bytes());
    }
    let field: &[u8] = if answer.status < 400 {
        b",\"result\":"
    } else {
        b",\"error\":"
    };
    json.extend_from_slice(field);
    json.extend_from_slice(&answer.body);
    json.push(b'}');
    json
}

fn failed(id: &str, problem: &Problem) -> Outgoing {
    let mut json = head(id, true);
    json.extend_from_slice(b",\"error\":");
    json.extend_from_slice(&problem.to_json());
    json.push(b'}');
    Outgoing::Text(Zeroizing::new(json))
}

fn end(id: &str) -> Outgoing {
    let mut json = head(id, true);
    json.push(b'}');
    Outgoing::Text(Zeroizing::new(json))
}
