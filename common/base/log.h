/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - one line a fact: what, which, why, then key=value.
 *
 * Lines are composed into a bounded buffer and written with one write(2) to a descriptor that never
 * blocks (O_APPEND file or pipe, O_NONBLOCK; stderr is asked for room first); what does not fit is
 * dropped and counted, and the next line that fits says how many were lost. A log is a struct: two in
 * one process do not meet.
 *
 * Levels are twemproxy's 0..11 (-v): 0 emerg, 1 alert, 2 crit, 3 error, 4 warn, 5 notice (default),
 * 6 info, 7 debug, 8..11 verbose debug.
 */
#pragma once
#include "common/base/base.h"

enum log_level {
    LOG_EMERG, LOG_ALERT, LOG_CRIT, LOG_ERROR, LOG_WARN, LOG_NOTICE, LOG_INFO, LOG_DEBUG,
    LOG_VERB, LOG_VVERB, LOG_VVVERB, LOG_LEVEL_MAX,
};

struct log; /* opaque */

/* Microseconds since the epoch, for the stamp; the simulator gives its own clock. */
typedef uint64_t (*log_clock_fn)(void *arg);

/* `path` NULL: stderr. Errors: -errno of open. The name (program or worker) goes into every line. */
MUST_USE int log_create(const char *path, int level, const char *name, struct log **out);
/* A log that hands its lines to a function (tests, simulator). */
typedef void (*log_sink_fn)(void *arg, int level, const char *line, size_t len);
struct log *log_create_sink(log_sink_fn sink, void *arg, int level, const char *name);
void log_destroy(struct log **log);

void log_set_name(struct log *log, const char *name);
void log_set_clock(struct log *log, log_clock_fn clock, void *arg);
int log_level(const struct log *log);
void log_set_level(struct log *log, int level); /* clamped to 0..11 */
/* Opens the path again (after rotation). On an error the old descriptor goes on. */
MUST_USE int log_reopen(struct log *log);
/* The descriptor, for crash handlers. */
int log_fd(const struct log *log);
/* NULL: standard error, or a sink. */
const char *log_path(const struct log *log);
uint64_t log_lines_dropped(const struct log *log);

/* `log` may be NULL: nothing happens. */
void log_line(struct log *log, int level, const char *format, ...) PRINTF_LIKE(3, 4);

#define log_error(log, ...)  log_line((log), LOG_ERROR, __VA_ARGS__)
#define log_warn(log, ...)   log_line((log), LOG_WARN, __VA_ARGS__)
#define log_notice(log, ...) log_line((log), LOG_NOTICE, __VA_ARGS__)
#define log_info(log, ...)   log_line((log), LOG_INFO, __VA_ARGS__)
#define log_debug(log, ...)  log_line((log), LOG_DEBUG, __VA_ARGS__)

/* A bound on lines of one kind, for what a peer can cause: at most `burst` at once, one more each
 * `interval_ms`. Returns whether to log now; *suppressed (may be NULL) is how many were not since. */
struct log_limit {
    uint64_t next_ms;
    uint32_t tokens, suppressed;
};
bool log_limit_allows(struct log_limit *limit, uint64_t now_ms, uint32_t burst,
                      uint32_t interval_ms, uint32_t *suppressed);
