//! What a server gives up once it is ready, so that whoever breaks into it finds little.
//!
//! The sandbox keeps a guest in its memory. This is the wall behind that one, for the day on which
//! wasmtime or a native kernel has a hole: the process cannot start programs, look into others, load
//! code into the kernel or open files that it was not given; and it leaves no core dump with
//! requests in it.
//!
//! - [`no_core_dumps`]: resource limit and `PR_SET_DUMPABLE`.
//! - [`confine`]: Landlock for files and TCP ports, seccomp for system calls, no new privileges.
//!
//! What the kernel cannot enforce is left out and reported: [`Hardening`] says what holds.

mod filter;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, RestrictSelfAttr, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use serde::Serialize;

/// Whether other processes of the same user may look into this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dumpable {
    /// As before: debuggers, and the process itself through `/proc/self/mem`.
    Keep,
    /// Nobody but root. The files in `/proc/self` belong to root from then on, so a process that is
    /// not root cannot open `/proc/self/pagemap` any more, with which memory is wiped quickly.
    No,
}

/// Makes sure that no core dump holds what is in memory.
///
/// # Errors
/// When the system refuses.
pub fn no_core_dumps(dumpable: Dumpable) -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    if dumpable == Dumpable::No {
        // Limits do not reach a program that takes core dumps through a pipe; this does.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

/// Whether the process has the rights of root, which no server needs.
pub fn runs_as_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a process keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confinement {
    /// Files and folders to read.
    pub read: Vec<PathBuf>,
    /// Files and folders to read, write, make and remove.
    pub write: Vec<PathBuf>,
    /// Ports to listen on; none for any. What listens already goes on.
    pub tcp_bind: Option<Vec<u16>>,
    /// Ports to connect to; none for any.
    pub tcp_connect: Option<Vec<u16>>,
}

/// What the C library, the runtime and wasmtime read on their own: where it is not there they do
/// without.
const SYSTEM: [&str; 14] = [
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
    "/dev/null",
    // Static programs may find no other way to random numbers; they ask the first whether there are
    // any yet, and read the second.
    "/dev/random",
    "/dev/urandom",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/lib",
    "/usr/lib",
];

/// How far the kernel enforces something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforced {
    /// All of it.
    Fully,
    /// What this kernel knows of it.
    Partly,
    /// Nothing.
    Not,
}

/// What holds from now on, for logs and for the health of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hardening {
    /// The process can gain no rights by starting a program.
    pub no_new_privs: bool,
    /// Landlock: files and ports.
    pub landlock: Enforced,
    /// Landlock's version in this kernel; 0 for none.
    pub landlock_abi: i32,
    /// Threads that run already and that Landlock does not reach. To have none, confine before
    /// threads are started.
    pub free_threads: usize,
    /// System calls are filtered, on all threads.
    pub system_calls: bool,
    /// The process has the rights of root.
    pub root: bool,
}

/// Why a process could not be confined. It may be confined in part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfineError {
    /// A path that it should keep cannot be opened.
    #[error("cannot keep {path}: {reason}")]
    Path {
        /// Which one.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Landlock refused.
    #[error("landlock: {0}")]
    Landlock(String),
    /// The filter of system calls could not be made or set.
    #[error("seccomp: {0}")]
    Seccomp(String),
}

/// Gives up all that is not in `keep`, for good. To be called when files and sockets are open, and
/// best before threads are started.
///
/// # Errors
/// When a path is not there, or the kernel has Landlock or seccomp and refuses them. A kernel that
/// has them not is no error, but reported.
pub fn confine(keep: &Confinement) -> Result<Hardening, ConfineError> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    let refused = |error: landlock::RulesetError| ConfineError::Landlock(error.to_string());
    let status = ruleset(keep)?.restrict_self().map_err(refused)?;
    let system_calls = filter::apply().map_err(ConfineError::Seccomp)?;
    let landlock = match status.ruleset {
        RulesetStatus::FullyEnforced => Enforced::Fully,
        RulesetStatus::PartiallyEnforced => Enforced::Partly,
        RulesetStatus::NotEnforced => Enforced::Not,
    };
    let landlock_abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
        _ => 0,
    };
    let reaches_all = landlock == Enforced::Not || status.all_threads;
    Ok(Hardening {
        no_new_privs: rustix::thread::no_new_privs().unwrap_or(false),
        landlock,
        landlock_abi,
        free_threads: if reaches_all { 0 } else { threads - 1 },
        system_calls,
        root: runs_as_root(),
    })
}

/// The newest of Landlock's versions that this was written for; older kernels do what they can.
const LANDLOCK: ABI = ABI::V5;

fn ruleset(keep: &Confinement) -> Result<RulesetCreated, ConfineError> {
    let refused = |error: landlock::RulesetError| ConfineError::Landlock(error.to_string());
    let all = AccessFs::from_all(LANDLOCK);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .map_err(refused)?;
    if keep.tcp_bind.is_some() {
        ruleset = ruleset.handle_access(AccessNet::BindTcp).map_err(refused)?;
    }
    if keep.tcp_connect.is_some() {
        ruleset = ruleset
            .handle_access(AccessNet::ConnectTcp)
            .map_err(refused)?;
    }
    let mut ruleset = ruleset.create().map_err(refused)?;
    // Programs are neither started from a folder that is read nor from one that is written.
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = all & !BitFlags::from(AccessFs::Execute);
    let system = SYSTEM.map(PathBuf::from);
    let system = system.iter().filter(|path| path.exists());
    let kept = system.chain(&keep.read).map(|path| (path, read));
    let kept = kept.chain(keep.write.iter().map(|path| (path, write)));
    for (path, access) in kept {
        let rule = beneath(path, access)?;
        ruleset = ruleset.add_rule(rule).map_err(refused)?;
    }
    let binds = keep.tcp_bind.iter().flatten();
    let binds = binds.map(|&port| NetPort::new(port, AccessNet::BindTcp));
    let connects = keep.tcp_connect.iter().flatten();
    let connects = connects.map(|&port| NetPort::new(port, AccessNet::ConnectTcp));
    for port in binds.chain(connects) {
        ruleset = ruleset.add_rule(port).map_err(refused)?;
    }
    // Before Linux 7.0 it is this thread and those that it starts.
    ruleset.all_threads(true).map_err(refused)
}

/// A rule for a file or all that is in a folder.
fn beneath(path: &Path, access: BitFlags<AccessFs>) -> Result<PathBeneath<PathFd>, ConfineError> {
    let failed = |reason: String| ConfineError::Path {
        path: path.into(),
        reason,
    };
    let is_folder = fs::metadata(path)
        .map_err(|error| failed(error.to_string()))?
        .is_dir();
    let opened = PathFd::new(path).map_err(|error| failed(error.to_string()))?;
    // A file has no rights that are about entries of a folder.
    let access = match is_folder {
        true => access,
        false => access & AccessFs::from_file(LANDLOCK),
    };
    Ok(PathBeneath::new(opened, access))
}
