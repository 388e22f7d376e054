/* SPDX-License-Identifier: Apache-2.0 */
#include "nginx-style-master/signals.h"

#include <errno.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const int all_signals[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP,  SIGUSR1,
                                  SIGUSR2, SIGWINCH, SIGTTIN, SIGTTOU, SIGCHLD};
static const int worker_signals[] = {SIGTERM, SIGINT, SIGQUIT};
static const int worker_ignored[] = {SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGTTIN, SIGTTOU};

static void mask_of(const int *signals, size_t count, sigset_t *out)
{
    sigemptyset(out);
    for (size_t i = 0; i < count; i++)
        sigaddset(out, signals[i]);
}

void signals_ignore(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

int signals_open(enum signals_set set)
{
    sigset_t mask;
    int fd;

    signals_ignore();
    if (set == SIGNALS_MASTER) {
        /* A parent (nohup) may have left some ignored: an ignored signal never reaches a signalfd. */
        for (size_t i = 0; i < ARRAY_COUNT(all_signals); i++)
            signal(all_signals[i], SIG_DFL);
        mask_of(all_signals, ARRAY_COUNT(all_signals), &mask);
    } else {
        for (size_t i = 0; i < ARRAY_COUNT(worker_ignored); i++)
            signal(worker_ignored[i], SIG_IGN);
        mask_of(worker_signals, ARRAY_COUNT(worker_signals), &mask);
    }
    if (sigprocmask(SIG_SETMASK, &mask, NULL) != 0)
        return -errno;
    fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* A terminal whose window got another size, or which a job in the background wrote to: that is no operator's word. */
static bool is_of_terminal(const struct signalfd_siginfo *info)
{
    return info->ssi_code == SI_KERNEL &&
           (info->ssi_signo == SIGWINCH || info->ssi_signo == SIGTTIN || info->ssi_signo == SIGTTOU);
}

int signals_take(int fd, pid_t *from)
{
    struct signalfd_siginfo info;

    do
        if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
            return 0;
    while (is_of_terminal(&info));
    if (from != NULL)
        *from = (pid_t)info.ssi_pid;
    return (int)info.ssi_signo;
}

void signals_reset(void)
{
    sigset_t none;

    for (size_t i = 0; i < ARRAY_COUNT(all_signals); i++)
        signal(all_signals[i], SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}
