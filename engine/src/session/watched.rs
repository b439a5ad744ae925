//! Runs that somebody looks into: with pauses between steps, or with a clock around each.

use super::Session;
use crate::error::Error;
use crate::operator::InputValue;
use crate::plan::{Pause, Profile};
use crate::tensor::Value;

impl Session {
    /// Runs the model as [`Session::run_async`] does, with pauses between the steps of a run on the CPU, for
    /// threads that have other things to do: after each step `pause` says whether to wait, and for what. An
    /// error of that ends the run.
    ///
    /// # Errors
    /// As [`Session::run_async`], and those of the pauses.
    pub async fn run_with_pauses(
        &self,
        inputs: &[(&str, Value)],
        wanted: Option<&[&str]>,
        pause: &dyn Fn() -> Option<Pause>,
    ) -> Result<Vec<(String, Value)>, Error> {
        if let Some(other) = self.overriding(inputs)? {
            return Box::pin(other.run_with_pauses(inputs, wanted, pause)).await;
        }
        if self.accelerator.is_some() {
            return self.run_async(inputs, wanted).await;
        }
        let order = self.order(wanted)?;
        let ordered = self.ordered(inputs)?;
        self.check(&ordered)?;
        let mut made: Vec<Option<Value>> = vec![None; self.outputs.len()];
        let mut state = self.take_state();
        let options = self.run_options();
        let mut take = |i: usize, value: InputValue<'_>| {
            if order.contains(&i) {
                made[i] = value.to_value();
            }
            Ok(())
        };
        let run = self
            .plan
            .run_with_pauses(&ordered, &mut state, options, pause, &mut take);
        let result = run.await;
        self.give_state(state);
        result?;
        self.named(&order, &mut made)
    }

    /// Runs once, always on the CPU, adding the time of each step of the plan to `profile` by a clock.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_profiled(
        &self,
        inputs: &[(&str, Value)],
        wanted: Option<&[&str]>,
        profile: &mut Profile,
        clock: &dyn Fn() -> u64,
    ) -> Result<Vec<(String, Value)>, Error> {
        if let Some(other) = self.overriding(inputs)? {
            return other.run_profiled(inputs, wanted, profile, clock);
        }
        let order = self.order(wanted)?;
        let inputs = self.ordered(inputs)?;
        self.check(&inputs)?;
        let mut made: Vec<Option<Value>> = vec![None; self.outputs.len()];
        let mut take = |i: usize, value: InputValue<'_>| {
            if order.contains(&i) {
                made[i] = value.to_value();
            }
            Ok(())
        };
        let mut state = self.take_state();
        let profile = Some((profile, clock));
        let options = self.run_options();
        let plan = &self.plan;
        let result = self
            .budget
            .keep(|| plan.run_profiled(&inputs, &mut state, options, profile, &mut take));
        self.give_state(state);
        result?;
        self.named(&order, &mut made)
    }
}
