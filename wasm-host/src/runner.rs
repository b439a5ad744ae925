//! What runs a model: the engine in this process, or a sandbox around it.

use lethe_engine::{Error, Session, Value, ValueInfo};

/// A run that failed.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// In the engine.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl RunnerError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Engine(error) => error.code(),
        }
    }
}

/// A loaded model, wherever it is.
pub trait Runner: Sync {
    /// The inputs that a run needs, in the model's order.
    fn inputs(&self) -> &[ValueInfo];

    /// The outputs, in the model's order.
    fn outputs(&self) -> &[ValueInfo];

    /// Runs the model on named inputs and gives all outputs by name.
    ///
    /// # Errors
    /// Where inputs do not fit the model, a node fails or a limit is exceeded.
    fn run(&self, inputs: &[(&str, Value)]) -> Result<Vec<(String, Value)>, RunnerError>;
}

impl Runner for Session {
    fn inputs(&self) -> &[ValueInfo] {
        Session::inputs(self)
    }

    fn outputs(&self) -> &[ValueInfo] {
        Session::outputs(self)
    }

    fn run(&self, inputs: &[(&str, Value)]) -> Result<Vec<(String, Value)>, RunnerError> {
        Ok(Session::run(self, inputs)?)
    }
}
