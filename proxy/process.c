/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master asks for a configuration; each worker runs one struct proxy over one loop.
 *
 *     configure()     conf_load(), listeners of all pools (+ the stats port)   in the master
 *     health_init()   ejections go over to the new generation, by pool and server name
 *     worker_main()   io_ev + proxy + the channel to the master
 *
 * Everything that a callback of the loop needs hangs on struct process, which lives on worker_main()'s
 * stack.
 */
#include "config.h"

#include "proxy/process.h"

#include "common/base/mem.h"
#include "common/io/io_ev.h"
#include "nginx-style-master/crash.h"
#include "nginx-style-master/worker.h"
#include "proxy/control_path.h"
#include "proxy/proxy.h"
#include "proxy/stats_layout.h"
#include "proxy/stats_process.h"

#include <stdio.h>
#include <unistd.h>

#define HEARTBEAT_MS 500
/* `accept: mutex`: how long a holder keeps the sockets while it accepts, how long it then leaves them to
 * others, and how often those look. */
#define MUTEX_SLICE_ACCEPTS 32u
#define MUTEX_REST_MS       5
#define MUTEX_LOOK_MS       20
#define LISTENERS_TAG_STATS   UINT32_MAX
#define LISTENERS_TAG_CONTROL (UINT32_MAX - 1)

/* ---- in the master ---------------------------------------------------------------------------- */

struct process_config {
    struct conf *conf;                 /* owns */
    struct master_listener *listeners; /* owns */
    char control[CONTROL_PATH_MAX];    /* "": none */
};

static uint32_t process_workers(const struct conf *conf)
{
    return conf->process.workers != 0 ? conf->process.workers : master_cpu_count();
}

static void config_add_stats(const struct process_options *options, const struct conf *conf,
                             struct master_listener *listener)
{
    const struct conf_address *stats = &conf->process.stats_listen;

    *listener = (struct master_listener){.for_whom = MASTER_FOR_STATS, .tag = LISTENERS_TAG_STATS};
    listener->host = options->stats_host != NULL ? options->stats_host
                     : stats->text != NULL       ? stats->host
                                                 : "127.0.0.1";
    listener->port = options->stats_port >= 0 ? (uint16_t)options->stats_port
                     : stats->text != NULL    ? stats->port
                                              : 22222;
    if (stats->text != NULL && stats->path != NULL && options->stats_port < 0) {
        listener->path = stats->path;
        listener->mode = stats->mode;
    }
}

/* The socket's file, else the default one. False: there is no place for it. */
static bool config_add_control(const struct process_options *options, struct process_config *config,
                               const struct master_listener *stats, struct master_listener *listener)
{
    const char *path = config->conf->process.control;

    if (path != NULL && strlen(path) < sizeof(config->control)) {
        memcpy(config->control, path, strlen(path) + 1);
    } else if (path != NULL || !control_directory_make() || !control_default_path(stats->host, stats->port, config->control)) {
        log_line(options->log, LOG_WARN, "no control socket: its directory cannot be used; say control: in weir:");
        return false;
    }
    *listener = (struct master_listener){
        .path = config->control, .mode = 0600, .for_whom = MASTER_FOR_STATS, .tag = LISTENERS_TAG_CONTROL};
    return true;
}

static void config_add_pools(const struct conf *conf, struct master_listener *listeners)
{
    static const enum master_accept accepts[] = {
        [CONF_ACCEPT_reuseport] = MASTER_ACCEPT_REUSEPORT,
        [CONF_ACCEPT_exclusive] = MASTER_ACCEPT_EXCLUSIVE,
        [CONF_ACCEPT_mutex] = MASTER_ACCEPT_MUTEX,
    };

    for (uint32_t i = 0; i < conf->pools_count; i++) {
        const struct conf_pool *pool = &conf->pools[i];

        listeners[i] = (struct master_listener){
            .path = pool->listen.path,
            .host = pool->listen.host,
            .port = pool->listen.port,
            .mode = pool->listen.mode,
            .backlog = pool->backlog,
            .accept = accepts[conf->process.accept],
            .for_whom = MASTER_FOR_WORKERS,
            .tag = i,
        };
    }
}

