//! Requests that run a model.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use lethe_engine::Value;
use lethe_server::handler::{
    INFER, JSON_BYTES, Route, batch, check_body, check_version, json_bytes, query_value, route,
};
use lethe_server::message::{Call, HttpCall};
use lethe_server::{Problem, Request, Response as Answer};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::access::Caller;
use super::body::{self, Coding};
use super::ending::{End, Ending};
use super::loaded::Loaded;
use super::records::Refused;
use super::{Head, Server, refused};
use crate::signing::SigningKey;
use lethe_sandbox::{CallControl, CallReport, outputs_in, response_in, wiped_bytes};

/// The header that asks for a receipt, and that of the answer which has it.
pub(super) const RECEIPT: &str = "lethe-receipt";

/// Requests of one batch that run at the same time.
const BATCH_WIDTH: usize = 4;

/// A request for inference.
pub(super) struct Ask {
    /// Its body is wiped when nobody needs it any more.
    pub(super) http: HttpCall,
    /// Whether the client wants a signed statement of what it got.
    pub(super) wants_receipt: bool,
}

/// An answer, and the receipt that was asked for.
pub(super) struct Answered {
    pub(super) answer: Answer,
    pub(super) receipt: Option<String>,
}

impl From<Answer> for Answered {
    fn from(answer: Answer) -> Self {
        Self {
            answer,
            receipt: None,
        }
    }
}

impl Ask {
    /// As a client would post it.
    pub(super) fn json(body: Vec<u8>) -> Self {
        Self {
            http: HttpCall {
                method: "POST".into(),
                path: INFER.into(),
                content_type: Some("application/json".into()),
                accept: None,
                json_bytes: None,
                body: wiped_bytes(Zeroizing::new(body)),
            },
            wants_receipt: false,
        }
    }
}

/// Answers what [`super::control`] does not.
pub(super) async fn respond(
    server: &Arc<Server>,
    head: &Head,
    body: Body,
) -> Result<Answered, Problem> {
    let route = route(head.method.as_str(), head.path())?;
    let caller = server.caller(&head.headers, head.id(), pattern(&route), head.peer)?;
    let deadline = head.begun + server.settings.request_timeout;
    let limit = server.settings.request_timeout;
    let answer = async {
        let ask = read(server, &caller, head, body).await?;
        match &route {
            Route::Batch => {
                let answer = answer_batch(server, &caller, &ask, deadline).await;
                answer.map(Answered::from)
            }
            route => {
                let name = model_name(server, route, &ask)?.map(Cow::into_owned);
                server.infer(&caller, name.as_deref(), ask, deadline).await
            }
        }
    };
    // Dropping the future tells the run to stop.
    match tokio::time::timeout_at(deadline, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let detail = format!("the request took longer than {limit:?}");
            Err(Problem::new(504, "LETHE-DEADLINE", detail))
        }
    }
}

/// The pattern of a route: what the audit trail shows of a path.
fn pattern(route: &Route<'_>) -> &'static str {
    match route {
        Route::Batch => "POST /api/v1/batch",
        Route::ModelInfer { .. } => "POST /v2/models/{model}/infer",
        _ => "POST /api/v1/infer",
    }
}

async fn read(server: &Server, caller: &Caller, head: &Head, from: Body) -> Result<Ask, Problem> {
    let limit_bytes = server
        .settings
        .max_body_bytes
        .min(caller.limits().body_bytes);
    let coding = Coding::of_request(&head.headers)?;
    let room = &server.bodies;
    let mut body = body::read(from, limit_bytes, room).await?;
    if let Some(coding) = coding {
        let (packed, room) = (body, room.clone());
        let unpack = move || coding.decompress(&packed, limit_bytes, &room);
        let unpacked = tokio::task::spawn_blocking(unpack).await;
        body = unpacked.map_err(|_| not_carried_out())??;
    }
    Ok(Ask {
        http: HttpCall {
            method: head.method.as_str().to_owned(),
            path: head.path().to_owned(),
            content_type: head.text(header::CONTENT_TYPE).map(str::to_owned),
            accept: head.text(header::ACCEPT).map(str::to_owned),
            json_bytes: head.text(JSON_BYTES).map(json_bytes).transpose()?,
            body: body.into_bytes(),
        },
        wants_receipt: head.headers.contains_key(RECEIPT),
    })
}

/// The model that a request names: in its path, its query or its body; `None` where it names none,
/// which a guest explains.
fn model_name<'a>(
    server: &Server,
    route: &Route<'a>,
    ask: &'a Ask,
) -> Result<Option<Cow<'a, str>>, Problem> {
    if let Route::ModelInfer { name, version } = route {
        check_version(name, version.as_deref())?;
        return Ok(Some(name.clone()));
    }
    if let Some(name) = query_value(&ask.http.path, "model")? {
        return Ok(Some(name));
    }
    if server.repository.only().is_some() {
        return Ok(None);
    }
    Ok(model_in(&ask.http))
}

