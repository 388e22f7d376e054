/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket's verbs. One line in, "ok" or "error: why" and text out, then the connection closes.
 * What only the master can do is asked of it over the channel; its answer is the connection's.
 */
#include "config.h"

#include "proxy/control_path.h"
#include "proxy/health.h"
#include "proxy/stats_process.h"
#include "proxy/where.h"

#include <inttypes.h>
#include <stdio.h>

#define ARGS_MAX        8u
#define NO_MASTER       "there is no master: it was killed, the workers go on without it"
#define LIST_COUNT_MAX  1024u
#define MASTER_WAIT_MS  90000u /* a reload or an upgrade takes as long as its workers need to be ready */
#define CLIENTS_WAIT_MS 1300u  /* workers write the list once a second */

struct args {
    struct bytes items[ARGS_MAX];
    uint32_t count;
    struct bytes rest; /* all behind the verb, as it came */
};

static struct stats_process *process_of(const struct http_conn *conn)
{
    return conn->server->arg;
}

static void answer_ok(struct http_conn *conn)
{
    buffer_append_string(&conn->out, "ok\n");
}

static void answer_error(struct http_conn *conn, const char *text)
{
    buffer_append_format(&conn->out, "error: %s\n", text);
}

static void print_to_buffer(void *arg, const char *text, size_t len)
{
    buffer_append(arg, text, len);
}

static struct stats_lists lists_of(struct http_conn *conn, const struct args *args, uint32_t count_max)
{
    uint64_t wanted = count_max;

    if (args->count > 0 && !bytes_to_u64(args->items[0], LIST_COUNT_MAX, &wanted))
        wanted = count_max;
    return (struct stats_lists){
        .worker = process_of(conn)->worker,
        .now_ms = io_now_ms(process_of(conn)->io),
        .count_max = (uint32_t)wanted,
    };
}

/* ---- what the master does ---------------------------------------------------------------------------- */

static void ask_master(struct http_conn *conn, enum worker_request request, struct bytes text)
{
    struct stats_process *process = process_of(conn);
    char copy[HTTP_HEAD_MAX + 1];
    int err;

    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    err = worker_request(process->worker, request, copy, &conn->request_id);
    if (err == ERR_EOF) {
        answer_error(conn, NO_MASTER);
    } else if (err != 0) {
        answer_error(conn, err_text(err));
    } else {
        http_conn_wait(conn, MASTER_WAIT_MS);
    }
}

void control_replied(struct stats_process *process, uint64_t id, int err, const char *text)
{
    LIST_FOR_EACH (&process->http.conns, node) {
        struct http_conn *conn = CONTAINER_OF(node, struct http_conn, node);

        if (conn->state != HTTP_WAITING || conn->request_id != id)
            continue;
        if (err != 0)
            answer_error(conn, text[0] != '\0' ? text : err_text(err));
        else
            answer_ok(conn);
        http_conn_answer(conn);
        return;
    }
}

void control_master_gone(struct stats_process *process)
{
    LIST_FOR_EACH (&process->http.conns, node) {
        struct http_conn *conn = CONTAINER_OF(node, struct http_conn, node);

        if (conn->state == HTTP_WAITING && conn->request_id != 0) {
            answer_error(conn, NO_MASTER);
            http_conn_answer(conn);
        }
    }
}

static void verb_reload(struct http_conn *conn, const struct args *args)
{
    MAYBE(args->count);
    ask_master(conn, WORKER_REQUEST_RELOAD, BYTES_EMPTY);
}

static void verb_reopen(struct http_conn *conn, const struct args *args)
{
    MAYBE(args->count);
    ask_master(conn, WORKER_REQUEST_REOPEN, BYTES_EMPTY);
}

static void verb_upgrade(struct http_conn *conn, const struct args *args)
{
    ask_master(conn, WORKER_REQUEST_UPGRADE, args->rest);
}

static void verb_quit(struct http_conn *conn, const struct args *args)
{
    MAYBE(args->count);
    ask_master(conn, WORKER_REQUEST_QUIT, BYTES_EMPTY);
}

static void verb_stop(struct http_conn *conn, const struct args *args)
{
    MAYBE(args->count);
    ask_master(conn, WORKER_REQUEST_STOP, BYTES_EMPTY);
}

static void verb_log_level(struct http_conn *conn, const struct args *args)
{
    struct bytes level = args->items[0];
    uint64_t number;

    if (!bytes_equal(level, BYTES("+")) && !bytes_equal(level, BYTES("-")) && !bytes_to_u64(level, 11, &number))
        answer_error(conn, "the level is 0 (emerg) to 11, 5 is notice, 7 debug; or + or -");
    else
        ask_master(conn, WORKER_REQUEST_LOG_LEVEL, level);
}

