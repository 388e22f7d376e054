/* SPDX-License-Identifier: Apache-2.0 */
/*
 * top - two tables a while apart, and what happened in between: rates, and percentiles of just this time.
 */
#include "ctl/ctl.h"

#include "common/base/mem.h"
#include "common/stats/histogram.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define ROWS_MAX 100000u

/* A line of the table: kind, labels, then key=value, all between tabs. */
struct row {
    struct bytes kind, pool, name;
    struct bytes values; /* from the first key=value on */
    double rate;         /* requests a second, to sort by */
};

struct snapshot {
    struct buffer text; /* owns */
    struct row *rows;   /* owns; views into text */
    uint32_t count;
    double at_s;
};

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static struct bytes take_field(struct bytes *line)
{
    const char *tab = memchr(line->data, '\t', line->len);
    struct bytes field = bytes_first(*line, tab == NULL ? line->len : (size_t)(tab - line->data));

    *line = bytes_skip(*line, field.len + 1);
    return field;
}

static void parse_row(struct bytes line, struct row *row)
{
    *row = (struct row){.kind = take_field(&line), .pool = BYTES_EMPTY, .name = BYTES_EMPTY};
    if (bytes_equal(row->kind, BYTES("pool"))) {
        row->pool = row->name = take_field(&line);
    } else if (bytes_equal(row->kind, BYTES("server")) || bytes_equal(row->kind, BYTES("command"))) {
        row->pool = take_field(&line);
        row->name = take_field(&line);
    }
    row->values = line;
}

static int snapshot_take(const char *path, struct snapshot *out)
{
    struct bytes rest;
    uint32_t cap = 0;
    int code;

    *out = (struct snapshot){.at_s = now_s()};
    code = ctl_ask(path, "table", &out->text);
    if (code != CTL_OK) {
        if (code == CTL_FAILED)
            fprintf(stderr, "weirctl: %.*s", (int)out->text.len, out->text.data == NULL ? "" : out->text.data);
        buffer_deinit(&out->text);
        return code;
    }
    rest = buffer_bytes(&out->text);
    while (rest.len > 0 && out->count < ROWS_MAX) {
        const char *end = memchr(rest.data, '\n', rest.len);
        struct bytes line = bytes_first(rest, end == NULL ? rest.len : (size_t)(end - rest.data));

        if (out->count == cap) {
            cap = MAX(cap * 2, 64u);
            out->rows = must_realloc(out->rows, sizeof(*out->rows) * cap);
        }
        parse_row(line, &out->rows[out->count++]);
        rest = bytes_skip(rest, line.len + 1);
    }
    return CTL_OK;
}

static void snapshot_free(struct snapshot *snapshot)
{
    buffer_deinit(&snapshot->text);
    mem_free(snapshot->rows);
    snapshot->rows = NULL;
    snapshot->count = 0;
}

static struct bytes row_value(const struct row *row, const char *key)
{
    struct bytes rest = row->values;
    size_t key_len = strlen(key);

    while (rest.len > 0) {
        struct bytes field = take_field(&rest);

        if (field.len > key_len && field.data[key_len] == '=' && memcmp(field.data, key, key_len) == 0)
            return bytes_skip(field, key_len + 1);
    }
    return BYTES_EMPTY;
}

static uint64_t row_number(const struct row *row, const char *key)
{
    uint64_t value = 0;

    if (row == NULL || !bytes_to_u64(row_value(row, key), UINT64_MAX, &value))
        return 0;
    return value;
}

static void row_histogram(const struct row *row, struct histogram *out)
{
    struct bytes rest = row == NULL ? BYTES_EMPTY : row_value(row, "latency");

    memset(out, 0, sizeof(*out));
    while (rest.len > 0) {
        const char *comma = memchr(rest.data, ',', rest.len);
        struct bytes item = bytes_first(rest, comma == NULL ? rest.len : (size_t)(comma - rest.data));
        const char *colon = memchr(item.data, ':', item.len);
        uint64_t index, count;

        rest = bytes_skip(rest, item.len + 1);
        if (colon != NULL &&
            bytes_to_u64(bytes_first(item, (size_t)(colon - item.data)), HISTOGRAM_BUCKETS - 1, &index) &&
            bytes_to_u64(bytes_skip(item, (size_t)(colon - item.data) + 1), UINT64_MAX, &count)) {
            out->buckets[index] = count;
            out->max = histogram_bucket_high((uint32_t)index);
        }
    }
}