/// The model that a request's JSON names.
pub(super) fn model_in(http: &HttpCall) -> Option<Cow<'_, str>> {
    /// The one field of a request that the host looks at.
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        model: Cow<'a, str>,
    }
    let body = &http.body[..];
    let json = match http.json_bytes {
        Some(len) => body.get(..usize::try_from(len).ok()?)?,
        None => body,
    };
    let named = serde_json::from_slice::<Named<'_>>(json).ok();
    named.map(|named| named.model)
}

/// An answer with its receipt, or a problem where there can be none.
fn signed(model: &Loaded, request: &Request<'_>, answer: Answer, key: &SigningKey) -> Answered {
    match model.receipt(request, &answer, key) {
        Some(receipt) => Answered {
            answer,
            receipt: Some(receipt),
        },
        None => {
            let detail = "the model's file was changed while it was loaded, so no receipt can name \
                          it: load the model again";
            Answer::from(Problem::new(409, "LETHE-RECEIPT", detail)).into()
        }
    }
}

pub(super) fn not_carried_out() -> Problem {
    Problem::new(
        500,
        "LETHE-INTERNAL",
        "the request could not be carried out",
    )
}

/// Raises its flag when dropped: whoever waited for the answer is gone.
#[derive(Debug)]
pub(super) struct StopOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Server {
    /// The model that the body of a request of `/api/v1/infer` names.
    ///
    /// # Errors
    /// Never for JSON.
    pub(super) fn model_in_body<'a>(&self, ask: &'a Ask) -> Result<Option<Cow<'a, str>>, Problem> {
        model_name(self, &Route::Infer, ask)
    }

    /// The model of this name, loaded if need be, if this tenant may use it. To others it is as
    /// unknown as one that is not there. Who gets none is written down.
    pub(super) async fn model(
        self: &Arc<Self>,
        caller: &Caller,
        name: Option<&str>,
    ) -> Result<Arc<Loaded>, Problem> {
        let found = self.find_model(caller, name).await;
        found.inspect_err(|problem| {
            let named = name.filter(|name| self.repository.has(name));
            let refused = Refused {
                model: named.map(str::to_owned),
                ..Refused::from(caller)
            };
            self.records.refuse(&refused, problem);
        })
    }

    async fn find_model(
        self: &Arc<Self>,
        caller: &Caller,
        name: Option<&str>,
    ) -> Result<Arc<Loaded>, Problem> {
        let unknown = |name: &str| {
            let names = self.repository.names();
            let seen = names
                .iter()
                .filter(|name| caller.limits().allows_model(name));
            Problem::unknown_model(name, seen.map(String::as_str))
        };
        let Some(name) = name else {
            // What names no model is answered by any, which says what is missing.
            let any = self.repository.only().or_else(|| {
                let names = self.repository.names();
                names.iter().find_map(|name| self.repository.ready(name))
            });
            let seen = any.filter(|model| caller.limits().allows_model(&model.info().name));
            return seen.ok_or_else(|| unknown(""));
        };
        if !caller.limits().allows_model(name) {
            return Err(unknown(name));
        }
        if let Some(loaded) = self.repository.ready(name) {
            return Ok(loaded);
        }
        let (server, owned) = (self.clone(), name.to_owned());
        let loaded = tokio::task::spawn_blocking(move || server.repository.get(&owned)).await;
        let loaded = loaded.map_err(|_| not_carried_out())?;
        // The list of names is for this tenant's eyes.
        loaded.map_err(|problem| match problem.status {
            404 => unknown(name),
            _ => problem,
        })
    }

    /// Answers a request by the model of this name.
    pub(super) async fn infer(
        self: &Arc<Self>,
        caller: &Caller,
        name: Option<&str>,
        ask: Ask,
        deadline: Instant,
    ) -> Result<Answered, Problem> {
        let request_bytes = ask.http.body.len() as u64;
        let model = self.model(caller, name).await?;
        let signing = ask.wants_receipt.then(|| self.signing.clone());
        let signing = match signing {
            Some(None) => {
                let detail = "receipts need a key that signs them: see the setting signing_key";
                return Err(Problem::new(409, "LETHE-RECEIPT", detail));
            }
            signing => signing.flatten(),
        };
        let asked = name.is_none().then(|| ask.http.clone());
        let ending = Ending::begin(self, caller, &model, request_bytes, deadline, asked);
        let ran = match signing {
            None if model.takes_together(request_bytes) => {
                let call = Call::Http(ask.http);
                let ran = self.run_together(caller, &model, deadline, call).await;
                ran.map(|(answer, report)| (response_in(answer).into(), report))
            }
            signing => {
                self.run(caller, &model, deadline, move |model, control| {
                    let request = ask.http.request();
                    let (answer, report) = model.answer(&request, control);
                    let answered = match signing {
                        None => answer.into(),
                        Some(key) => signed(model, &request, answer, &key),
                    };
                    (answered, report)
                })
                .await
            }
        };
        let (answered, end) = match ran {
            Ok((answered, report)) => {
                let Answered { answer, .. } = &answered;
                let end = End::answered(answer.status, answer.body.len() as u64, report);
                (Ok(answered), end)
            }
            Err(problem) => {
                let end = End::of(&problem, CallReport::default());
                (Err(problem), end)
            }
        };
        ending.finish(end).await?;
        answered
    }

    /// Runs a model on tensors.
    pub(super) async fn infer_values(
        self: &Arc<Self>,
        caller: &Caller,
        name: &str,
        inputs: Vec<(String, Value)>,
        request_bytes: u64,
        deadline: Instant,
    ) -> Result<Vec<(String, Value)>, Problem> {
        let model = self.model(caller, Some(name)).await?;
        let ending = Ending::begin(self, caller, &model, request_bytes, deadline, None);
        let ran = if model.takes_together(request_bytes) {
            let call = Call::Infer(inputs);
            let ran = self.run_together(caller, &model, deadline, call).await;
            ran.map(|(answer, report)| (outputs_in(answer), report))
        } else {
            self.run(caller, &model, deadline, move |model, control| {
                model.run(inputs, control)
            })
            .await
        };
        let (outputs, report) = match ran {
            Ok(ran) => ran,
            Err(problem) => (Err(problem), CallReport::default()),
        };
        let end = match &outputs {
            Ok(outputs) => {
                let answer_bytes = outputs.iter().map(|(_, value)| bytes_of(value)).sum();
                End::answered(200, answer_bytes, report)
            }
            Err(problem) => End::of(problem, report),
        };
        ending.finish(end).await?;
        outputs
    }

    /// Waits for a turn and runs `work` on a thread that may block. If this future is dropped, the
    /// run is told to stop; its turn ends when it does.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        caller: &Caller,
        model: &Arc<Loaded>,
        deadline: Instant,
        work: impl FnOnce(&Loaded, &CallControl) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = self.admission.enter(&caller.tenant, deadline).await;
        let permit = permit.map_err(refused)?;
        let stop = StopOnDrop(Arc::default());
        let control = control(caller, deadline, 1, &stop);
        let model = model.clone();
        let (done, ran) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let ran = work(&model, &control);
            drop(permit);
            // Nobody may be waiting any more.
            drop(done.send(ran));
            model.open_ahead();
        });
        ran.await.map_err(|_| not_carried_out())
    }
}

