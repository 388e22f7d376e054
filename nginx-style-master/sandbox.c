/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker may still do, should a client ever make it run code: talk to sockets it has or makes,
 * read files, use memory and threads. It may write, create, remove or execute no file, and trace or
 * start no process.
 *
 * Landlock says so for files (where the kernel has it), seccomp for system calls. Both are for good and
 * are inherited. A call outside the list fails with EPERM rather than killing: a C library that learns
 * a new call falls back to the old one, while a killed worker would be forked again for ever.
 */
#include "common/base/log.h"
#include "common/base/path.h"
#include "nginx-style-master/process.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Coverage builds write their counts at exit. */
extern void __gcov_dump(void) __attribute__((weak));

static const int allowed_calls[] = {
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64),
    SCMP_SYS(pwrite64), SCMP_SYS(lseek), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(newfstatat),
    SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(statx), SCMP_SYS(access), SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2), SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(readlink),
    SCMP_SYS(readlinkat), SCMP_SYS(getcwd), SCMP_SYS(getdents64), SCMP_SYS(fcntl), SCMP_SYS(ioctl),
    SCMP_SYS(dup), SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(pipe), SCMP_SYS(pipe2),
    SCMP_SYS(eventfd2), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(signalfd4),
    /* sockets */
    SCMP_SYS(socket), SCMP_SYS(socketpair), SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(accept),
    SCMP_SYS(accept4), SCMP_SYS(shutdown), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt),
    SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg),
    SCMP_SYS(recvmmsg), SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(sendmmsg),
    /* waiting */
    SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6),
    SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2), SCMP_SYS(io_uring_enter), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(futex),
    SCMP_SYS(restart_syscall), SCMP_SYS(sched_yield),
    /* memory */
    SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect),
    SCMP_SYS(madvise), SCMP_SYS(mincore), SCMP_SYS(fallocate), SCMP_SYS(membarrier),
    /* time and identity */
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday), SCMP_SYS(time),
    SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(geteuid),
    SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(getrandom),
    SCMP_SYS(getrusage), SCMP_SYS(getrlimit), SCMP_SYS(prlimit64), SCMP_SYS(sched_getaffinity),
    SCMP_SYS(prctl),
    /* threads and the end */
    SCMP_SYS(clone), SCMP_SYS(clone3), SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
    SCMP_SYS(arch_prctl), SCMP_SYS(set_tid_address), SCMP_SYS(exit), SCMP_SYS(exit_group),
    SCMP_SYS(kill), SCMP_SYS(tgkill), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigtimedwait), SCMP_SYS(sigaltstack),
};

/* For a program whose data is files. Rings are there already, here as above: io_uring_setup is not needed. */
static const int file_calls[] = {
    SCMP_SYS(ftruncate), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(sync_file_range), SCMP_SYS(rename),
    SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(link), SCMP_SYS(linkat),
    SCMP_SYS(mkdir), SCMP_SYS(mkdirat), SCMP_SYS(rmdir), SCMP_SYS(pwritev), SCMP_SYS(pwritev2), SCMP_SYS(preadv),
    SCMP_SYS(flock), SCMP_SYS(fchmod), SCMP_SYS(fstatfs), SCMP_SYS(statfs), SCMP_SYS(msync), SCMP_SYS(io_uring_register), SCMP_SYS(fadvise64),
};

static int seccomp_allow(scmp_filter_ctx filter, const int *calls, size_t count)
{
    int err = 0;

    for (size_t i = 0; err == 0 && i < count; i++) {
        err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
        if (err == -EDOM || err == -EOPNOTSUPP)
            err = 0; /* this machine has no such call */
    }
    return err;
}

static int seccomp_enter(struct log *log, bool with_files)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int err = filter == NULL ? -ENOMEM : 0;

    if (err == 0)
        err = seccomp_allow(filter, allowed_calls, ARRAY_COUNT(allowed_calls));
    if (err == 0 && with_files)
        err = seccomp_allow(filter, file_calls, ARRAY_COUNT(file_calls));
    if (err == 0)
        err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1); /* threads that run already too */
    if (err == 0)
        err = seccomp_load(filter);
    if (filter != NULL)
        seccomp_release(filter);
    if (err != 0)
        log_warn(log, "sandbox: no seccomp filter: %s", err_text(err));
    return err;
}

/* Rights by Landlock version; what a right's kernel does not know must not be asked. */
static uint64_t landlock_rights(long abi)
{
    uint64_t rights = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                      LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                      LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |
                      LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                      LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                      LANDLOCK_ACCESS_FS_MAKE_SYM;

    if (abi >= 2)
        rights |= 1ull << 13; /* REFER */
    if (abi >= 3)
        rights |= 1ull << 14; /* TRUNCATE */
    return rights;
}

static int landlock_allow(int ruleset, const char *folder, uint64_t rights)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = rights};
    int err = 0;

    rule.parent_fd = open(folder, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0)
        return -errno;
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
        err = -errno;
    close(rule.parent_fd);
    return err;
}

/* The log is opened again after a rotation: its folder, and nothing else, may be written to. */
static int landlock_allow_log(int ruleset, const struct log *log)
{
    char folder[PATH_MAX];
    int err;

    if (log_path(log) == NULL)
        return 0;
    err = path_parent(bytes_of_string(log_path(log)), folder, sizeof(folder));
    if (err != 0)
        return err;
    return landlock_allow(ruleset, folder, LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG);
}

/* Everything that changes a file is ruled out, but for the log and these folders. */
static int landlock_enter(struct log *log, const char *const *folders, size_t count)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    struct landlock_ruleset_attr attr;
    int fd, err = 0;

    if (abi < 1)
        return ERR_UNSUPPORTED;
    attr = (struct landlock_ruleset_attr){.handled_access_fs = landlock_rights(abi)};
    fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (fd < 0)
        return -errno;
    err = landlock_allow_log(fd, log);
    for (size_t i = 0; err == 0 && i < count; i++)
        err = landlock_allow(fd, folders[i], landlock_rights(abi) & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE);
    if (err == 0 && syscall(SYS_landlock_restrict_self, fd, 0) != 0)
        err = -errno;
    if (err != 0) {
        log_warn(log, "sandbox: no Landlock: %s", err_text(err));
    }
    close(fd);
    return err;
}

static int sandbox_may(void)
{
#ifdef DCHECK_ON
    return ERR_UNSUPPORTED; /* the sanitizers need calls that we do not */
#endif
    if (__gcov_dump != NULL)
        return ERR_UNSUPPORTED;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ? -errno : 0;
}

int sandbox_enter(struct log *log)
{
    int landlock_err, seccomp_err, err = sandbox_may();

    if (err != 0)
        return err;
    landlock_err = landlock_enter(log, NULL, 0);
    seccomp_err = seccomp_enter(log, false);
    log_info(log, "sandbox: seccomp=%s landlock=%s", seccomp_err == 0 ? "on" : "off",
             landlock_err == 0 ? "on" : "off");
    return seccomp_err == 0 || landlock_err == 0 ? 0 : ERR_UNSUPPORTED;
}

int sandbox_enter_folders(struct log *log, const char *const *folders, size_t count)
{
    int err = sandbox_may();

    if (err == 0)
        err = landlock_enter(log, folders, count);
    log_info(log, "sandbox: landlock=%s", err == 0 ? "on" : "off");
    return err;
}

int sandbox_enter_calls(struct log *log)
{
    int err = sandbox_may();

    if (err == 0)
        err = seccomp_enter(log, true);
    log_info(log, "sandbox: seccomp=%s", err == 0 ? "on" : "off");
    return err;
}