/* ---- settings -------------------------------------------------------------------------------------------- */

static void remember_change(struct stats_process *process, const struct conf_live_change *change)
{
    for (uint32_t i = 0; i < process->changes_count; i++) {
        if (strcmp(process->changes[i].key, change->key) == 0) {
            memcpy(process->changes[i].to, change->to, sizeof(change->to));
            return;
        }
    }
    if (process->changes_count < STATS_CHANGES_MAX)
        process->changes[process->changes_count++] = *change;
}

int control_set(struct stats_process *process, struct bytes text, struct conf_error *error)
{
    struct conf_live_change change;
    int err = conf_live_set(process->conf, text, &change, error);

    if (err == 0)
        remember_change(process, &change);
    return err;
}

static void verb_set(struct http_conn *conn, const struct args *args)
{
    struct conf_error error;

    if (args->count == 0) {
        answer_ok(conn);
        conf_live_list(process_of(conn)->conf, print_to_buffer, &conn->out);
    } else if (args->count != 2) {
        answer_error(conn, "set takes a key and a value, or nothing to list all keys");
    } else if (control_set(process_of(conn), args->rest, &error) != 0) {
        /* Without the path that a file's errors start with. */
        answer_error(conn, strncmp(error.text, "set: conf: ", 11) == 0 ? error.text + 11 : error.text);
    } else {
        ask_master(conn, WORKER_REQUEST_SET, args->rest);
    }
}

/* ---- what is to be seen ---------------------------------------------------------------------------------- */

static void status_workers(const struct view *view, struct buffer *out)
{
    for (uint32_t i = 0; i < view->workers_count; i++) {
        const struct view_worker *worker = &view->workers[i];

        buffer_append_format(out, "worker %-3u pid %-8d %-10s configuration %-4u %7u clients %8.1f MiB",
                             worker->info.index, (int)worker->info.pid, view_worker_state(worker->info.state),
                             worker->info.generation, worker->info.load,
                             (double)worker->memory_bytes / (1 << 20));
        if (worker->info.respawns > 0)
            buffer_append_format(out, "  forked again %u times", worker->info.respawns);
        if (worker->info.heartbeat_age_ms > 3000)
            buffer_append_format(out, "  silent for %" PRIu64 " ms", worker->info.heartbeat_age_ms);
        buffer_append_string(out, "\n");
    }
}

/* In the middle of an upgrade. */
static void status_other_master(const struct view *view, struct buffer *out)
{
    for (uint32_t i = 0; i < view->workers_count; i++) {
        pid_t other = view->workers[i].info.master_pid;

        if (other == view->master.pid || view->workers[i].info.state != WORKER_STATE_SERVING)
            continue;
        buffer_append_format(out,
                             "an upgrade is under way: master %d serves as well; QUIT to it (or to us, to back out) "
                             "ends that\n",
                             (int)other);
        return;
    }
}

static void status_pools(const struct view *view, struct buffer *out)
{
    for (uint32_t p = 0; p < view->pools_count; p++) {
        const struct view_pool *pool = &view->pools[p];

        buffer_append_format(out, "pool ");
        printable(out, pool->name);
        buffer_append_format(out, "  %s  %" PRIu64 " clients, %" PRIu64 " requests, p50 %" PRIu64 " us, p99 %" PRIu64
                             " us\n",
                             pool->conf == NULL ? "(of an older configuration)" : pool->conf->listen.text,
                             pool->cells[POOL_COUNT_client_connections], pool->cells[POOL_COUNT_client_requests],
                             histogram_quantile(&pool->latency, 5000), histogram_quantile(&pool->latency, 9900));
        for (uint32_t s = pool->servers; s != VIEW_NONE; s = view->servers[s].next) {
            const struct view_member *server = &view->servers[s];

            if (server->health != NULL && server->health->is_ejected)
                buffer_append_format(out, "  server %.*s is ejected, %u failures\n", BYTES_ARG(server->name),
                                     server->health->failure_count);
        }
    }
}

