//! The filter of system calls: a list of what a server never does.
//!
//! What is on it fails with `EPERM`, so that whoever tries gets an error and the server goes on. It
//! is a list of refusals and not of permissions: which calls the C library, the runtime and the
//! kernel's drivers need changes from version to version, and a server that stops after an update of
//! the C library is one whose filter gets switched off.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads, sock_filter,
};

/// Refused whatever the arguments are.
const REFUSED: &[libc::c_long] = &[
    // Starting programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Looking into other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Mounts, roots and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Code and keys in the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Parts of the kernel with a history of holes, which nothing here uses.
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_personality,
    // The machine's own.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
];

/// Families of sockets that there may be; all others are drivers that nothing here uses.
const FAMILIES: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// New namespaces, as flags of `clone`.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Sets the filter for all threads, for good.
pub(super) fn apply() -> Result<bool, String> {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Ok(false);
    }
    // `clone3` has its flags where a filter cannot look. As if the kernel had not got it: the C
    // library uses `clone` then.
    let without_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    set(without_clone3, libc::ENOSYS)?;
    set(rules().map_err(|error| error.to_string())?, libc::EPERM)?;
    Ok(true)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules() -> Result<Rules, seccompiler::BackendError> {
    let argument = |index, comparison, value: libc::c_int| {
        let value = u64::from(value as u32);
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, comparison, value)
    };
    let another_family = FAMILIES.map(|family| argument(0, SeccompCmpOp::Ne, family));
    let another_family = another_family.into_iter().collect::<Result<Vec<_>, _>>()?;
    let another_family = || SeccompRule::new(another_family.clone());
    let mut rules: Rules = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_socket, vec![another_family()?]);
    rules.insert(libc::SYS_socketpair, vec![another_family()?]);
    // Any one of the flags: where their bits are not all zero.
    let mut namespaces = Vec::new();
    for bit in (0..32).map(|i| 1 << i).filter(|bit| NAMESPACES & bit != 0) {
        let flag = u64::from(bit as u32);
        let is_set = argument(0, SeccompCmpOp::MaskedEq(flag), bit)?;
        namespaces.push(SeccompRule::new(vec![is_set])?);
    }
    rules.insert(libc::SYS_clone, namespaces);
    // Typing into the terminal that the server was started from.
    let typing = argument(1, SeccompCmpOp::Eq, libc::TIOCSTI as libc::c_int)?;
    rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(vec![typing])?]);
    Ok(rules)
}

fn set(rules: Rules, error: libc::c_int) -> Result<(), String> {
    let said = |error: seccompiler::BackendError| error.to_string();
    let refuse = SeccompAction::Errno(error as u32);
    let architecture = std::env::consts::ARCH.try_into().map_err(said)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(said)?;
    let program = refuse_other_numbers(program);
    apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

/// The x32 interface has the same calls under other numbers, on which the rules are silent: refused
/// as a whole, before the rules.
fn refuse_other_numbers(program: BpfProgram) -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const X32: u32 = 0x4000_0000;
    const ERROR: u32 = 0x0005_0000;
    if !cfg!(target_arch = "x86_64") {
        return program;
    }
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut whole = vec![
        // The number of the call is the first field of what a filter sees.
        instruction(LOAD_WORD, 0, 0, 0),
        instruction(JUMP_IF_AT_LEAST, 0, 1, X32),
        instruction(RETURN, 0, 0, ERROR | libc::ENOSYS as u32),
    ];
    whole.extend(program);
    whole
}
