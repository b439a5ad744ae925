//! What runs a model: the engine in this process, or a sandbox around it.

use lethe_engine::{Error, Session, Value, ValueInfo};
use lethe_server::{Problem, TensorInfo};

use lethe_sandbox::Sandbox;

/// A run that failed.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// In the engine.
    #[error(transparent)]
    Engine(#[from] Error),
    /// In a sandbox.
    #[error(transparent)]
    Sandbox(#[from] Problem),
}

impl RunnerError {
    /// The stable code.
    pub fn code(&self) -> &str {
        match self {
            Self::Engine(error) => error.code(),
            Self::Sandbox(problem) => &problem.code,
        }
    }
}

/// A loaded model, wherever it is.
pub trait Runner: Sync {
    /// The inputs that a run needs, in the model's order.
    fn inputs(&self) -> &[ValueInfo];

    /// The inputs that have defaults.
    fn optional_inputs(&self) -> &[ValueInfo];

    /// The outputs, in the model's order.
    fn outputs(&self) -> &[ValueInfo];

    /// Runs the model on named inputs and gives all outputs by name.
    ///
    /// # Errors
    /// Where inputs do not fit the model, a node fails or a limit is exceeded.
    fn run(&self, inputs: &[(&str, Value)]) -> Result<Vec<(String, Value)>, RunnerError>;

    /// What is worth a warning of the runs so far.
    fn notes(&self) -> Vec<String> {
        match (self.sandbox(), self.session()) {
            (Some(sandbox), _) => sandbox.notes(),
            (None, Some(session)) => {
                let split = session.split_names();
                split.iter().map(ToString::to_string).collect()
            }
            (None, None) => Vec::new(),
        }
    }

    /// The sandbox, where the model runs in one.
    fn sandbox(&self) -> Option<&Sandbox> {
        None
    }

    /// The session, where the model runs in this process.
    fn session(&self) -> Option<&Session> {
        None
    }
}

impl Runner for Session {
    fn inputs(&self) -> &[ValueInfo] {
        Session::inputs(self)
    }

    fn optional_inputs(&self) -> &[ValueInfo] {
        Session::optional_inputs(self)
    }

    fn outputs(&self) -> &[ValueInfo] {
        Session::outputs(self)
    }

    fn run(&self, inputs: &[(&str, Value)]) -> Result<Vec<(String, Value)>, RunnerError> {
        Ok(Session::run(self, inputs)?)
    }

    fn session(&self) -> Option<&Session> {
        Some(self)
    }
}

/// A model in a sandbox: every run gets an instance of its own.
#[derive(Debug)]
pub struct SandboxRunner {
    sandbox: Sandbox,
    inputs: Vec<ValueInfo>,
    optional_inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
}

impl SandboxRunner {
    /// Runs in `sandbox`.
    pub fn new(sandbox: Sandbox) -> Self {
        let infos = |infos: &[TensorInfo]| infos.iter().map(TensorInfo::value_info).collect();
        let info = sandbox.info();
        Self {
            inputs: infos(&info.inputs),
            optional_inputs: infos(&info.optional_inputs),
            outputs: infos(&info.outputs),
            sandbox,
        }
    }
}

impl Runner for SandboxRunner {
    fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    fn optional_inputs(&self) -> &[ValueInfo] {
        &self.optional_inputs
    }

    fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[(&str, Value)]) -> Result<Vec<(String, Value)>, RunnerError> {
        let inputs = inputs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        Ok(self.sandbox.run(inputs.collect())?)
    }

    fn sandbox(&self) -> Option<&Sandbox> {
        Some(&self.sandbox)
    }
}