static void verb_status(struct http_conn *conn, const struct args *args)
{
    struct stats_process *process = process_of(conn);
    struct view view;

    MAYBE(args->count);
    view_init(&view, process->worker, process->conf, io_wall_us(process->io) / 1000000);
    answer_ok(conn);
    buffer_append_format(&conn->out,
                         "weir-proxy " PACKAGE_VERSION "  master pid %d  up %" PRIu64 " s  configuration %u of %s\n"
                         "%" PRIu64 " clients, %" PRIu64 " connections since the start\n"
                         "reloads %" PRIu64 " (%" PRIu64 " refused)  upgrades %" PRIu64 " (%" PRIu64
                         " backed out)  crashes %" PRIu64 "  log level %d\n",
                         (int)view.master.pid, view.uptime_s, view.master.generation, process->conf_path, view.clients,
                         view.total_connections, view.master.reloads, view.master.reloads_failed,
                         view.master.upgrades, view.master.upgrades_failed, view.master.crashes,
                         view.master.log_level);
    if (!worker_has_master(process->worker))
        buffer_append_string(&conn->out, "the master is gone: the workers go on, nothing can be reloaded\n");
    status_other_master(&view, &conn->out);
    status_workers(&view, &conn->out);
    status_pools(&view, &conn->out);
    for (uint32_t i = 0; i < process->changes_count; i++)
        if (strcmp(process->changes[i].from, process->changes[i].to) != 0)
            buffer_append_format(&conn->out, "set %s %s  (the file says %s; until the next reload)\n",
                                 process->changes[i].key, process->changes[i].to, process->changes[i].from);
    view_deinit(&view);
}

static void verb_table(struct http_conn *conn, const struct args *args)
{
    struct view view;

    MAYBE(args->count);
    view_init(&view, process_of(conn)->worker, process_of(conn)->conf, io_wall_us(process_of(conn)->io) / 1000000);
    answer_ok(conn);
    stats_text_table(&view, &conn->out);
    view_deinit(&view);
}

static void verb_stats(struct http_conn *conn, const struct args *args)
{
    struct stats_lists lists = lists_of(conn, args, 128);
    struct view view;

    view_init(&view, process_of(conn)->worker, process_of(conn)->conf, io_wall_us(process_of(conn)->io) / 1000000);
    answer_ok(conn);
    stats_text_json(&view, process_of(conn)->host_name, &lists, &conn->out);
    view_deinit(&view);
}

static void verb_slowlog(struct http_conn *conn, const struct args *args)
{
    struct stats_lists lists = lists_of(conn, args, 32);

    answer_ok(conn);
    stats_lists_slowlog(&lists, &conn->out);
}

static void verb_hotkeys(struct http_conn *conn, const struct args *args)
{
    struct stats_lists lists = lists_of(conn, args, 16);

    answer_ok(conn);
    stats_lists_hotkeys(&lists, &conn->out);
}

static void verb_bigkeys(struct http_conn *conn, const struct args *args)
{
    struct stats_lists lists = lists_of(conn, args, 64);

    answer_ok(conn);
    stats_lists_bigkeys(&lists, &conn->out);
}

/* The workers are asked to write their lists; they do within a second. */
static void verb_clients(struct http_conn *conn, const struct args *args)
{
    struct stats_process *process = process_of(conn);
    size_t size;
    struct health_area *health = worker_health(process->worker, &size);

    MAYBE(args->count);
    if (health == NULL || size < sizeof(*health)) {
        answer_error(conn, "no worker can be asked");
        return;
    }
    __atomic_store_n(&health->clients_wanted_ms, io_clock_us(process->io) / 1000, __ATOMIC_RELAXED);
    conn->request_id = 0;
    http_conn_wait(conn, CLIENTS_WAIT_MS);
}

void control_waited(struct http_conn *conn)
{
    static const struct args none;

    if (conn->request_id != 0) {
        answer_error(conn, "the master has not answered in time; its log may say why");
    } else {
        struct stats_lists lists = lists_of(conn, &none, LIST_COUNT_MAX);

        answer_ok(conn);
        stats_lists_clients(&lists, &conn->out);
    }
    http_conn_answer(conn);
}

static bool is_ejected(void *arg, uint32_t pool_index, uint32_t server_index)
{
    const struct stats_process *process = arg;
    size_t size;
    const struct health_area *health = worker_health(process->worker, &size);
    uint32_t slot = server_index;

    for (uint32_t p = 0; p < pool_index; p++)
        slot += process->conf->pools[p].servers_count;
    return health != NULL && size >= sizeof(*health) && slot < health->slot_count &&
           __atomic_load_n(&health->slots[slot].is_ejected, __ATOMIC_RELAXED) != 0;
}

