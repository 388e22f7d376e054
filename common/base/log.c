/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/log.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 2048
#define LOG_NAME_MAX 48

struct log {
    int fd;     /* owns unless it is stderr */
    int level;
    char *path; /* owns; NULL: stderr */
    char name[LOG_NAME_MAX];
    log_sink_fn sink; /* NULL: write to fd */
    void *sink_arg;   /* borrows */
    log_clock_fn clock;
    void *clock_arg; /* borrows */
    uint64_t dropped_count, dropped_told;
};

static const char *const level_names[] = {
    "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug", "verb", "vverb", "vvverb",
};

static uint64_t log_wall_clock(void *arg)
{
    struct timespec now;

    MAYBE(arg);
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int log_open_path(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640);

    return fd < 0 ? -errno : fd;
}

static struct log *log_create_common(int level, const char *name)
{
    struct log *log = must_zalloc(sizeof(*log));

    log->fd = STDERR_FILENO;
    log->clock = log_wall_clock;
    log_set_level(log, level);
    log_set_name(log, name);
    return log;
}

int log_create(const char *path, int level, const char *name, struct log **out)
{
    struct log *log = log_create_common(level, name);

    if (path != NULL) {
        int fd = log_open_path(path);

        if (fd < 0) {
            mem_free(log);
            return fd;
        }
        log->fd = fd;
        log->path = must_strdup(path);
    }
    *out = log;
    return 0;
}

struct log *log_create_sink(log_sink_fn sink, void *arg, int level, const char *name)
{
    struct log *log = log_create_common(level, name);

    log->sink = sink;
    log->sink_arg = arg;
    return log;
}

void log_destroy(struct log **slot)
{
    struct log *log = *slot;

    *slot = NULL;
    if (log == NULL)
        return;
    if (log->path != NULL)
        close(log->fd);
    mem_free(log->path);
    mem_free(log);
}

void log_set_name(struct log *log, const char *name)
{
    snprintf(log->name, sizeof(log->name), "%s", name);
}

void log_set_clock(struct log *log, log_clock_fn clock, void *arg)
{
    log->clock = clock;
    log->clock_arg = arg;
}

int log_level(const struct log *log)
{
    return log->level;
}

void log_set_level(struct log *log, int level)
{
    log->level = MAX(0, MIN(level, LOG_LEVEL_MAX));
}

int log_reopen(struct log *log)
{
    int fd;

    if (log->path == NULL)
        return 0;
    fd = log_open_path(log->path);
    if (fd < 0)
        return fd;
    /* dup3 keeps the number: crash handlers hold it. */
    if (dup3(fd, log->fd, O_CLOEXEC) < 0) {
        int err = -errno;

        close(fd);
        return err;
    }
    close(fd);
    return 0;
}

int log_fd(const struct log *log)
{
    return log->fd;
}

const char *log_path(const struct log *log)
{
    return log->path;
}

uint64_t log_lines_dropped(const struct log *log)
{
    return log->dropped_count;
}

static size_t log_prefix(struct log *log, int level, char *line, size_t cap)
{
    uint64_t now_us = log->clock(log->clock_arg);
    time_t seconds = (time_t)(now_us / 1000000);
    struct tm utc;
    int len;

    gmtime_r(&seconds, &utc);
    len = snprintf(line, cap, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ %s[%d] %s: ",
                   utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
                   utc.tm_sec, (unsigned)(now_us % 1000000 / 1000), log->name, (int)getpid(),
                   level_names[MIN(level, (int)ARRAY_COUNT(level_names) - 1)]);
    return (size_t)MAX(len, 0);
}

/* Never waits. A file of ours is O_NONBLOCK; stderr is shared with whoever started us, so its flags are
 * not ours to set: a socket (a service manager's) can be told per call, and of a pipe or terminal poll()
 * knows whether a line fits (writable means PIPE_BUF bytes of room, twice a line). */
static bool log_write(struct log *log, const char *line, size_t len)
{
    struct pollfd room = {.fd = log->fd, .events = POLLOUT};
    ssize_t sent;

    if (log->path == NULL) {
        sent = send(log->fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0 || errno != ENOTSOCK)
            return sent == (ssize_t)len;
        if (poll(&room, 1, 0) != 1 || (room.revents & POLLOUT) == 0)
            return false;
    }
    return write(log->fd, line, len) == (ssize_t)len;
}

static void log_emit(struct log *log, int level, const char *line, size_t len)
{
    if (log->sink != NULL) {
        log->sink(log->sink_arg, level, line, len);
        return;
    }
    if (log->dropped_told != log->dropped_count) {
        char note[96];
        int note_len = snprintf(note, sizeof(note), "log: lines were lost lost=%llu\n",
                                (unsigned long long)(log->dropped_count - log->dropped_told));

        if (log_write(log, note, (size_t)note_len))
            log->dropped_told = log->dropped_count;
    }
    /* A short write tears the line; a full pipe or disk loses it. Neither may hold a worker up. */
    if (!log_write(log, line, len))
        log->dropped_count++;
}

/* What a peer sent must not forge lines or control the terminal: C0, DEL and UTF-8's C1 go. */
static void log_sanitize(char *line, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)line[i];

        if (c < 0x20 || c == 0x7f)
            line[i] = '?';
        else if (c == 0xc2 && i + 1 < len && ((unsigned char)line[i + 1] & 0xe0) == 0x80)
            line[i] = line[i + 1] = '?';
    }
}

void log_line(struct log *log, int level, const char *format, ...)
{
    char line[LOG_LINE_MAX];
    size_t len;
    va_list args;
    int written;

    if (log == NULL || level > log->level)
        return;
    len = log_prefix(log, level, line, sizeof(line));
    va_start(args, format);
    written = vsnprintf(line + len, sizeof(line) - len - 1, format, args);
    va_end(args);
    if (written < 0)
        return;
    len = MIN(len + (size_t)written, sizeof(line) - 2);
    log_sanitize(line, len);
    line[len++] = '\n';
    log_emit(log, level, line, len);
}

bool log_limit_allows(struct log_limit *limit, uint64_t now_ms, uint32_t burst,
                      uint32_t interval_ms, uint32_t *suppressed)
{
    if (now_ms >= limit->next_ms) {
        uint64_t earned = limit->next_ms == 0 || interval_ms == 0
                              ? burst
                              : 1 + (now_ms - limit->next_ms) / interval_ms;

        limit->tokens = (uint32_t)MIN((uint64_t)burst, limit->tokens + earned);
        limit->next_ms = now_ms + interval_ms;
    }
    if (limit->tokens == 0) {
        limit->suppressed++;
        return false;
    }
    limit->tokens--;
    if (suppressed != NULL)
        *suppressed = limit->suppressed;
    limit->suppressed = 0;
    return true;
}