/* All but the control socket, for which a directory may have to be made. */
static int config_make(const struct process_options *options, struct master_config *out, char error[MASTER_ERROR_SIZE])
{
    struct process_config *config;
    struct conf_error conf_error;
    struct stats_plan plan;
    struct conf *conf;
    int err = conf_load(options->conf_path, &conf, &conf_error);

    if (err != 0) {
        snprintf(error, MASTER_ERROR_SIZE, "%s", conf_error.text);
        return err;
    }
    if (stats_plan(conf, &plan) != 0) {
        snprintf(error, MASTER_ERROR_SIZE, "%s: too many servers: their counters need more than %u MiB",
                 options->conf_path, STATS_SEGMENT_MAX >> 20);
        conf_destroy(&conf);
        return ERR_FULL;
    }
    config = must_zalloc(sizeof(*config));
    config->conf = conf;
    config->listeners = must_zalloc(sizeof(*config->listeners) * (conf->pools_count + 2));
    config_add_pools(conf, config->listeners);
    config_add_stats(options, conf, &config->listeners[conf->pools_count]);
    *out = (struct master_config){
        .listeners = config->listeners,
        .listeners_count = conf->pools_count + 1,
        .workers = conf->process.workers,
        .replace = MASTER_REPLACE_OVERLAP,
        .cpu_affinity_auto = conf->process.cpu_affinity_auto,
        .cpus = conf->process.cpus,
        .cpus_count = conf->process.cpus_count,
        .user = conf->process.user,
        .group = conf->process.group,
        .rlimit_nofile = conf->process.rlimit_nofile,
        .drain_timeout_ms = (uint32_t)MAX(conf->process.drain_timeout_ms, (int64_t)0),
        .stats_size = plan.size,
        .health_size = health_area_size(proxy_health_slots(conf), conf->pools_count, process_workers(conf)),
        .arg = config,
    };
    return 0;
}

static int process_configure(void *arg, struct master_config *out, char error[MASTER_ERROR_SIZE])
{
    const struct process_options *options = arg;
    struct process_config *config;
    int err = config_make(options, out, error);

    if (err != 0)
        return err;
    config = out->arg;
    out->listeners_count += config_add_control(options, config, &config->listeners[config->conf->pools_count],
                                               &config->listeners[config->conf->pools_count + 1]);
    return 0;
}

static void process_release(void *arg, struct master_config *master_config)
{
    struct process_config *config = master_config->arg;

    MAYBE(arg);
    conf_destroy(&config->conf);
    mem_free(config->listeners);
    mem_free(config);
}

int process_check(const struct process_options *options, char error[MASTER_ERROR_SIZE])
{
    struct master_config master_config = {0};
    struct process_config *config;
    int err = config_make(options, &master_config, error);

    if (err != 0)
        return err;
    config = master_config.arg;
    err = master_check(&master_config, options->log_path != NULL ? options->log_path : config->conf->process.log_file,
                       options->pid_path != NULL ? options->pid_path : config->conf->process.pid_file, error);
    process_release(NULL, &master_config);
    return err;
}

/* The slot of a server of the old configuration by the names of its pool and itself. */
static const struct health_slot *health_find(const struct conf *conf, const struct health_area *area,
                                             const char *pool_name, const char *server_name)
{
    uint32_t slot = 0;

    for (uint32_t p = 0; p < conf->pools_count; p++) {
        const struct conf_pool *pool = &conf->pools[p];

        for (uint32_t i = 0; i < pool->servers_count; i++, slot++)
            if (strcmp(pool->name, pool_name) == 0 &&
                strcmp(pool->servers[i].name, server_name) == 0)
                return &area->slots[slot];
    }
    return NULL;
}

static void process_health_init(void *arg, const struct master_config *config, void *health,
                                const struct master_config *old_config, const void *old_health)
{
    const struct conf *conf = ((struct process_config *)config->arg)->conf;
    struct health_area *area = health;
    uint32_t slot = 0;

    MAYBE(arg);
    area->slot_count = proxy_health_slots(conf);
    area->pool_count = conf->pools_count;
    area->worker_count = process_workers(conf);
    if (old_config == NULL || old_health == NULL)
        return;
    for (uint32_t p = 0; p < conf->pools_count; p++) {
        for (uint32_t i = 0; i < conf->pools[p].servers_count; i++, slot++) {
            const struct health_slot *old =
                health_find(((struct process_config *)old_config->arg)->conf, old_health,
                            conf->pools[p].name, conf->pools[p].servers[i].name);

            if (old != NULL && conf->pools[p].auto_eject_hosts) {
                area->slots[slot] = *old;
                area->slots[slot].probe_owner = 0;
                area->version = 1;
            }
        }
    }
}