/// What `runs` runs that begin now may take, until a deadline that is theirs all.
pub(super) fn control(
    caller: &Caller,
    deadline: Instant,
    runs: u32,
    stop: &StopOnDrop,
) -> CallControl {
    let limits = caller.limits();
    let longest = Duration::from_millis(limits.compute_ms).saturating_mul(runs);
    let end = Instant::now().checked_add(longest);
    CallControl {
        deadline: Some(end.map_or(deadline, |end| deadline.min(end)).into_std()),
        memory_bytes: Some(usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX)),
        stop: stop.0.clone(),
    }
}

fn bytes_of(value: &Value) -> u64 {
    match value {
        Value::Tensor(tensor) => tensor.bytes().len() as u64,
        _ => 0,
    }
}

/// Each request of a batch in an instance of its own, some at the same time, answers in order. They
/// are held together until they are sent, and so may not be larger together than a body.
async fn answer_batch(
    server: &Arc<Server>,
    caller: &Caller,
    ask: &Ask,
    deadline: Instant,
) -> Result<Answer, Problem> {
    let http = &ask.http;
    check_body(
        http.content_type.as_deref(),
        http.body.len() as u64,
        u64::MAX,
    )?;
    let requests = batch::requests(&http.body)?;
    let items: Vec<BoxFuture<'static, _>> = requests
        .into_iter()
        .map(|text| {
            let item = Ask::json(text.get().as_bytes().to_vec());
            let (server, caller) = (server.clone(), caller.clone());
            async move {
                let name = server.model_in_body(&item)?.map(Cow::into_owned);
                server.infer(&caller, name.as_deref(), item, deadline).await
            }
            .boxed()
        })
        .collect();
    let mut answers = stream::iter(items).buffered(BATCH_WIDTH);
    let mut responses = batch::Responses::default();
    let most_bytes = server.settings.max_body_bytes;
    let (mut count, mut len_bytes) = (0, 0);
    let mut part = server.bodies.take(0)?;
    while let Some(answer) = answers.next().await {
        let answer = answer.map_or_else(Answer::from, |answered: Answered| answered.answer);
        count += 1;
        len_bytes += answer.body.len() as u64;
        if len_bytes > most_bytes {
            // What still runs is told to stop.
            let detail = format!(
                "the first {count} answers take {len_bytes} bytes: the limit is {most_bytes} bytes \
                 for all of a batch"
            );
            return Err(Problem::new(422, "LETHE-BATCH-SIZE", detail));
        }
        part.grow(answer.body.len())?;
        responses.push(&answer.body);
    }
    let mut all = responses.finish();
    all.body = part.keep(all.body);
    Ok(all)
}
