/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master asks for a configuration; each worker runs one shard over one loop.
 *
 *     configure()     settings, the directory and its name, a port for each worker       in the master
 *     worker_main()   sandbox, io_ev, node (recovers), then worker_ready(): connections are accepted
 *     HUP             apply(): memory, disk, fsync, password, clients_max, in place
 *     USR2            the worker of the new binary claims the shard (process_handover.c)
 *     TERM, QUIT      node_close(): replies that are committed leave, a checkpoint is written
 *     master gone     the same, within a second
 *
 * A directory has one writer, so a worker is never replaced by another beside it. A shard that cannot be opened
 * ends with MASTER_EXIT_DISK, which the master does not try again.
 */
#include "config.h"

#include "backend/process_private.h"

#include "backend/cmd/settings.h"
#include "common/base/mem.h"
#include "common/io/io_ev.h"

#include <stdio.h>

#define HEARTBEAT_MS   500u
#define STATS_MS       500u
#define TAG_STATS      UINT32_MAX
#define READY_MS       (24u * 3600u * 1000u) /* recovery takes what it takes: its heartbeat says that it lives */
#define STOP_MS        (10u * 60u * 1000u)   /* a clean stop writes a checkpoint of all keys */
#define WATCHDOG_MS    60000u                /* one command may take seconds (KEYS, SORT, DEBUG SLEEP), Redis's do too */
#define SETTINGS_SIZE  2048u
#define TURN_STREAMS_US 300u                 /* the replies take about as long again */
#define TURN_FILES_US   200u
#define TURN_STEPS_US   250u
#define EXIT_AGAIN     1

/* ---- in the master ------------------------------------------------------------------------------------- */

struct process_config {
    struct node_conf *conf;            /* owns */
    struct master_listener *listeners; /* owns */
    char settings[SETTINGS_SIZE];
    char dir[PATH_MAX];                /* absolute */
    char name[DIRECTORY_NAME_SIZE];    /* of the directory, for the log ring */
    uint32_t workers;
};

static void config_listeners(struct process_config *config)
{
    const struct node_conf *conf = config->conf;

    for (uint32_t i = 0; i < config->workers; i++)
        config->listeners[i] = (struct master_listener){.host = conf->listen.host,
                                                        .port = (uint16_t)(conf->listen.port + i),
                                                        .for_whom = MASTER_FOR_WORKER,
                                                        .only_worker = i,
                                                        .tag = i};
    config->listeners[config->workers] = (struct master_listener){
        .host = conf->stats.host, .port = conf->stats.port, .for_whom = MASTER_FOR_STATS, .tag = TAG_STATS};
}

/* What apply() gets: a line for each setting that a running worker takes over. */
static void config_settings(struct process_config *config)
{
    const struct node_conf *conf = config->conf;

    snprintf(config->settings, sizeof(config->settings),
             "maxmemory %llu\nmaxmemory-clients %llu\nmaxdisk %llu\nappendfsync %s\nmaxclients %u\nrequirepass %s\n",
             (unsigned long long)(conf->memory / config->workers),
             (unsigned long long)(conf->clients_memory / config->workers), (unsigned long long)(conf->disk / config->workers),
             node_conf_fsync_names[conf->fsync], conf->clients_max, conf->password != NULL ? conf->password : "");
}

static int config_read(const struct process_options *options, struct process_config **out, char error[MASTER_ERROR_SIZE])
{
    struct process_config *config = must_zalloc(sizeof(*config));
    struct conf_error conf_error;
    int err = node_conf_read(options->conf_path, options->options, options->options_count, &config->conf, &conf_error);

    if (err != 0) {
        snprintf(error, MASTER_ERROR_SIZE, "%s", conf_error.text);
        mem_free(config);
        return err;
    }
    config->workers = config->conf->workers != 0 ? config->conf->workers : master_cpu_count();
    *out = config;
    return 0;
}

static void config_free(struct process_config *config)
{
    node_conf_destroy(&config->conf);
    mem_free(config->listeners);
    explicit_bzero(config->settings, sizeof(config->settings));
    mem_free(config);
}