/* where KEY, or where POOL KEY: the key is what is left of the line, blanks and all. */
static void verb_where(struct http_conn *conn, const struct args *args)
{
    struct where where = {.conf = process_of(conn)->conf, .is_ejected = is_ejected, .arg = process_of(conn)};
    struct buffer out = {0};
    struct bytes key = args->rest;
    char pool[256] = "";

    if (args->count > 1 && args->items[0].len < sizeof(pool)) {
        memcpy(pool, args->items[0].data, args->items[0].len);
        if (conf_pool_by_name(process_of(conn)->conf, args->items[0]) != NULL) {
            where.pool = pool;
            key = bytes_skip(key, args->items[0].len + 1);
        }
    }
    if (where_print(&where, key, print_to_buffer, &out) != 0)
        answer_error(conn, "there is no such pool");
    else
        answer_ok(conn);
    buffer_append(&conn->out, out.data, out.len);
    buffer_deinit(&out);
}

static void verb_config(struct http_conn *conn, const struct args *args)
{
    MAYBE(args->count);
    answer_ok(conn);
    conf_describe(process_of(conn)->conf, print_to_buffer, &conn->out);
}

static void verb_help(struct http_conn *conn, const struct args *args);

static const struct verb {
    const char *name, *args, *text;
    uint32_t args_min, args_max;
    void (*run)(struct http_conn *conn, const struct args *args);
} verbs[] = {
    {"status", "", "master, workers, pools, what was set", 0, 0, verb_status},
    {"stats", "", "everything, as JSON", 0, 0, verb_stats},
    {"table", "", "everything, tab-separated", 0, 0, verb_table},
    {"slowlog", "[COUNT]", "the latest slow requests", 0, 1, verb_slowlog},
    {"hotkeys", "[COUNT]", "the keys that are asked for most", 0, 1, verb_hotkeys},
    {"bigkeys", "[COUNT]", "the largest values seen", 0, 1, verb_bigkeys},
    {"clients", "", "who is connected", 0, 0, verb_clients},
    {"where", "[POOL] KEY", "which server a key is on, and why", 1, ARGS_MAX, verb_where},
    {"config", "", "the configuration in force", 0, 0, verb_config},
    {"set", "[KEY VALUE]", "change a value until the next reload; alone: list them", 0, 2, verb_set},
    {"log-level", "N", "0..11, or + or -", 1, 1, verb_log_level},
    {"reload", "", "read the file again", 0, 0, verb_reload},
    {"reopen", "", "open the log file again", 0, 0, verb_reopen},
    {"upgrade", "[BINARY]", "put a new binary in place of the running one", 0, 1, verb_upgrade},
    {"quit", "", "finish what is in flight and end", 0, 0, verb_quit},
    {"stop", "", "end now", 0, 0, verb_stop},
    {"help", "", "this list", 0, 0, verb_help},
};

static void verb_help(struct http_conn *conn, const struct args *args)
{
    MAYBE(args->count);
    answer_ok(conn);
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++)
        buffer_append_format(&conn->out, "%-10s %-12s %s\n", verbs[i].name, verbs[i].args, verbs[i].text);
}

/* ---- the line -------------------------------------------------------------------------------------------- */

static struct bytes trimmed(struct bytes line)
{
    while (line.len > 0 && (line.data[line.len - 1] == ' ' || line.data[line.len - 1] == '\r'))
        line.len--;
    while (line.len > 0 && line.data[0] == ' ')
        line = bytes_skip(line, 1);
    return line;
}

static void split(struct bytes rest, struct args *args)
{
    args->rest = rest;
    while (rest.len > 0 && args->count < ARGS_MAX) {
        const char *blank = memchr(rest.data, ' ', rest.len);
        size_t len = blank == NULL ? rest.len : (size_t)(blank - rest.data);

        if (len > 0)
            args->items[args->count++] = bytes_first(rest, len);
        rest = bytes_skip(rest, len + 1);
    }
}

void control_line(struct http_conn *conn, struct bytes line)
{
    const char *blank;
    struct args args = {.count = 0};
    const struct verb *verb = NULL;
    struct bytes name;

    line = trimmed(line);
    blank = memchr(line.data, ' ', line.len);
    name = bytes_first(line, blank == NULL ? line.len : (size_t)(blank - line.data));
    split(trimmed(bytes_skip(line, name.len)), &args);
    for (size_t i = 0; i < ARRAY_COUNT(verbs) && verb == NULL; i++)
        if (bytes_equal(name, bytes_of_string(verbs[i].name)))
            verb = &verbs[i];
    if (verb == NULL)
        answer_error(conn, "no such verb; help lists them");
    else if (args.count < verb->args_min || args.count > verb->args_max)
        buffer_append_format(&conn->out, "error: it is %s %s\n", verb->name, verb->args);
    else
        verb->run(conn, &args);
    if (conn->state == HTTP_READING)
        http_conn_answer(conn);
}
