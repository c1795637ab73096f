"""Which system calls the core keeps, and which the front loses.

The core's list is everything that CPython, uvloop, SQLite, OpenSSL and libsodium use once they run: files
(Landlock decides which), memory, threads, time, and the connections that it accepts. No call that makes a
socket, connects one, starts a program or a process, or looks into another process is on it.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from witness.core.lockdown.seccomp import Call, When

_CLONE_THREAD: Final = 0x00010000

_PLAIN: Final = """
    read pread64 readv preadv preadv2 write pwrite64 writev pwritev pwritev2 lseek _llseek
    open openat close close_range dup dup2 dup3 pipe2 eventfd2
    stat stat64 lstat lstat64 fstat fstat64 newfstatat fstatat64 statx statfs statfs64 fstatfs fstatfs64
    access faccessat faccessat2 readlink readlinkat getdents64 getcwd umask
    fcntl fcntl64 flock fsync fdatasync sync_file_range ftruncate ftruncate64 fallocate fadvise64
    unlink unlinkat
    mmap mmap2 munmap mremap mprotect madvise brk mincore msync munlock membarrier
    futex futex_time64 set_robust_list get_robust_list rseq sched_yield sched_getaffinity
    sched_getparam sched_getscheduler set_tid_address gettid exit exit_group restart_syscall
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigpending sigaltstack pause
    clock_gettime clock_gettime64 clock_getres clock_nanosleep clock_nanosleep_time64 nanosleep
    gettimeofday time timerfd_create timerfd_settime timerfd_gettime
    epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll ppoll_time64 select pselect6
    accept accept4 listen recvfrom recvmsg recvmmsg sendto sendmsg sendmmsg recv send
    shutdown getsockname getpeername getsockopt setsockopt
    getpid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid
    wait4 waitid getrusage getrlimit ugetrlimit sysinfo uname getrandom getcpu times
""".split()  # noqa: SIM905 - thirty lines of quotes would say no more

_IOCTLS: Final = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS (isatty), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""

CORE_ABSENT: Final = ("clone3",)
"""Its flags lie in memory, where a filter cannot see them; the C library then uses clone."""
FRONT_ABSENT: Final = CORE_ABSENT


def core_calls() -> tuple[Call, ...]:
    """What the core keeps once it is locked down."""
    me = os.getpid()
    return (
        *(Call(name) for name in _PLAIN),
        *(Call("ioctl", (When(1, request),)) for request in _IOCTLS),
        Call("clone", (When(0, _CLONE_THREAD, mask=_CLONE_THREAD),)),  # threads, but no processes
        Call("socketpair", (When(0, socket.AF_UNIX),)),  # the event loop's own, to wake itself
        Call("tgkill", (When(0, me),)),
        # Limits may be asked for, not changed: the new ones are a null pointer.
        Call("prlimit64", (When(2, 0),)),
    )


_OF_NO_USE: Final = """
    execve execveat fork vfork ptrace process_vm_readv process_vm_writev process_madvise process_mrelease
    pidfd_open pidfd_getfd pidfd_send_signal kcmp kill tkill rt_sigqueueinfo rt_tgsigqueueinfo
    bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register
    keyctl add_key request_key memfd_secret
    mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount fspick pivot_root chroot
    unshare setns setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset
    personality acct quotactl swapon swapoff reboot kexec_load kexec_file_load syslog
    init_module finit_module delete_module create_module settimeofday clock_settime clock_adjtime adjtimex
    sethostname setdomainname iopl ioperm modify_ldt lookup_dcookie nfsservctl vhangup
    name_to_handle_at open_by_handle_at fanotify_init mknod mknodat migrate_pages move_pages
    chmod fchmodat fchmodat2 chown chown32 lchown lchown32 fchownat
    setxattr lsetxattr removexattr lremovexattr setxattrat removexattrat
    shmget shmat shmctl shmdt semget semop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink
""".split()  # noqa: SIM905


def adding_refused() -> tuple[Call, ...]:
    """What the process that adds logs loses: what the front does, and every socket."""
    return (*front_refused(), *(Call(name) for name in ("socket", "socketpair", "connect", "bind", "listen")))


def front_refused() -> tuple[Call, ...]:
    """What the front loses: it starts nothing, looks into nobody, and changes nothing about the machine.

    Landlock does not know chmod: a front of the core's own user could open the state folder to everybody with
    it. What it has opened for writing it may still change by its descriptor.

    It keeps what name resolution, TLS and files need, whatever library of the system does them: a list of
    what is left would break with the next of those.
    """
    return (
        *(Call(name) for name in _OF_NO_USE),
        Call("clone", (When(0, 0, mask=_CLONE_THREAD),)),  # processes; threads remain
        Call("prctl", (When(0, 4),)),  # PR_SET_DUMPABLE
    )
