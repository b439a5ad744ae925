//! A wall clock that jumps. Deadlines, limits and durations are of the monotonic clock; what is
//! written down with the wall clock's time stays whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::{JSON, Server, digits, digits_request, folder, lethe, serve};

/// Moves the wall clock of a process by the seconds in a file, which is opened at start: a confined
/// process could not do so later.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int file = -1;

__attribute__((constructor)) static void begin(void) {
    file = open(getenv("SECONDS_AHEAD"), O_RDONLY | O_CLOEXEC);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    char seconds[32] = {0};
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME && pread(file, seconds, sizeof seconds - 1, 0) > 0)
        now->tv_sec += atol(seconds);
    return result;
}
"#;

const YEAR_SECONDS: i64 = 365 * 24 * 3600;

/// A clock that can be set.
struct Clock {
    shim: PathBuf,
    ahead: PathBuf,
}

impl Clock {
    /// `None`, said aloud, where there is no C compiler.
    fn new(folder: &Path) -> Option<Self> {
        let (source, shim) = (folder.join("clock.c"), folder.join("clock.so"));
        fs::write(&source, SHIM).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]);
        let compiled = compiler.arg(&shim).arg(&source).arg("-ldl").output();
        let Ok(output) = compiled else {
            eprintln!("skipped: no C compiler");
            return None;
        };
        assert!(output.status.success(), "{output:?}");
        let clock = Self {
            shim,
            ahead: folder.join("ahead"),
        };
        clock.set(0);
        Some(clock)
    }

    fn set(&self, seconds_ahead: i64) {
        // Over what was there, so that nobody reads an empty file.
        fs::write(&self.ahead, format!("{seconds_ahead:<20}")).unwrap();
    }

    fn of(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.shim);
        command.env("SECONDS_AHEAD", &self.ahead);
    }
}

#[test]
fn a_wall_clock_that_jumps_ends_no_request_and_breaks_no_trail() {
    let folder = folder("clocks");
    let Some(clock) = Clock::new(&folder) else {
        return;
    };
    let (audit, key) = (folder.join("audit.jsonl"), folder.join("audit.key"));
    let spawn = || {
        let mut serve = serve();
        serve.args(["--request-timeout-ms", "20000", "--audit"]);
        serve.arg(&audit).arg("--signing-key").arg(&key);
        serve.arg(digits());
        clock.of(&mut serve);
        Server::spawn(serve)
    };
    let mut server = spawn();
    let ask = |server: &Server, id: &str| {
        let headers = [JSON, ("x-request-id", id), ("lethe-receipt", "1")];
        let answer = server.post("/api/v1/infer", &headers, digits_request().as_bytes());
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        assert!(answer.header("lethe-receipt").is_some(), "{id}");
    };
    for (i, years) in [0, 20, -10, 5].into_iter().enumerate() {
        clock.set(years * YEAR_SECONDS);
        for _ in 0..3 {
            ask(&server, &format!("jump-{i}"));
        }
    }
    // No duration was taken of the wall clock.
    let stats = server.get("/api/v1/stats").json();
    let latency = &stats["total"]["latency_us"];
    let (count, sum_us) = (&latency["count"], latency["sum"].as_u64().unwrap());
    assert!(*count == 12 && sum_us < 600_000_000, "{latency}");
    assert!(stats["uptime_s"].as_f64().unwrap() < 600.0, "{stats}");
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
    // The next start writes on, with a clock that is behind.
    clock.set(-3 * YEAR_SECONDS);
    let mut server = spawn();
    ask(&server, "behind");
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));

    let trail = fs::read_to_string(&audit).unwrap();
    let years: std::collections::BTreeSet<&str> = trail
        .lines()
        .filter_map(|line| line.split_once("\"time\":\"")?.1.get(..4))
        .collect();
    assert!(years.len() >= 5, "the clock did not jump: {years:?}");
    let verified = lethe()
        .args(["audit", "verify", "--closed"])
        .arg(&audit)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success(), "{said}");
}