static const struct row *snapshot_find(const struct snapshot *snapshot, const struct row *like, uint32_t hint)
{
    for (uint32_t i = 0; i < snapshot->count; i++) {
        const struct row *row = &snapshot->rows[(hint + i) % snapshot->count];

        if (bytes_equal(row->kind, like->kind) && bytes_equal(row->pool, like->pool) &&
            bytes_equal(row->name, like->name))
            return row;
    }
    return NULL;
}

/* ---- what happened in between ------------------------------------------------------------------------ */

struct between {
    const struct row *now, *before; /* before NULL: it is new */
    struct histogram latency;
    double seconds;
};

static void between_init(struct between *out, const struct snapshot *before, const struct snapshot *now,
                         const struct row *row)
{
    struct histogram old;

    out->now = row;
    out->before = snapshot_find(before, row, (uint32_t)(row - now->rows));
    out->seconds = MAX(now->at_s - before->at_s, 0.001);
    row_histogram(row, &out->latency);
    row_histogram(out->before, &old);
    out->latency.max = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        out->latency.buckets[i] -= MIN(old.buckets[i], out->latency.buckets[i]);
        if (out->latency.buckets[i] > 0)
            out->latency.max = histogram_bucket_high(i);
    }
}

static double rate(const struct between *between, const char *key)
{
    uint64_t now = row_number(between->now, key), before = row_number(between->before, key);

    return now < before ? 0 : (double)(now - before) / between->seconds;
}

static const char *duration(char out[16], uint64_t us)
{
    if (us < 10000)
        snprintf(out, 16, "%" PRIu64 "us", us);
    else if (us < 10000000)
        snprintf(out, 16, "%.1fms", (double)us / 1e3);
    else
        snprintf(out, 16, "%.1fs", (double)us / 1e6);
    return out;
}

static void print_times(const struct histogram *latency)
{
    char p50[16], p99[16], max[16];

    if (histogram_count(latency) == 0) {
        printf(" %8s %8s %8s", "-", "-", "-");
        return;
    }
    printf(" %8s %8s %8s", duration(p50, histogram_quantile(latency, 5000)),
           duration(p99, histogram_quantile(latency, 9900)), duration(max, histogram_quantile(latency, 10000)));
}

/* ---- the screen ----------------------------------------------------------------------------------------- */

static void print_head(const struct snapshot *snapshot)
{
    uint32_t workers = 0;

    for (uint32_t i = 0; i < snapshot->count; i++)
        workers += bytes_equal(snapshot->rows[i].kind, BYTES("worker"));
    for (uint32_t i = 0; i < snapshot->count; i++) {
        const struct row *row = &snapshot->rows[i];
        uint64_t up_s;

        if (!bytes_equal(row->kind, BYTES("master")))
            continue;
        up_s = row_number(row, "uptime");
        printf("weir-proxy %.*s  up %" PRIu64 "d %02u:%02u:%02u  configuration %" PRIu64 "  %u workers  %" PRIu64
               " clients  buffers %.1f MiB  crashes %" PRIu64 "\n",
               BYTES_ARG(row_value(row, "version")), up_s / 86400, (unsigned)(up_s / 3600 % 24),
               (unsigned)(up_s / 60 % 60), (unsigned)(up_s % 60), row_number(row, "generation"), workers,
               row_number(row, "clients"), (double)row_number(row, "memory_bytes") / (1 << 20),
               row_number(row, "crashes"));
    }
}

static void print_pool(const struct between *between)
{
    printf("%-32.*s %10.0f %8.0f %8" PRIu64 " %9.2f %9.2f", BYTES_ARG(between->now->name),
           rate(between, "client_requests"), rate(between, "forward_error") + rate(between, "client_protocol_error"),
           row_number(between->now, "client_connections"), rate(between, "client_request_bytes") / 1e6,
           rate(between, "client_response_bytes") / 1e6);
    print_times(&between->latency);
    printf("\n");
}

static void print_server(const struct between *between)
{
    printf("  %-30.*s %10.0f %8.0f %8" PRIu64 " %9" PRIu64 " %9" PRIu64, BYTES_ARG(between->now->name),
           rate(between, "responses"),
           rate(between, "server_err") + rate(between, "server_timedout") + rate(between, "connect_failures"),
           row_number(between->now, "server_connections"), row_number(between->now, "in_queue"),
           row_number(between->now, "out_queue"));
    print_times(&between->latency);
    printf("%s\n", row_number(between->now, "is_ejected") != 0 ? "  EJECTED" : "");
}

static void print_command(const struct between *between)
{
    uint64_t count = histogram_count(&between->latency);
    double misses = rate(between, "misses") * between->seconds;

    printf("  %-30.*s %10.0f %8.0f %7.1f%% %9s %9s", BYTES_ARG(between->now->name),
           (double)count / between->seconds, rate(between, "errors"),
           count == 0 ? 0.0 : 100 * misses / (double)count, "", "");
    print_times(&between->latency);
    printf("\n");
}

