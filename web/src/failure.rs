//! Errors on their way to JavaScript.

use js_sys::Reflect;
use wasm_bindgen::JsValue;

/// What went wrong, with a stable code: thrown as a JavaScript `Error` whose `code` it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// As [`lethe_engine::Error::code`].
    pub code: &'static str,
    /// One line for a person.
    pub message: String,
}

impl Failure {
    /// The device that was asked for is not there.
    pub(crate) fn device(message: impl Into<String>) -> Self {
        Self {
            code: "LETHE-DEVICE",
            message: message.into(),
        }
    }

    /// A setting has no such value.
    pub(crate) fn option(message: impl Into<String>) -> Self {
        Self {
            code: "LETHE-OPTION",
            message: message.into(),
        }
    }

    /// Memory that the browser does not give.
    pub(crate) fn memory(needed_bytes: usize) -> Self {
        Self {
            code: "LETHE-BUDGET",
            message: format!("no memory for {needed_bytes} more bytes"),
        }
    }
}

impl From<lethe_engine::Error> for Failure {
    fn from(error: lethe_engine::Error) -> Self {
        Self {
            code: error.code(),
            message: error.to_string(),
        }
    }
}

impl From<lethe_engine::OpError> for Failure {
    fn from(error: lethe_engine::OpError) -> Self {
        Self {
            code: error.code(),
            message: error.to_string(),
        }
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> JsValue {
        let error = js_sys::Error::new(&failure.message);
        // Setting a property of a fresh object cannot fail.
        let _ = Reflect::set(&error, &"code".into(), &failure.code.into());
        error.into()
    }
}