/* ---- in a worker ------------------------------------------------------------------------------ */

struct process_accept {
    struct io_listener listener;
    struct worker_listener *from; /* borrows */
    struct process *process;
    bool is_wanted; /* by the master: between accept(on) and accept(off) */
};

struct process {
    struct worker *worker;
    struct io *io;
    struct proxy *proxy;
    const struct conf *conf;
    struct io_watch channel;
    struct io_timer heartbeat, leave, mutex_look;
    struct io_hook load_hook;
    bool has_mutex, is_mutex_off; /* off: the master, who frees a dead holder's, is gone */
    uint32_t mutex_accepts;       /* since it was taken */
    struct process_accept *accepts; /* owns; one for each listener */
    uint32_t accepts_count;
    uint32_t load;
    bool is_over; /* told to stop, or the time to drain has passed */
    int exit_code;
};

static void process_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct process_accept *accept = CONTAINER_OF(listener, struct process_accept, listener);
    struct process *process = accept->process;
    uint32_t slot;

    process->mutex_accepts++;
    worker_load_set(process->worker, proxy_client_count(process->proxy));
    slot = worker_pick_for_accept(process->worker);
    if (slot != worker_slot(process->worker) && slot != WORKER_SLOT_NONE &&
        worker_pass(process->worker, slot, WORKER_PASS_ACCEPTED, accept->from, &fd, 1, BYTES_EMPTY,
                    0) == 0)
        return;
    proxy_accept(process->proxy, accept->from->tag, fd, peer);
    worker_load_set(process->worker, proxy_client_count(process->proxy));
}

/* ---- accept: mutex ---- */

/* Starts and stops the sockets under the mutex. true: the master wants any of them. */
static bool mutex_apply(struct process *process)
{
    bool is_any = false, is_on = process->has_mutex || process->is_mutex_off;

    for (uint32_t i = 0; i < process->accepts_count; i++) {
        struct process_accept *accept = &process->accepts[i];

        if (!accept->from->is_mutex)
            continue;
        is_any |= accept->is_wanted;
        if (accept->is_wanted && is_on && accept->listener.io == NULL)
            io_listener_start(process->io, &accept->listener, accept->from->fd);
        else if (!(accept->is_wanted && is_on))
            io_listener_stop(&accept->listener);
    }
    return is_any;
}

static void mutex_give_up(struct process *process, uint64_t look_ms)
{
    if (process->has_mutex)
        worker_mutex_release(process->worker);
    process->has_mutex = false;
    if (mutex_apply(process) && !process->is_mutex_off)
        io_timer_start(process->io, &process->mutex_look, look_ms);
    else
        io_timer_stop(&process->mutex_look);
}

static void mutex_look(struct io_timer *timer)
{
    struct process *process = timer->arg;

    process->has_mutex = !process->is_mutex_off && worker_mutex_try(process->worker);
    process->mutex_accepts = 0;
    if (!mutex_apply(process))
        mutex_give_up(process, 0);
    else if (!process->has_mutex && !process->is_mutex_off)
        io_timer_start(process->io, timer, MUTEX_LOOK_MS);
}

/* After a turn: who has accepted its share lets others have theirs. */
static void mutex_turn(struct process *process)
{
    if (process->has_mutex && process->mutex_accepts >= MUTEX_SLICE_ACCEPTS)
        mutex_give_up(process, MUTEX_REST_MS);
}

static void on_accept(struct worker *worker, struct worker_listener *from, bool on)
{
    struct process *process = worker_arg(worker);
    struct process_accept *accept = from->arg;

    if (from->tag == LISTENERS_TAG_STATS || accept == NULL)
        return;
    accept->is_wanted = on;
    if (!on)
        io_listener_stop(&accept->listener);
    accept->listener.is_exclusive = from->is_shared;
    if (!from->is_mutex && on)
        io_listener_start(process->io, &accept->listener, from->fd);
    else if (from->is_mutex && on)
        mutex_look(&process->mutex_look);
    else if (from->is_mutex && !mutex_apply(process))
        mutex_give_up(process, 0);
}

/* Whoever serves goes on; a new master finds us by our sockets. */
static void on_master_gone(struct worker *worker)
{
    struct process *process = worker_arg(worker);

    process->is_mutex_off = true;
    mutex_give_up(process, 0);
}