static void config_fill(struct process_config *config, struct master_config *out)
{
    config->listeners = must_zalloc((config->workers + 1) * sizeof(*config->listeners));
    config_listeners(config);
    config_settings(config);
    *out = (struct master_config){
        .listeners = config->listeners,
        .listeners_count = config->workers + 1,
        .workers = config->workers,
        .replace = MASTER_REPLACE_IN_PLACE,
        .cpu_affinity_auto = config->conf->cpu_affinity,
        .user = config->conf->user,
        .group = config->conf->group,
        .rlimit_nofile = config->conf->rlimit_nofile,
        .drain_timeout_ms = (uint32_t)config->conf->drain_timeout_ms,
        .stop_timeout_ms = STOP_MS,
        .ready_timeout_ms = READY_MS,
        .watchdog_ms = WATCHDOG_MS,
        .stats_size = stats_process_segment_size(),
        .no_sandbox = !config->conf->sandbox,
        .settings = config->settings,
        .arg = config,
    };
}

static int process_configure(void *arg, struct master_config *out, char error[MASTER_ERROR_SIZE])
{
    const struct process_options *options = arg;
    struct process_config *config;
    int err = config_read(options, &config, error);

    if (err != 0)
        return err;
    err = directory_open(options->start_dir, config->conf->dir, config->conf->user, config->dir, sizeof(config->dir),
                         config->name, error, MASTER_ERROR_SIZE);
    if (err == 0)
        err = directory_shards(config->dir, config->workers, config->conf->user, error, MASTER_ERROR_SIZE);
    if (err == 0)
        config_fill(config, out);
    else
        config_free(config);
    return err;
}

int process_check(const struct process_options *options, char error[MASTER_ERROR_SIZE])
{
    struct master_config master_config;
    struct process_config *config;
    int err = config_read(options, &config, error);

    if (err != 0)
        return err;
    config_fill(config, &master_config);
    err = directory_check(config->conf->dir, config->workers, error, MASTER_ERROR_SIZE);
    if (err == 0)
        err = master_check(&master_config, config->conf->log_file, config->conf->pid_file, error);
    config_free(config);
    return err;
}

