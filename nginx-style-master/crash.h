/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crash.h - what a dying process still says: version, signal, address, the command in execution, and
 * a backtrace with symbols, static functions included where the binary is not stripped.
 *
 * Async-signal-safe calls only. After the report the signal is raised again with its default action,
 * so that the master and core dumps see the real cause. The library sets it up in every process.
 */
#pragma once
#include "common/base/base.h"

/* `fd` is a log's: it must keep its number. Both texts must live as long as the process. */
void crash_setup(int fd, const char *program, const char *version);
/* For a process that was forked: another title, another log. */
void crash_title_set(const char *title);

extern const char *volatile crash_note_;

/* What is being done: a static text, or one that lives until the next call; NULL: nothing. A store. */
static inline void crash_note_set(const char *text)
{
    crash_note_ = text;
}