static void on_stop(struct worker *worker)
{
    struct process *process = worker_arg(worker);

    process->exit_code = MASTER_EXIT_DONE;
    process->is_over = true;
    io_stop(process->io);
}

static void process_leave(struct io_timer *timer)
{
    struct process *process = timer->arg;

    process->is_over = true;
    io_stop(process->io);
}

static void process_drained(void *arg)
{
    struct process *process = arg;

    if (worker_is_draining(process->worker))
        io_stop(process->io);
}

static void on_drain(struct worker *worker, uint32_t timeout_ms)
{
    struct process *process = worker_arg(worker);

    io_timer_start(process->io, &process->leave, timeout_ms);
    proxy_drain(process->proxy);
}

static void on_successor(struct worker *worker)
{
    struct process *process = worker_arg(worker);

    if (worker_is_draining(worker))
        proxy_drain(process->proxy);
}

static void on_passed(struct worker *worker, const struct worker_passed *passed)
{
    struct process *process = worker_arg(worker);
    struct io_addr peer = {0};

    if (passed->listener == NULL || passed->listener->tag >= process->conf->pools_count) {
        proxy_take_over(process->proxy, UINT32_MAX, passed->fds, passed->fds_count, BYTES_EMPTY);
        return;
    }
    if (passed->kind == WORKER_PASS_ACCEPTED)
        proxy_accept(process->proxy, passed->listener->tag, passed->fds[0], &peer);
    else
        proxy_take_over(process->proxy, passed->listener->tag, passed->fds, passed->fds_count,
                        passed->blob);
    worker_load_set(process->worker, proxy_client_count(process->proxy));
    /* It was on its way when we began to drain: on with it. */
    if (worker_is_draining(worker))
        proxy_drain(process->proxy);
}

/* Checked by the stats process; the workers are the last to know. */
static void on_set(struct worker *worker, const char *text)
{
    struct process *process = worker_arg(worker);

    proxy_set(process->proxy, bytes_of_string(text));
}

static const struct worker_handler process_handler = {
    .accept = on_accept,
    .stop = on_stop,
    .drain = on_drain,
    .successor = on_successor,
    .passed = on_passed,
    .master_gone = on_master_gone,
    .set = on_set,
};

/* The proxy wants an idle client to go to a newer generation. */
static int process_pass(void *arg, uint32_t pool_index, const int *fds, uint32_t fds_count,
                        struct bytes blob)
{
    struct process *process = arg;
    uint32_t slot = worker_pick_successor(process->worker);
    uint32_t count;
    struct worker_listener *listeners = worker_listeners(process->worker, &count);
    struct worker_listener *from = NULL;
    int err;

    if (slot == WORKER_SLOT_LATER)
        return ERR_AGAIN;
    if (slot == WORKER_SLOT_NONE)
        return ERR_NOT_FOUND;
    for (uint32_t i = 0; i < count && from == NULL; i++)
        if (listeners[i].tag == pool_index)
            from = &listeners[i];
    if (from == NULL)
        return ERR_NOT_FOUND;
    err = worker_pass(process->worker, slot, WORKER_PASS_CLIENT, from, fds, fds_count, blob, 0);
    return err == ERR_NOT_FOUND ? ERR_AGAIN : err; /* it has just died: the next attempt picks again */
}

static void process_channel_ready(struct io_watch *watch, bool readable, bool writable)
{
    struct process *process = watch->arg;

    MAYBE(readable);
    MAYBE(writable);
    worker_channel_ready(process->worker);
}

static void process_beat(struct io_timer *timer)
{
    struct process *process = timer->arg;

    worker_heartbeat(process->worker);
    io_timer_start(process->io, timer, HEARTBEAT_MS);
}

static void process_report_load(struct io_hook *hook)
{
    struct process *process = CONTAINER_OF(hook, struct process, load_hook);
    uint32_t load = proxy_client_count(process->proxy);

    mutex_turn(process);
    if (load != process->load) {
        process->load = load;
        worker_load_set(process->worker, load);
    }
}