static bool is_same_text(const char *a, const char *b)
{
    return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

/* What a running worker cannot take over. One that is forked again would, and would look for its data elsewhere. */
static int process_may_change(void *arg, const struct master_config *from, const struct master_config *to,
                              char error[MASTER_ERROR_SIZE])
{
    const struct process_config *old = from->arg, *new = to->arg;
    const struct node_conf *a = old->conf, *b = new->conf;
    const struct {
        const char *key;
        bool is_same;
    } keys[] = {
        {"dir", strcmp(old->dir, new->dir) == 0 && strcmp(old->name, new->name) == 0},
        {"namespaces", memcmp(a->namespaces, b->namespaces, sizeof(a->namespaces)) == 0},
        {"memcache_db", a->memcache_db == b->memcache_db},
        {"segment_size", a->segment_size == b->segment_size},
        {"ring_size", a->ring_size == b->ring_size},
        {"direct", a->direct == b->direct},
        {"sandbox", a->sandbox == b->sandbox},
        {"insecure", a->insecure == b->insecure},
        {"user", is_same_text(a->user, b->user)},
        {"group", is_same_text(a->group, b->group)},
        {"rlimit_nofile", a->rlimit_nofile == b->rlimit_nofile},
        {"cpu_affinity", a->cpu_affinity == b->cpu_affinity},
        {"pid_file", is_same_text(a->pid_file, b->pid_file)},
        {"log_file", is_same_text(a->log_file, b->log_file)},
        {"log_level", a->log_level == b->log_level},
    };

    MAYBE(arg);
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        if (!keys[i].is_same) {
            snprintf(error, MASTER_ERROR_SIZE, "%s: a change needs a new start", keys[i].key);
            return ERR_INVALID;
        }
    return 0;
}

static void process_release(void *arg, struct master_config *master_config)
{
    struct process_config *config = master_config->arg;

    MAYBE(arg);
    config_free(config);
}

/* ---- in a worker ----------------------------------------------------------------------------------------- */

static void process_closed(void *arg, int err)
{
    struct process *process = arg;

    if (err != 0) {
        log_error(worker_log(process->worker), "shard: was not closed in order; the next start replays the log "
                                               "shard=%u why=\"%s\"",
                  worker_index(process->worker), err_text(err));
    }
    io_stop(process->io);
}

/* Nothing is accepted any more; what is committed is answered, the store is closed. */
static void process_leave(struct process *process)
{
    if (process->is_leaving || handover_leave(process))
        return;
    process->is_leaving = true;
    for (uint32_t i = 0; i < process->listeners_count; i++)
        io_listener_stop(&process->listeners[i]);
    io_timer_stop(&process->leave);
    node_close(process->node, process_closed, process);
}

static void on_stop(struct worker *worker)
{
    process_leave(worker_arg(worker));
}

/* Nobody would start us again, nor tell us to stop. */
static void on_master_gone(struct worker *worker)
{
    log_warn(worker_log(worker), "shard: closes as if told to stop, its master is gone shard=%u", worker_index(worker));
    process_leave(worker_arg(worker));
}

/* SHUTDOWN: the node, not just this shard. */
static void on_shutdown(void *arg)
{
    struct process *process = arg;
    uint64_t id;

    log_notice(worker_log(process->worker), "shard: a client asks the node to stop shard=%u",
               worker_index(process->worker));
    if (worker_request(process->worker, WORKER_REQUEST_STOP, "", &id) != 0)
        io_timer_start(process->io, &process->leave, 0); /* no master: the others leave by themselves */
}

static void leave_fired(struct io_timer *timer)
{
    process_leave(timer->arg);
}

void process_drain(struct process *process, uint32_t timeout_ms)
{
    node_drain(process->node);
    io_timer_start(process->io, &process->leave, timeout_ms);
}

static void on_drain(struct worker *worker, uint32_t timeout_ms)
{
    struct process *process = worker_arg(worker);

    if (process->is_leaving || handover_drain(process, timeout_ms))
        return;
    if (process->is_open)
        process_drain(process, timeout_ms);
    else
        process_leave(process);
}

static void on_accept(struct worker *worker, struct worker_listener *from, bool on)
{
    struct process *process = worker_arg(worker);
    struct io_listener *listener = from->arg;

    if (listener == NULL || from->tag != worker_index(worker))
        return;
    listener->is_exclusive = from->is_shared;
    if (on && process->is_open && !process->is_leaving) {
        handover_serve(process);
        if (!process->handover.is_holding)
            io_listener_start(process->io, listener, from->fd);
    } else {
        io_listener_stop(listener);
    }
}

void process_listen(struct process *process, bool on)
{
    uint32_t count;
    struct worker_listener *listeners = worker_listeners(process->worker, &count);

    for (uint32_t i = 0; i < count; i++)
        if (listeners[i].is_accepting)
            on_accept(process->worker, &listeners[i], on);
}

static void on_passed(struct worker *worker, const struct worker_passed *passed)
{
    handover_claimed(worker_arg(worker), passed);
}

/* It has a password in it. */
static void settings_forget(struct process *process)
{
    if (process->settings != NULL)
        explicit_bzero(process->settings, strlen(process->settings));
    mem_free(process->settings);
    process->settings = NULL;
}

static void settings_apply(struct process *process)
{
    struct bytes rest = bytes_of_string(process->settings);

    while (rest.len > 0) {
        const char *newline = memchr(rest.data, '\n', rest.len);
        size_t len = newline != NULL ? (size_t)(newline - rest.data) : rest.len;

        node_apply(process->node, bytes_first(rest, len));
        rest = bytes_skip(rest, len + 1);
    }
    settings_forget(process);
    log_notice(worker_log(process->worker), "shard: has the new settings shard=%u", worker_index(process->worker));
}

static void on_apply(struct worker *worker, const char *settings)
{
    struct process *process = worker_arg(worker);

    settings_forget(process);
    process->settings = must_strdup(settings);
    if (process->is_open && !process->is_leaving)
        settings_apply(process);
}

static const struct worker_handler process_handler = {
    .accept = on_accept,
    .stop = on_stop,
    .drain = on_drain,
    .apply = on_apply,
    .passed = on_passed,
    .master_gone = on_master_gone,
};

static void process_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct process *process = listener->arg;

    node_accept(process->node, fd, peer);
    worker_load_set(process->worker, node_client_count(process->node));
}

