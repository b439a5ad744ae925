//! What a confined process can still do, and what not.
//!
//! The test runs itself again as a process of its own, since there is no way back.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use lethe_host::harden::{Confinement, Dumpable, Enforced, confine, no_core_dumps};
use lethe_sandbox::model_file::ModelFile;
use lethe_sandbox::{ModelSource, Sandbox, SandboxSettings};
use lethe_server::Request;

const CHILD: &str = "LETHE_TEST_CONFINED";

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("models")
}

fn sandbox(model: &str, cache: &Path) -> Sandbox {
    let file = ModelFile::open(&models().join(model).join("model.onnx")).unwrap();
    let settings = SandboxSettings {
        cache: Some(cache.into()),
        ..SandboxSettings::default()
    };
    Sandbox::new(&ModelSource::of_file(model, &file).unwrap(), &settings).unwrap()
}

fn answers(sandbox: &Sandbox) -> bool {
    let zeros = vec!["0"; 784].join(",");
    let body = format!(
        r#"{{"model":"digits","inputs":[{{"name":"input","shape":[1,1,28,28],"datatype":"FP32","data":[{zeros}]}}]}}"#
    );
    let request = Request::json("POST", "/api/v1/infer", body.as_bytes());
    sandbox.handle(&request).status == 200
}

#[test]
fn a_confined_process_serves_and_can_do_little_else() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let test = "a_confined_process_serves_and_can_do_little_else";
    let this = std::env::current_exe().unwrap();
    let folder = std::env::temp_dir().join(format!("lethe-confined-{}", std::process::id()));
    fs::create_dir_all(folder.join("kept")).unwrap();
    fs::write(folder.join("other"), "secret").unwrap();
    let mut command = Command::new(this);
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, &folder);
    let output = command.output().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && out.contains("CONFINED"),
        "{out}\n{err}"
    );
    print!("{err}");
}

fn is_denied<T>(result: io::Result<T>) -> bool {
    let kinds = [Some(libc::EPERM), Some(libc::EACCES)];
    result.is_err_and(|error| kinds.contains(&error.raw_os_error()))
}

/// A system call by its number.
fn call(number: libc::c_long, arguments: [libc::c_long; 3]) -> io::Result<libc::c_long> {
    let [a, b, c] = arguments;
    // SAFETY: the arguments below are numbers and null pointers, which the kernel refuses where it
    // would read or write through them.
    match unsafe { libc::syscall(number, a, b, c, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

fn child() {
    let folder = PathBuf::from(std::env::var_os(CHILD).unwrap());
    let (kept, other) = (folder.join("kept"), folder.join("other"));
    let digits = sandbox("digits", &kept);
    assert!(answers(&digits));
    no_core_dumps(Dumpable::Keep).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();

    let missing = Confinement {
        read: vec![folder.join("missing")],
        ..Confinement::default()
    };
    assert!(
        confine(&missing)
            .unwrap_err()
            .to_string()
            .contains("missing")
    );
    // All of this works now, so that it does not fail for another reason later.
    fs::read(&other).unwrap();
    assert!(Command::new("true").status().unwrap().success());
    TcpListener::bind("127.0.0.1:0").unwrap();
    let netlink = [libc::AF_NETLINK, libc::SOCK_RAW, 0].map(libc::c_long::from);
    call(libc::SYS_socket, netlink).unwrap();
    let namespace = [libc::c_long::from(libc::CLONE_NEWUTS), 0, 0];

    let hardening = confine(&Confinement {
        read: vec![models()],
        write: vec![kept.clone()],
        tcp_bind: Some(Vec::new()),
        tcp_connect: Some(vec![port]),
    })
    .unwrap();
    eprintln!("{hardening:?}");
    assert!(hardening.no_new_privs && hardening.system_calls);

    // What a server does.
    assert!(answers(&digits), "a sandbox that was there");
    let vibration = sandbox("vibration", &kept);
    assert!(
        !answers(&vibration),
        "a model loaded and compiled now, which takes other inputs"
    );
    assert_eq!(digits.scans_pagemap(), vibration.scans_pagemap());
    std::thread::scope(|scope| assert!(scope.spawn(|| answers(&digits)).join().unwrap()));
    fs::write(kept.join("file"), "content").unwrap();
    assert_eq!(fs::read(kept.join("file")).unwrap(), b"content");
    for random in ["/dev/random", "/dev/urandom"] {
        fs::File::open(random)
            .unwrap()
            .read_exact(&mut [0])
            .unwrap();
    }
    let client = TcpStream::connect(("127.0.0.1", port));
    client.unwrap();
    listener.accept().unwrap();

    // What it does not.
    assert!(
        is_denied(Command::new("true").status()),
        "starting a program"
    );
    let calls = [
        ("execve", libc::SYS_execve, [0; 3]),
        ("execveat", libc::SYS_execveat, [0; 3]),
        (
            "ptrace",
            libc::SYS_ptrace,
            [libc::PTRACE_TRACEME.into(), 0, 0],
        ),
        (
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            [std::process::id().into(), 0, 0],
        ),
        ("mount", libc::SYS_mount, [0; 3]),
        ("bpf", libc::SYS_bpf, [0; 3]),
        ("perf_event_open", libc::SYS_perf_event_open, [0; 3]),
        ("keyctl", libc::SYS_keyctl, [0; 3]),
        ("userfaultfd", libc::SYS_userfaultfd, [0; 3]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [8, 0, 0]),
        ("init_module", libc::SYS_init_module, [0; 3]),
        ("unshare", libc::SYS_unshare, namespace),
        ("setns", libc::SYS_setns, [0; 3]),
        ("socket of netlink", libc::SYS_socket, netlink),
        ("clone into a namespace", libc::SYS_clone, namespace),
    ];
    let from_another_thread = std::thread::scope(|scope| {
        let all = scope.spawn(|| calls.map(|(_, number, arguments)| call(number, arguments)));
        all.join().unwrap()
    });
    for ((name, number, arguments), elsewhere) in calls.into_iter().zip(from_another_thread) {
        for result in [call(number, arguments), elsewhere] {
            // EPERM and no other: a bad argument says something else.
            let error = result.map_err(|error| error.raw_os_error());
            assert_eq!(error, Err(Some(libc::EPERM)), "{name}");
        }
    }
    #[cfg(target_arch = "x86_64")]
    assert!(
        call(0x4000_0000 + 520, [0; 3]).is_err(),
        "execve by its x32 number"
    );

    if hardening.landlock == Enforced::Not {
        eprintln!("skipped: this kernel has no Landlock");
    } else {
        assert!(is_denied(fs::read(&other)), "another file");
        assert!(is_denied(fs::read("/etc/passwd")), "the system's files");
        assert!(
            is_denied(fs::write(folder.join("new"), "")),
            "another folder"
        );
        assert!(
            is_denied(fs::write(models().join("new"), "")),
            "a folder to read"
        );
        assert!(is_denied(fs::read_dir("/")), "the root");
        if hardening.landlock_abi >= 4 {
            assert!(is_denied(TcpListener::bind("127.0.0.1:0")), "another port");
            let elsewhere = TcpStream::connect(("127.0.0.1", port ^ 1));
            assert!(is_denied(elsewhere), "connecting elsewhere");
        }
    }
    println!("CONFINED");
}