static int row_compare(const void *a, const void *b)
{
    double x = (*(const struct row *const *)a)->rate, y = (*(const struct row *const *)b)->rate;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* Rows of a kind, the busiest first, as many as there is room for. */
static void print_kind(const struct snapshot *before, const struct snapshot *now, const char *kind,
                       const char *by, uint32_t room, void (*print)(const struct between *))
{
    struct row **chosen = must_alloc(sizeof(*chosen) * MAX(now->count, 1u));
    struct between *between = must_alloc(sizeof(*between));
    uint32_t count = 0;

    for (uint32_t i = 0; i < now->count; i++) {
        struct row *row = &now->rows[i];

        if (!bytes_equal(row->kind, bytes_of_string(kind)))
            continue;
        between_init(between, before, now, row);
        row->rate = by == NULL ? (double)histogram_count(&between->latency) : rate(between, by);
        chosen[count++] = row;
    }
    qsort(chosen, count, sizeof(chosen[0]), row_compare);
    for (uint32_t i = 0; i < count && i < room; i++) {
        between_init(between, before, now, chosen[i]);
        print(between);
    }
    if (count > room)
        printf("  ... %u more\n", count - room);
    mem_free(between);
    mem_free(chosen);
}

static void print_screen(const struct snapshot *before, const struct snapshot *now, uint32_t lines)
{
    uint32_t room = MAX(lines > 12 ? (lines - 8) / 3 : 2, 1u);

    print_head(now);
    printf("\n%-32s %10s %8s %8s %9s %9s %8s %8s %8s\n", "pool", "req/s", "err/s", "clients", "MB/s in", "MB/s out",
           "p50", "p99", "max");
    print_kind(before, now, "pool", "client_requests", room, print_pool);
    printf("%-32s %10s %8s %8s %9s %9s %8s %8s %8s\n", "  server", "replies/s", "err/s", "conns", "queued",
           "in flight", "p50", "p99", "max");
    print_kind(before, now, "server", "responses", room, print_server);
    printf("%-32s %10s %8s %8s %9s %9s %8s %8s %8s\n", "  command", "req/s", "err/s", "misses", "", "", "p50", "p99",
           "max");
    print_kind(before, now, "command", NULL, room, print_command);
}

/* ---- the terminal ----------------------------------------------------------------------------------------- */

static uint32_t terminal_lines(void)
{
    struct winsize size;

    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
}

/* Waits; false: a key says to end (q), or input is over. Keys come at once, as the terminal is in raw mode. */
static bool wait_or_key(double seconds, bool has_keys)
{
    double until = now_s() + seconds;

    for (double left = seconds; left > 0; left = until - now_s()) {
        struct pollfd ready = {.fd = has_keys ? STDIN_FILENO : -1, .events = POLLIN};
        char key;

        if (poll(&ready, 1, (int)(left * 1000) + 1) < 0)
            return false; /* a signal */
        if (ready.revents != 0 && (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q' || key == 3))
            return false;
    }
    return true;
}

static int top_loop(const char *path, const struct ctl_options *options, bool is_tty, bool has_keys)
{
    struct snapshot before, now;
    int count = options->count > 0 ? options->count : is_tty ? 0 : 1;
    int code = snapshot_take(path, &before);

    if (code != CTL_OK)
        return code;
    for (int screen = 0; count == 0 || screen < count; screen++) {
        if (!wait_or_key(options->interval_s, has_keys))
            break;
        code = snapshot_take(path, &now);
        if (code != CTL_OK)
            break;
        if (is_tty)
            fputs("\033[H\033[J", stdout);
        print_screen(&before, &now, is_tty ? terminal_lines() : 100);
        fflush(stdout);
        snapshot_free(&before);
        before = now;
    }
    snapshot_free(&before);
    return code;
}

int ctl_top(const struct ctl_options *options)
{
    bool is_tty = isatty(STDOUT_FILENO), has_keys = is_tty && isatty(STDIN_FILENO);
    struct termios saved, raw;
    char path[512];
    int code = ctl_find(options, path, sizeof(path));

    if (code != CTL_OK)
        return code;
    if (has_keys && tcgetattr(STDIN_FILENO, &saved) == 0) {
        /* Ctrl-C comes as a byte, so that the terminal is put right again. */
        raw = saved;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    } else {
        has_keys = false;
    }
    code = top_loop(path, options, is_tty, has_keys);
    if (has_keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &saved);
    return code;
}