static void channel_ready(struct io_watch *watch, bool readable, bool writable)
{
    struct process *process = watch->arg;

    MAYBE(readable);
    MAYBE(writable);
    worker_channel_ready(process->worker);
}

static void beat(struct io_timer *timer)
{
    struct process *process = timer->arg;

    worker_heartbeat(process->worker);
    handover_beat(process);
    if (process->is_open && !process->is_leaving) {
        worker_load_set(process->worker, node_client_count(process->node));
        if (node_is_drained(process->node))
            process_leave(process);
    }
    io_timer_start(process->io, timer, HEARTBEAT_MS);
}

static void write_stats(struct io_timer *timer)
{
    struct process *process = timer->arg;

    if (process->is_open && !process->is_leaving)
        stats_writer_write(&process->stats, process->node);
    io_timer_start(process->io, timer, STATS_MS);
}

void process_end_loop(struct process *process, int exit_code)
{
    process->is_over = true;
    process->exit_code = exit_code;
    io_stop(process->io);
}

static void process_opened(void *arg, int err)
{
    struct process *process = arg;

    if (err != 0 && handover_open_again(process, err))
        return;
    if (err != 0) {
        /* Forked again while an upgrade is under way: the new binary's worker has it, and may yet fail. */
        bool is_later = err == ERR_EXISTS && worker_is_respawn(process->worker);

        log_error(worker_log(process->worker), "shard: cannot be opened, it %s shard=%u dir=%s why=\"%s\"%s",
                  is_later ? "is tried again" : "stays down", worker_index(process->worker), process->config->dir,
                  err_text(err),
                  err == ERR_CORRUPT ? " help=\"weirctl verify DIR names all damage; restore a backup, or weirctl salvage\""
                                     : "");
        process_end_loop(process, is_later ? EXIT_AGAIN : MASTER_EXIT_DISK);
        return;
    }
    process->is_open = true;
    log_notice(worker_log(process->worker), "shard: open shard=%u listen=%s:%u keys=%llu dir=%s",
               worker_index(process->worker), process->config->conf->listen.host,
               process->config->conf->listen.port + worker_index(process->worker),
               (unsigned long long)node_key_count(process->node), process->dir);
    handover_opened(process);
    if (process->settings != NULL)
        settings_apply(process);
}

static void process_watch(struct process *process)
{
    struct worker *worker = process->worker;
    struct worker_listener *listeners = worker_listeners(worker, &process->listeners_count);

    process->listeners = must_zalloc(sizeof(*process->listeners) * MAX(process->listeners_count, 1u));
    for (uint32_t i = 0; i < process->listeners_count; i++) {
        process->listeners[i].accepted = process_accepted;
        process->listeners[i].arg = process;
        listeners[i].arg = &process->listeners[i];
    }
    worker_handler_set(worker, &process_handler, process);
    process->channel.ready = channel_ready;
    process->channel.arg = process;
    io_watch_start(process->io, &process->channel, worker_channel_fd(worker), true, false);
    process->heartbeat.fire = beat;
    process->stats_timer.fire = write_stats;
    process->leave.fire = leave_fired;
    process->heartbeat.arg = process->stats_timer.arg = process->leave.arg = process;
    io_timer_start(process->io, &process->heartbeat, HEARTBEAT_MS);
    io_timer_start(process->io, &process->stats_timer, STATS_MS);
}

static void process_end(struct process *process)
{
    node_destroy(&process->node);
    handover_deinit(process);
    for (uint32_t i = 0; i < process->listeners_count; i++)
        io_listener_stop(&process->listeners[i]);
    io_watch_stop(&process->channel);
    io_timer_stop(&process->heartbeat);
    io_timer_stop(&process->stats_timer);
    io_timer_stop(&process->leave);
    stats_writer_deinit(&process->stats);
    settings_forget(process);
    io_ev_destroy(&process->io);
    mem_free(process->listeners);
}

