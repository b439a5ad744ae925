//! Several requests of one client answered together: by one run, where the model allows it.
//!
//! A model whose inputs and outputs all begin with the same named axis takes what several requests
//! give as rows of one batch: their tensors are laid one after the other along that axis, and the
//! outputs cut up again. That every row is a request of its own, which no shape tells, is said by who
//! lets requests come together. What does not fit is run alone, and what goes wrong in a run for
//! many is run again for each, so that nobody's mistake is another's.
//!
//! Runs are for 2, 4, 8… requests: so few layouts, one for each number of rows, can be made ready
//! beforehand.

use lethe_engine::tensor::Buffer;
use lethe_engine::{DataType, Dim, Session, Tensor, Value, ValueInfo};

use crate::handler::{Handler, Model, Prepared, Response};
use crate::message::{Answer, Call};
use crate::problem::Problem;

/// Inputs or outputs of one request.
type Values = Vec<(String, Value)>;

impl Handler {
    /// Answers what a host asks.
    ///
    /// # Errors
    /// When there is no other answer.
    pub fn answer_call(&self, call: &Call) -> Result<Answer, Problem> {
        Ok(match call {
            Call::Http(http) => Answer::Http(self.handle_shared(&http.request(), &http.body)),
            Call::Infer(inputs) => Answer::Outputs(self.only_model()?.run(inputs, None)?),
            Call::Together(calls) => Answer::Together(self.answer_calls(calls)),
        })
    }

    /// Answers several requests, in order.
    fn answer_calls(&self, calls: &[Call]) -> Vec<Answer> {
        let mut answers: Vec<(usize, Answer)> = Vec::with_capacity(calls.len());
        let mut left: Vec<(usize, Item<'_>)> = Vec::with_capacity(calls.len());
        for (i, call) in calls.iter().enumerate() {
            match self.item(call) {
                Some(Ok(item)) => left.push((i, item)),
                Some(Err(problem)) => answers.push((i, Answer::Http(problem.into()))),
                None => {
                    let answer = self.answer_call(call);
                    answers.push((i, answer.unwrap_or_else(Answer::Problem)));
                }
            }
        }
        while !left.is_empty() {
            let (alike, others) = alike(left);
            left = others;
            let mut rest = &alike[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(1 << rest.len().ilog2());
                rest = later;
                let items: Vec<&Item<'_>> = now.iter().map(|(_, item)| item).collect();
                let places = now.iter().map(|&(i, _)| i);
                answers.extend(places.zip(answer_items(&items)));
            }
        }
        answers.sort_unstable_by_key(|&(i, _)| i);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// A call for one run, as far as it was understood; `None` where it asks for something else.
    fn item<'a>(&'a self, call: &'a Call) -> Option<Result<Item<'a>, Problem>> {
        match call {
            Call::Http(http) => Some(self.prepare(http)?.map(Item::Http)),
            Call::Infer(inputs) => Some(Ok(Item::Infer(self.only_model().ok()?, inputs))),
            Call::Together(_) => None,
        }
    }

    fn only_model(&self) -> Result<&Model, Problem> {
        self.models().first().ok_or_else(Problem::no_model)
    }
}

/// One request for a run.
enum Item<'a> {
    Http(Prepared<'a>),
    Infer(&'a Model, &'a [(String, Value)]),
}

impl Item<'_> {
    fn model(&self) -> &Model {
        match self {
            Self::Http(prepared) => prepared.model,
            Self::Infer(model, _) => model,
        }
    }

    fn inputs(&self) -> &[(String, Value)] {
        match self {
            Self::Http(prepared) => &prepared.inputs,
            Self::Infer(_, inputs) => inputs,
        }
    }

    fn wanted(&self) -> Option<Vec<&str>> {
        match self {
            Self::Http(prepared) => prepared.wanted(),
            Self::Infer(..) => None,
        }
    }

    /// Whether the two can be rows of one batch.
    fn goes_with(&self, other: &Self) -> bool {
        let alike = |(a, b): (&(String, Value), &(String, Value))| {
            let (Value::Tensor(x), Value::Tensor(y)) = (&a.1, &b.1) else {
                return false;
            };
            let tails = (x.shape().split_first(), y.shape().split_first());
            let (Some((_, x_tail)), Some((_, y_tail))) = tails else {
                return false;
            };
            a.0 == b.0 && x.data_type() == y.data_type() && x_tail == y_tail
        };
        let (inputs, others) = (self.inputs(), other.inputs());
        std::ptr::eq(self.model(), other.model())
            && takes_rows(self.model().session())
            && inputs.len() == others.len()
            && inputs.iter().zip(others).all(alike)
            && self.wanted() == other.wanted()
    }

    fn run(&self) -> Answer {
        match self {
            Self::Http(prepared) => Answer::Http(prepared.answer().unwrap_or_else(Response::from)),
            Self::Infer(model, inputs) => {
                let outputs = model.run(inputs, None).map(Answer::Outputs);
                outputs.unwrap_or_else(Answer::Problem)
            }
        }
    }

    fn answer(&self, outputs: Values) -> Answer {
        match self {
            Self::Http(prepared) => {
                Answer::Http(prepared.write(&outputs).unwrap_or_else(Response::from))
            }
            Self::Infer(..) => Answer::Outputs(outputs),
        }
    }
}

/// An item with its place among the answers.
type Placed<'a> = (usize, Item<'a>);