static void process_watch_master(struct process *process)
{
    struct worker *worker = process->worker;
    struct worker_listener *listeners = worker_listeners(worker, &process->accepts_count);

    process->accepts = must_zalloc(sizeof(*process->accepts) * MAX(process->accepts_count, 1u));
    for (uint32_t i = 0; i < process->accepts_count; i++) {
        process->accepts[i].listener.accepted = process_accepted;
        process->accepts[i].from = &listeners[i];
        process->accepts[i].process = process;
        listeners[i].arg = &process->accepts[i];
    }
    worker_handler_set(worker, &process_handler, process);
    process->channel.ready = process_channel_ready;
    process->channel.arg = process;
    io_watch_start(process->io, &process->channel, worker_channel_fd(worker), true, false);
    process->heartbeat.fire = process_beat;
    process->heartbeat.arg = process;
    io_timer_start(process->io, &process->heartbeat, HEARTBEAT_MS);
    process->leave.fire = process_leave;
    process->leave.arg = process;
    process->mutex_look.fire = mutex_look;
    process->mutex_look.arg = process;
    process->load_hook.run = process_report_load;
    io_hook_add(process->io, &process->load_hook);
}

static int process_worker_main(struct worker *worker)
{
    const struct process_config *config = worker_config_arg(worker);
    struct io_ev_options io_options = {
        .log = worker_log(worker), .files = IO_FILES_NONE, .sockets = IO_SOCKETS_TOGETHER};
    struct process process = {.worker = worker, .conf = config->conf};
    struct proxy_options options = {
        .conf = config->conf,
        .worker_index = worker_index(worker),
        .worker_pid = getpid(),
        /* Below 2^53 for the sake of clients that have no better integers. */
        .client_id_base = (uint64_t)worker_generation(worker) << 36 | (uint64_t)worker_index(worker) << 28,
        .drained = process_drained,
        .pass = process_pass,
        .arg = &process,
        .note = &crash_note_,
    };
    /* The ring of the sockets first: it cannot be made in the sandbox. That before any thread is there, as Landlock covers
     * only the thread that asks. Without it we run as well. */
    int err = io_ev_create(&io_options, &process.io);
    int sandbox_err = worker_sandbox(worker);
    size_t size;

    if (sandbox_err != 0)
        log_info(worker_log(worker), "worker: no sandbox why=\"%s\"", err_text(sandbox_err));
    if (err != 0) {
        log_error(worker_log(worker), "worker: no event loop why=\"%s\"", err_text(err));
        return MASTER_EXIT_FATAL;
    }
    options.io = process.io;
    options.health = worker_health(worker, &size);
    options.stats = worker_stats(worker, &size);
    options.stats_are_old = worker_is_respawn(worker);
    err = proxy_create(&options, &process.proxy);
    if (err != 0) {
        log_error(worker_log(worker), "worker: the proxy cannot start why=\"%s\"", err_text(err));
        io_ev_destroy(&process.io);
        return MASTER_EXIT_FATAL;
    }
    process_watch_master(&process);
    worker_ready(worker);
    /* The last client may have gone, and another have been passed to us in the same turn. */
    do
        io_run(process.io);
    while (!process.is_over && proxy_client_count(process.proxy) > 0);
    proxy_destroy(&process.proxy);
    for (uint32_t i = 0; i < process.accepts_count; i++)
        io_listener_stop(&process.accepts[i].listener);
    io_watch_stop(&process.channel);
    io_timer_stop(&process.heartbeat);
    io_timer_stop(&process.leave);
    io_timer_stop(&process.mutex_look);
    io_hook_remove(process.io, &process.load_hook);
    io_ev_destroy(&process.io);
    mem_free(process.accepts);
    return process.exit_code;
}

static int process_stats_main(struct worker *worker)
{
    const struct process_options *options = worker_program_arg(worker);
    const struct process_config *config = worker_config_arg(worker);

    return stats_process_main(worker, config->conf, options->conf_path, LISTENERS_TAG_CONTROL);
}

void process_program(const struct process_options *options, struct log *log, int argc, char **argv,
                     struct master_program *out)
{
    *out = (struct master_program){
        .name = "weir-proxy",
        .version = PACKAGE_VERSION,
        .argc = argc,
        .argv = argv,
        .log = log,
        .pid_file = options->pid_path,
        .daemonize = options->daemonize,
        .arg = (void *)options,
        .stats_layout = "weir-proxy-1",
        .configure = process_configure,
        .release = process_release,
        .health_init = process_health_init,
        .worker_main = process_worker_main,
        .stats_main = process_stats_main,
    };
}
