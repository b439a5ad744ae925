//! A server that a test starts, and that ends with it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process_group};

/// `lethe` with this cache, which is the same for all tests of a program. The guest's code is in it:
/// else the first servers would all compile it, side by side.
pub(crate) fn program(cache: &Path) -> Command {
    static PREPARED: OnceLock<()> = OnceLock::new();
    let program = || {
        let mut lethe = Command::new(env!("CARGO_BIN_EXE_lethe"));
        lethe.env("LETHE_CACHE_DIR", cache);
        lethe
    };
    PREPARED.get_or_init(|| {
        let output = program().arg("prepare").output().unwrap();
        assert!(output.status.success(), "{output:?}");
    });
    program()
}

/// A process that answers at an address.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) address: String,
    /// What it printed for who loads models where no keys are set, as a header has it.
    #[allow(dead_code, reason = "not all programs of tests load models")]
    pub(crate) bearer: Option<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // What leads a group of processes ends with them. Where it ended before, its number may be
        // another's by now.
        let runs = matches!(self.process.try_wait(), Ok(None));
        if let Some(group) = Pid::from_raw(self.process.id() as i32).filter(|_| runs) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Server {
    /// Starts `lethe serve`, or what says the same, and waits until it listens.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let address = line.trim().split_once("://").map(|(_, address)| address);
        let address = address.unwrap_or_else(|| panic!("{command:?}: {line:?}"));
        // Printed in one piece with the address.
        let rest = String::from_utf8_lossy(out.buffer()).into_owned();
        let bearer = rest
            .lines()
            .find_map(|line| line.split_once("Authorization: "));
        Self {
            address: address.to_owned(),
            process,
            bearer: bearer.map(|(_, bearer)| bearer.to_owned()),
        }
    }
}