/// The first item with those that go with it, and the others.
fn alike(mut items: Vec<Placed<'_>>) -> (Vec<Placed<'_>>, Vec<Placed<'_>>) {
    let first = items.remove(0);
    let (mut alike, others): (Vec<_>, Vec<_>) = items
        .into_iter()
        .partition(|(_, item)| item.goes_with(&first.1));
    alike.insert(0, first);
    (alike, others)
}

/// Answers items that go together.
fn answer_items(items: &[&Item<'_>]) -> Vec<Answer> {
    let together = || -> Option<Vec<Answer>> {
        let [first, _, ..] = items else { return None };
        let inputs: Vec<_> = items.iter().map(|item| item.inputs()).collect();
        let (stacked, rows) = stacked(&inputs)?;
        let wanted = first.wanted();
        let outputs = first.model().run(&stacked, wanted.as_deref()).ok()?;
        let outputs = cut(&outputs, &rows)?;
        let answers = items.iter().zip(outputs);
        Some(
            answers
                .map(|(item, outputs)| item.answer(outputs))
                .collect(),
        )
    };
    together().unwrap_or_else(|| items.iter().map(|item| item.run()).collect())
}

/// Whether all that a model takes and gives begins with the same named axis.
fn takes_rows(session: &Session) -> bool {
    fn rows(info: &ValueInfo) -> Option<&str> {
        match info.value_type.dims.as_deref()?.first()? {
            Dim::Symbol(name) => Some(name),
            Dim::Known(_) | Dim::Unknown => None,
        }
    }
    let mut values = session.inputs().iter().chain(session.outputs());
    let first = values.next().and_then(rows);
    first.is_some() && values.all(|info| rows(info) == first)
}

/// What several requests give, one after the other along the first axis, and how many rows each
/// has there. `None` where they do not fit each other.
fn stacked(requests: &[&[(String, Value)]]) -> Option<(Values, Vec<usize>)> {
    let rows: Option<Vec<usize>> = requests.iter().map(|inputs| rows_of(inputs)).collect();
    let rows = rows?;
    let count = requests.first()?.len();
    let stack = |i: usize| {
        let (name, Value::Tensor(first)) = &requests[0][i] else {
            return None;
        };
        let mut shape = first.shape().to_vec();
        shape[0] = rows.iter().sum();
        let tensors = requests.iter().map(|inputs| inputs[i].1.as_tensor().ok());
        let tensors: Vec<&Tensor> = tensors.collect::<Option<_>>()?;
        let len = tensors.iter().map(|tensor| tensor.bytes().len()).sum();
        let mut bytes = Buffer::zeroed(len);
        let mut end = 0;
        for tensor in tensors {
            let start = end;
            end += tensor.bytes().len();
            bytes[start..end].copy_from_slice(tensor.bytes());
        }
        let tensor = Tensor::from_bytes(first.data_type(), &shape, bytes).ok()?;
        Some((name.clone(), Value::Tensor(tensor)))
    };
    let inputs: Option<Values> = (0..count).map(stack).collect();
    Some((inputs?, rows))
}

/// The rows of a request: as many in each of its tensors, whose elements are whole bytes.
fn rows_of(inputs: &[(String, Value)]) -> Option<usize> {
    let mut rows = inputs.iter().map(|(_, value)| {
        let tensor = value.as_tensor().ok()?;
        let is_bytes = !tensor.data_type().is_sub_byte() && tensor.data_type() != DataType::String;
        is_bytes.then(|| tensor.shape().first().copied())?
    });
    let first = rows.next()??;
    rows.all(|rows| rows == Some(first)).then_some(first)
}

/// Each request's part of what a run gave for all.
fn cut(outputs: &[(String, Value)], rows: &[usize]) -> Option<Vec<Values>> {
    let all: usize = rows.iter().sum();
    let mut parts: Vec<Values> = rows.iter().map(|_| Vec::new()).collect();
    for (name, value) in outputs {
        let output = [(name.clone(), value.clone())];
        let tensor = value.as_tensor().ok()?;
        if rows_of(&output)? != all || all == 0 {
            return None;
        }
        let row_bytes = tensor.bytes().len() / all;
        let mut bytes = tensor.bytes();
        for (part, &rows) in parts.iter_mut().zip(rows) {
            let (own, others) = bytes.split_at(rows * row_bytes);
            bytes = others;
            let mut shape = tensor.shape().to_vec();
            shape[0] = rows;
            let own = Tensor::from_bytes(tensor.data_type(), &shape, Buffer::copy_of(own)).ok()?;
            part.push((name.clone(), Value::Tensor(own)));
        }
    }
    Some(parts)
}

/// Runs a model on these inputs of one request as often as up to `most` requests would have it, so
/// that it has its layouts.
#[cfg(any(target_arch = "wasm32", test))]
pub(crate) fn warm_up(model: &Model, inputs: &[(String, Value)], most: usize) {
    if most < 2 || !takes_rows(model.session()) {
        return;
    }
    for log in (1..=most.ilog2()).rev() {
        if let Some((inputs, _)) = stacked(&vec![inputs; 1 << log]) {
            // A model that does not take so many is asked alone later.
            drop(model.run(&inputs, None));
        }
    }
}

#[cfg(test)]
mod tests;