static int process_open_node(struct process *process)
{
    const struct process_config *config = process->config;
    const struct node_conf *conf = config->conf;
    uint32_t shard = worker_index(process->worker);
    struct node_options options = {.io = process->io,
                                   .log = worker_log(process->worker),
                                   .arg = process,
                                   .opened = process_opened};

    options.store.dir = process->dir;
    options.store.ring_path = process->ring;
    options.store.shard = shard;
    options.store.shard_count = config->workers;
    options.store.fsync = (enum store_fsync)conf->fsync;
    options.store.memory_max = conf->memory / config->workers;
    options.store.disk_max = conf->disk / config->workers;
    options.store.file_system = directory_file_system(config->dir) / config->workers;
    options.store.segment_size = conf->segment_size;
    options.store.ring_size = conf->ring_size;
    options.store.direct = conf->direct == NODE_DIRECT_TRUE ||
                           (conf->direct == NODE_DIRECT_AUTO && conf->fsync == STORE_FSYNC_ALWAYS);
    options.store.touch_ahead = true;
    memcpy(options.store.namespaces, conf->namespaces, sizeof(conf->namespaces));
    options.engine.port = (uint16_t)(conf->listen.port + shard);
    options.engine.password = conf->password;
    options.engine.clients_memory = conf->clients_memory / config->workers;
    options.engine.needs_password = !conf->insecure && !conf_address_is_local(&conf->listen);
    options.engine.config_file = ((const struct process_options *)worker_program_arg(process->worker))->conf_path;
    options.engine.memcache_db = (uint8_t)conf->memcache_db;
    options.engine.clients_max = conf->clients_max;
    options.engine.dir = process->dir;
    options.engine.stop = on_shutdown;
    options.engine.stop_arg = process;
    options.engine.is_cache = conf->namespaces[0].is_cache;
    return node_create(&options, &process->node);
}

void process_open(struct process *process)
{
    int err = process_open_node(process);

    if (err != 0)
        process_opened(process, err);
}

static int process_worker_main(struct worker *worker)
{
    struct process process = {.worker = worker, .config = worker_config_arg(worker), .exit_code = MASTER_EXIT_DONE};
    const char *const written[] = {process.config->dir, "/dev/shm"};
    struct io_ev_options io_options = {
        .log = worker_log(worker), .files = IO_FILES_BEST, .sockets = IO_SOCKETS_TOGETHER,
        .streams_us = TURN_STREAMS_US, .files_us = TURN_FILES_US, .steps_us = TURN_STEPS_US, .start_threads = true,
    };
    int sandbox_err, err;

    /* Folders before any thread is there, as Landlock covers only the thread that asks; calls when the rings are,
     * and the allocator's thread. */
    sandbox_err = worker_sandbox_folders(worker, written, ARRAY_COUNT(written));
    err = io_ev_create(&io_options, &process.io);
    if (err != 0) {
        log_error(worker_log(worker), "shard: no event loop why=\"%s\"", err_text(err));
        return MASTER_EXIT_FATAL;
    }
    mem_purge_aside();
    if (worker_sandbox_calls(worker) != 0 && sandbox_err != 0)
        log_info(worker_log(worker), "shard: no sandbox why=\"%s\"", err_text(sandbox_err));
    snprintf(process.ring, sizeof(process.ring), "/dev/shm/weir-%s-%u", process.config->name, worker_index(worker));
    snprintf(process.dir, sizeof(process.dir), "%s/shard-%u", process.config->dir, worker_index(worker));
    handover_init(&process);
    process_watch(&process);
    handover_start(&process);
    if (!process.is_over)
        io_run(process.io);
    process_end(&process);
    return process.exit_code;
}

static int process_stats_main(struct worker *worker)
{
    return stats_process_main(worker);
}

void process_program(const struct process_options *options, int argc, char **argv, struct master_program *out)
{
    *out = (struct master_program){
        .name = "weir-backend",
        .version = PACKAGE_VERSION,
        .argc = argc,
        .argv = argv,
        .log = options->log,
        .pid_file = options->pid_path,
        .daemonize = options->daemonize,
        .arg = (void *)(uintptr_t)options,
        .stats_layout = "weir-backend-1",
        .configure = process_configure,
        .release = process_release,
        .may_change = process_may_change,
        .worker_main = process_worker_main,
        .stats_main = process_stats_main,
    };
}
