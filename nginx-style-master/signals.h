/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signals.h - signals as a descriptor: no handler runs, no call is interrupted.
 *
 * The signals that a process listens to are blocked and read from a signalfd; PIPE and XFSZ are ignored. Children
 * of fork() start with everything blocked by their parent, so they call signals_open() or
 * signals_reset() first.
 */
#pragma once
#include "common/base/base.h"

#include <signal.h>

enum signals_set {
    SIGNALS_MASTER, /* TERM INT QUIT HUP USR1 USR2 WINCH TTIN TTOU CHLD */
    SIGNALS_WORKER, /* TERM INT QUIT; HUP USR1 USR2 WINCH TTIN TTOU are the master's: ignored */
};

/* What a call tells as an error as well: a reader that is gone, a file that RLIMIT_FSIZE does not allow. */
void signals_ignore(void);
/* A non-blocking signalfd, or -errno. */
MUST_USE int signals_open(enum signals_set set);
/* 0: none is waiting. `from` (may be NULL): who sent it. */
int signals_take(int fd, pid_t *from);
/* Everything as a fresh process has it, before exec(). */
void signals_reset(void);
