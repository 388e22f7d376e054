/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master's life: setup, then one poll() over the signals, the children's channels and the guards.
 */
#include "nginx-style-master/master.h"
#include "common/base/mem.h"
#include "nginx-style-master/crash.h"
#include "nginx-style-master/private.h"
#include "nginx-style-master/signals.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS        500u
#define SLOTS_A_WORKER (2 * MASTER_GENERATIONS_MAX) /* two masters during an upgrade */

/* ---- small things ------------------------------------------------------------------------- */

void master_title_setup(int argc, char **argv)
{
    title_setup(argc, argv);
}

/* configure() may return several lines. */
void master_log_lines(struct master *master, const char *what, const char *text)
{
    struct bytes rest = bytes_of_string(text);

    while (rest.len > 0) {
        const char *end = memchr(rest.data, '\n', rest.len);
        struct bytes line = bytes_first(rest, end == NULL ? rest.len : (size_t)(end - rest.data));

        log_error(master->log, "%s: %.*s", what, BYTES_ARG(line));
        rest = bytes_skip(rest, line.len + 1);
    }
}

void master_reply(struct master *master, pid_t requester, uint64_t *id, int err, const char *text)
{
    struct channel_message message = {.type = CHANNEL_REPLY, .id = *id, .value = (uint32_t)-err};
    struct child *child = *id == 0 ? NULL : child_by_pid(master, requester);

    *id = 0;
    if (child != NULL && child->channel >= 0)
        channel_try_send(child->channel, &message, text, -1);
}

/* Tells every worker, of all generations. */
static void tell_all(struct master *master, enum channel_type type, uint32_t value,
                     const char *text, int fd, bool stats_too)
{
    LIST_FOR_EACH (&master->generations, node) {
        struct generation *generation = CONTAINER_OF(node, struct generation, node);

        for (uint32_t i = 0; i < generation->workers; i++)
            child_tell(&generation->children[i], type, value, text, fd);
        if (stats_too)
            child_tell(&generation->stats, type, value, text, fd);
    }
}

/* Relative paths mean the directory of the start, also after chdir("/"). */
void master_enter_start_dir(struct master *master)
{
    if (master->program->daemonize && master->cwd_fd >= 0 && fchdir(master->cwd_fd) != 0)
        log_warn(master->log, "cannot enter the directory of the start: %s", err_text(-errno));
}

void master_leave_start_dir(struct master *master)
{
    if (master->program->daemonize && chdir("/") != 0)
        MAYBE(errno);
}

/* ---- slots -------------------------------------------------------------------------------- */

void master_slot_retired(struct master *master, uint32_t slot)
{
    if (master->program->stats_main == NULL) {
        MAYBE(shm_fold(&master->shm, slot, NULL, NULL));
        return;
    }
    if (master->serving != NULL)
        child_tell(&master->serving->stats, CHANNEL_RETIRED, slot, NULL, -1);
}

/* ---- leaving ------------------------------------------------------------------------------ */

static void leave_all(struct master *master, bool at_once)
{
    if (master->starting != NULL)
        reload_abort(master);
    master->serving = NULL;
    LIST_FOR_EACH (&master->generations, node)
        generation_leave(CONTAINER_OF(node, struct generation, node), at_once);
    /* Else connections would come to a queue that nobody looks at, for as long as the drain lasts. */
    listeners_close(&master->listeners);
}

static void master_stop(struct master *master)
{
    if (!master->is_stopping)
        log_notice(master->log, "stopping");
    master->is_stopping = true;
    leave_all(master, true);
}

void master_quit(struct master *master)
{
    if (!master->is_quitting)
        log_notice(master->log, "draining, then stopping");
    master->is_quitting = true;
    leave_all(master, false);
}

static void generations_reap(struct master *master)
{
    LIST_FOR_EACH (&master->generations, node) {
        struct generation *generation = CONTAINER_OF(node, struct generation, node);

        if (generation->state == GENERATION_LEAVING && generation_is_gone(generation))
            generation_destroy(generation);
    }
}

/* ---- signals and requests ----------------------------------------------------------------- */

static void logs_reopen(struct master *master)
{
    int err, fd = log_fd(master->log);

    master_enter_start_dir(master);
    err = log_reopen(master->log);
    master_leave_start_dir(master);
    if (err != 0)
        log_error(master->log, "the log cannot be opened again: %s", err_text(err));
    tell_all(master, CHANNEL_REOPEN, 0, NULL, fd == STDERR_FILENO ? -1 : fd, true);
}

static void level_set(struct master *master, int level)
{
    log_set_level(master->log, level);
    level = log_level(master->log);
    atomic_store(&master->self->log_level, level);
    log_notice(master->log, "log level is %d", level);
    tell_all(master, CHANNEL_LOG_LEVEL, (uint32_t)level, NULL, -1, true);
}

static void winch(struct master *master)
{
    const struct generation *now = master->serving != NULL ? master->serving : master->starting;

    if (now != NULL && now->config.replace == MASTER_REPLACE_IN_PLACE) {
        log_notice(master->log, "WINCH is not heeded, as nobody else can serve what the workers own: QUIT drains and stops");
        return;
    }
    log_notice(master->log, "draining the workers, the master stays");
    if (master->starting != NULL)
        reload_abort(master);
    if (master->serving != NULL)
        generation_leave(master->serving, false);
    master->serving = NULL;
}

static void upgrade_by_signal(struct master *master)
{
    char error[MASTER_ERROR_SIZE];

    if (upgrade_start(master, NULL, error) != 0)
        log_error(master->log, "%s", error);
}

static void signal_handle(struct master *master, int number)
{
    switch (number) {
    case SIGTERM:
    case SIGINT:
        master_stop(master);
        break;
    case SIGQUIT:
        master_quit(master);
        break;
    case SIGHUP:
        logs_reopen(master);
        reload_begin(master);
        break;
    case SIGUSR1:
        logs_reopen(master);
        break;
    case SIGUSR2:
        upgrade_by_signal(master);
        break;
    case SIGWINCH:
        winch(master);
        break;
    case SIGTTIN:
        level_set(master, log_level(master->log) + 1);
        break;
    case SIGTTOU:
        level_set(master, log_level(master->log) - 1);
        break;
    default:
        break; /* CHLD: the children are looked at in any case */
    }
}

static void children_reap(struct master *master)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct child *child = child_by_pid(master, pid);

        if (child != NULL)
            child_died(child, status);
        else if (pid == master->upgrade.pid)
            upgrade_died(master, status);
    }
}

static int request_level(struct master *master, const char *text)
{
    uint64_t level;

    if (strcmp(text, "+") == 0)
        level_set(master, log_level(master->log) + 1);
    else if (strcmp(text, "-") == 0)
        level_set(master, log_level(master->log) - 1);
    else if (bytes_to_u64(bytes_of_string(text), LOG_LEVEL_MAX, &level))
        level_set(master, (int)level);
    else
        return ERR_INVALID;
    return 0;
}

/* For workers to come. The same key (what stands before the first blank) again takes its old place. */
static bool sets_remember(struct master *master, const char *text)
{
    size_t key_len = strcspn(text, " ");
    uint32_t at = 0;

    while (at < master->sets_count && (strncmp(master->sets[at], text, key_len) != 0 ||
                                       (master->sets[at][key_len] != ' ' && master->sets[at][key_len] != '\0')))
        at++;
    if (at == MASTER_SETS_MAX)
        return false;
    if (at < master->sets_count)
        mem_free(master->sets[at]);
    else
        master->sets_count++;
    master->sets[at] = must_strdup(text);
    return true;
}

static int request_set(struct master *master, const char *text)
{
    if (master->serving == NULL)
        return ERR_AGAIN;
    if (!sets_remember(master, text))
        return ERR_FULL;
    for (uint32_t i = 0; i < master->serving->workers; i++)
        child_tell(&master->serving->children[i], CHANNEL_SET, 0, text, -1);
    return 0;
}

static void request_handle(struct master *master, struct child *child,
                           const struct channel_message *message, const char *text)
{
    char error[MASTER_ERROR_SIZE] = "";
    uint64_t id = message->id;
    pid_t pid = child->pid;
    int err = 0;

    /* From another process: any number. */
    switch ((enum worker_request)MIN(message->value, (uint32_t)WORKER_REQUEST_MAX_)) {
    case WORKER_REQUEST_RELOAD:
        if (master->reload_request_id != 0) {
            err = ERR_AGAIN;
            break;
        }
        master->reload_request_id = id;
        master->reload_requester = pid;
        reload_begin(master);
        return;
    case WORKER_REQUEST_UPGRADE:
        err = upgrade_start(master, text, error);
        if (err != 0)
            break;
        master->upgrade.request_id = id;
        master->upgrade.requester = pid;
        return;
    case WORKER_REQUEST_REOPEN:
        logs_reopen(master);
        break;
    case WORKER_REQUEST_LOG_LEVEL:
        err = request_level(master, text);
        break;
    case WORKER_REQUEST_SET:
        err = request_set(master, text);
        break;
    case WORKER_REQUEST_QUIT:
        master_reply(master, pid, &id, 0, "");
        master_quit(master);
        return;
    case WORKER_REQUEST_STOP:
        master_reply(master, pid, &id, 0, "");
        master_stop(master);
        return;
    case WORKER_REQUEST_MAX_:
        err = ERR_INVALID;
        break;
    }
    master_reply(master, pid, &id, err, error[0] != '\0' || err == 0 ? error : err_text(err));
}

static void child_is_ready(struct master *master, struct child *child)
{
    if (child->is_ready || child->is_leaving)
        return;
    child->is_ready = true;
    if (child->generation->state != GENERATION_SERVING)
        return;
    for (uint32_t i = 0; i < master->sets_count; i++)
        child_tell(child, CHANNEL_SET, 0, master->sets[i], -1);
    if (child->is_stats) {
        generation_stats_accept(child->generation,
                                !(master->upgrade.pid != 0 && master->upgrade.is_ready));
        return;
    }
    shm_slot_move(&master->shm, child->slot, WORKER_STATE_SERVING);
    generation_assign_lanes(child->generation);
}

static void child_channel_read(struct master *master, struct child *child)
{
    for (int i = 0; i < 64 && child->channel >= 0; i++) {
        struct channel_message message;
        int fd, err = channel_recv(child->channel, &message, master->text, &fd);

        if (fd >= 0)
            close(fd);
        if (err == ERR_AGAIN)
            return;
        if (err == ERR_EOF) {
            close(child->channel); /* it is on its way out; waitpid() will tell */
            child->channel = -1;
            return;
        }
        if (err != 0)
            continue;
        if (message.type == CHANNEL_READY) {
            child_is_ready(master, child);
        } else if (message.type == CHANNEL_LEAVING) {
            child->is_ready = false;
            generation_assign_lanes(child->generation);
        } else if (message.type == CHANNEL_REQUEST && (child->is_stats || message.value == WORKER_REQUEST_STOP)) {
            /* A worker speaks with strangers: it may ask for the end, and for nothing else. */
            request_handle(master, child, &message, master->text);
        }
    }
}

/* ---- the loop ----------------------------------------------------------------------------- */

enum poll_source { POLL_SIGNAL, POLL_PARENT, POLL_UPGRADE, POLL_GUARD, POLL_CHILD };

struct poll_set {
    struct pollfd *fds; /* own both */
    struct {
        enum poll_source source;
        pid_t pid;
    } *what;
    uint32_t count, cap;
};

static void poll_add(struct poll_set *set, int fd, enum poll_source source, pid_t pid)
{
    if (fd < 0)
        return;
    if (set->count == set->cap) {
        set->cap = MAX(32u, set->cap * 2);
        set->fds = must_realloc(set->fds, set->cap * sizeof(*set->fds));
        set->what = must_realloc(set->what, set->cap * sizeof(*set->what));
    }
    set->fds[set->count] = (struct pollfd){.fd = fd, .events = POLLIN};
    set->what[set->count].source = source;
    set->what[set->count++].pid = pid;
}

static void poll_fill(struct master *master, struct poll_set *set)
{
    set->count = 0;
    poll_add(set, master->signal_fd, POLL_SIGNAL, 0);
    poll_add(set, master->parent_channel, POLL_PARENT, 0);
    poll_add(set, master->upgrade.channel, POLL_UPGRADE, 0);
    LIST_FOR_EACH (&master->generations, node) {
        struct generation *generation = CONTAINER_OF(node, struct generation, node);

        for (uint32_t i = 0; i < generation->workers; i++)
            poll_add(set, generation->children[i].channel, POLL_CHILD,
                     generation->children[i].pid);
        poll_add(set, generation->stats.channel, POLL_CHILD, generation->stats.pid);
    }
    LIST_FOR_EACH (&master->listeners.list, node)
        poll_add(set, CONTAINER_OF(node, struct listener, node)->guard_fd, POLL_GUARD, 0);
}

static void parent_read(struct master *master)
{
    struct channel_message message;
    int fd, err = channel_recv(master->parent_channel, &message, master->text, &fd);

    if (fd >= 0)
        close(fd);
    if (err != ERR_EOF)
        return;
    log_notice(master->log, "the old master has left");
    close(master->parent_channel);
    master->parent_channel = -1;
    master->tick_at_ms = 0;
}

static void poll_handle(struct master *master, struct poll_set *set)
{
    /* Signals first: when a terminal's INT has ended the workers too, they must not be forked again. */
    for (int number; (number = signals_take(master->signal_fd, NULL)) != 0;)
        signal_handle(master, number);
    for (uint32_t i = 0; i < set->count; i++) {
        struct child *child;

        if (set->fds[i].revents == 0)
            continue;
        switch (set->what[i].source) {
        case POLL_SIGNAL:
            break;
        case POLL_PARENT:
            if (master->parent_channel >= 0)
                parent_read(master);
            break;
        case POLL_UPGRADE:
            if (master->upgrade.channel >= 0)
                upgrade_event(master);
            break;
        case POLL_GUARD:
            takeover_answer_live(set->fds[i].fd, getpid());
            break;
        case POLL_CHILD:
            child = child_by_pid(master, set->what[i].pid);
            if (child != NULL)
                child_channel_read(master, child);
            break;
        }
    }
}

static int poll_timeout(const struct master *master)
{
    uint64_t at_ms = master->tick_at_ms, now_ms = shm_now_ms();

    for (struct list_node *node = list_first(&master->generations); node != NULL;
         node = list_next(&master->generations, node)) {
        uint64_t deadline_ms =
            generation_deadline(CONTAINER_OF(node, struct generation, node));

        at_ms = MIN(at_ms, deadline_ms);
    }
    return at_ms <= now_ms ? 0 : (int)MIN(at_ms - now_ms + 1, (uint64_t)TICK_MS);
}

static void master_tick(struct master *master)
{
    uint64_t now_ms = shm_now_ms();
    /* We ourselves did not run: the machine stood still, so the workers' silence means nothing. */
    bool is_late = now_ms > master->tick_last_ms + TICK_MS + 1000;

    LIST_FOR_EACH (&master->generations, node)
        generation_tick(CONTAINER_OF(node, struct generation, node), now_ms, is_late);
    upgrade_tick(master, now_ms);
    if (now_ms < master->tick_at_ms)
        return;
    master->tick_last_ms = now_ms;
    master->tick_at_ms = now_ms + TICK_MS;
    upgrade_beat(master);
    orphans_tick(master, now_ms);
}

static void master_loop(struct master *master)
{
    struct poll_set set = {0};

    master->tick_last_ms = shm_now_ms();
    for (;;) {
        children_reap(master);
        reload_check(master);
        generations_reap(master);
        if ((master->is_stopping || master->is_quitting) &&
            list_is_empty(&master->generations))
            break;
        if (master->is_reload_due)
            reload_begin(master);
        poll_fill(master, &set);
        if (poll(set.fds, set.count, poll_timeout(master)) > 0)
            poll_handle(master, &set);
        master_tick(master);
    }
    mem_free(set.fds);
    mem_free(set.what);
}

/* ---- setup -------------------------------------------------------------------------------- */

static int start_error(struct master *master, const char *error)
{
    master_log_lines(master, "start failed", error);
    if (log_fd(master->log) != STDERR_FILENO)
        fprintf(stderr, "%s: start failed: %s\n", master->program->name, error);
    return 1;
}

/* Whoever serves one of our addresses: a living master is an error, orphans are taken over from. */
static int look_for_predecessor(struct master *master, const struct master_config *config,
                                struct inherit *inherit, char *error)
{
    for (uint32_t i = 0; i < MIN(config->listeners_count, LISTENER_GUARDS_MAX); i++) {
        struct sockaddr_storage addr;
        socklen_t addr_len;
        char name[HANDOVER_NAME_MAX];
        pid_t pid;
        int err = listener_resolve(&config->listeners[i], &addr, &addr_len, name, error);

        if (err != 0)
            return err;
        err = takeover_probe(name, inherit, &pid);
        if (err == -EADDRINUSE)
            snprintf(error, MASTER_ERROR_SIZE, "listen: %s is served already, by the master pid %d",
                     name, (int)pid);
        else if (err == ERR_TIMEOUT || err == ERR_EOF)
            snprintf(error, MASTER_ERROR_SIZE,
                     "listen: %s: somebody holds it and does not answer: %s", name, err_text(err));
        else if (err != 0)
            snprintf(error, MASTER_ERROR_SIZE, "listen: %s: cannot ask who holds it: %s%s", name,
                     err_text(err), privilege_nofile_hint(err));
        if (err != 0)
            return err;
        if (inherit->count > 0) {
            log_notice(master->log, "taking over from the workers of a dead master listen=%s",
                       name);
            return 0;
        }
    }
    return 0;
}

static void adopt_entry(struct master *master, struct inherit_entry *entry)
{
    uint64_t slot = 0;
    bool is_slot = bytes_to_u64(bytes_of_string(entry->text),
                                master->shm.table->slots_count - 1, &slot);

    switch (entry->kind) {
    case INHERIT_parent:
        master->parent_channel = entry->fd;
        break;
    case INHERIT_table:
    case INHERIT_stats:
        break; /* taken by shm_adopt() */
    case INHERIT_pass_rx:
    case INHERIT_pass_tx: {
        int *to = entry->kind == INHERIT_pass_rx ? master->pass_rx : master->pass_tx;

        if (is_slot && to[slot] < 0)
            to[slot] = entry->fd;
        else
            close(entry->fd);
        break;
    }
    case INHERIT_listener:
        if (!listener_adopt(&master->listeners, entry->text, entry->fd))
            log_warn(master->log, "inherited %s is not a listening socket", entry->text);
        break;
    case INHERIT_guard:
        MAYBE(listener_adopt_guard(&master->listeners, entry->text, entry->fd));
        break;
    case INHERIT_KIND_MAX_:
        UNREACHABLE("unknown kinds are not kept");
    }
    entry->fd = -1;
}

static int pass_sockets_open(struct master *master, char *error)
{
    for (uint32_t i = 0; i < master->shm.table->slots_count; i++) {
        int fds[2], err;

        if (master->pass_rx[i] >= 0 && master->pass_tx[i] >= 0)
            continue;
        /* With an inherited table both ends must have come: others hold the other end. */
        err = handover_pair(fds);
        if (err != 0) {
            snprintf(error, MASTER_ERROR_SIZE, "cannot make sockets for %u workers: %s%s",
                     master->shm.table->slots_count, err_text(err), privilege_nofile_hint(err));
            return err;
        }
        master->pass_rx[i] = fds[0];
        master->pass_tx[i] = fds[1];
    }
    return 0;
}

static int shared_setup(struct master *master, struct inherit *inherit, uint32_t workers,
                        char *error)
{
    const struct master_program *program = master->program;
    const struct inherit_entry *table = inherit_find(inherit, INHERIT_table);
    const struct inherit_entry *stats = inherit_find(inherit, INHERIT_stats);
    const char *layout = program->stats_layout == NULL ? "none" : program->stats_layout;
    size_t size = program->stats_size_max == 0 ? 16u << 20 : program->stats_size_max;
    int err;

    if (inherit->count > 0 && (table == NULL || strcmp(table->text, program->name) != 0)) {
        snprintf(error, MASTER_ERROR_SIZE, "upgrade: the running program is \"%s\", we are \"%s\"",
                 table == NULL ? "" : table->text, program->name);
        return ERR_INVALID;
    }
    if (table != NULL)
        err = shm_adopt(&master->shm, table->fd, stats == NULL ? -1 : stats->fd, layout, size);
    else
        err = shm_create(&master->shm, MAX(workers, master_cpu_count()) * SLOTS_A_WORKER, layout,
                         size);
    if (err != 0) {
        snprintf(error, MASTER_ERROR_SIZE, "shared memory: %s%s", err_text(err),
                 table != NULL ? " (the running program's is of another version: restart)" : "");
        return err;
    }
    master->pass_rx = must_alloc(master->shm.table->slots_count * sizeof(int));
    master->pass_tx = must_alloc(master->shm.table->slots_count * sizeof(int));
    memset(master->pass_rx, 0xff, master->shm.table->slots_count * sizeof(int));
    memset(master->pass_tx, 0xff, master->shm.table->slots_count * sizeof(int));
    master->foreign_told_ms = must_zalloc(master->shm.table->slots_count * sizeof(uint64_t));
    for (uint32_t i = 0; i < inherit->count; i++)
        adopt_entry(master, &inherit->entries[i]);
    return pass_sockets_open(master, error);
}

static char *path_absolute(const char *path, const char *suffix)
{
    char cwd[4096] = "", *out;
    size_t size;

    if (path == NULL)
        return NULL;
    if (path[0] != '/' && getcwd(cwd, sizeof(cwd)) == NULL)
        cwd[0] = '\0';
    size = strlen(cwd) + strlen(path) + strlen(suffix) + 2;
    out = must_alloc(size);
    snprintf(out, size, "%s%s%s%s", cwd, path[0] == '/' ? "" : "/", path, suffix);
    return out;
}

/* argv[0] is looked up again at each upgrade: a symbolic link or PATH may lead elsewhere by then. */
static void paths_setup(struct master *master)
{
    const char *argv0 = master->program->argc > 0 ? title_argv()[0] : master->program->name;

    master->pid_path = path_absolute(master->program->pid_file, "");
    master->pid_path_old = path_absolute(master->program->pid_file, ".oldbin");
    master->binary = strchr(argv0, '/') != NULL ? path_absolute(argv0, "") : must_strdup(argv0);
    master->cwd_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void master_teardown(struct master *master, bool was_serving)
{
    if (was_serving) {
        bool is_last = shm_master_other(&master->shm) == 0 && !orphans_live(master);

        if (master->pid_path != NULL) {
            daemon_pid_remove(master->pid_path, getpid());
            daemon_pid_remove(master->pid_path_old, getpid());
        }
        listeners_deinit(&master->listeners, is_last);
        atomic_store(&master->self->pid, 0);
    }
    daemon_notify(&master->notify_fd, master->exit_code);
    master_sets_forget(master);
    mem_free(master->sets);
    mem_free(master->pid_path);
    mem_free(master->pid_path_old);
    mem_free(master->binary);
    mem_free(master->foreign_told_ms);
    mem_free(master->text);
    mem_free(master->packet);
    mem_free(master->pass_rx);
    mem_free(master->pass_tx);
    shm_close(&master->shm);
}

/* From the first configuration to the first fork. */
static int master_start(struct master *master, struct inherit *inherit, char *error)
{
    struct master_config config;
    struct privilege privilege;
    uint32_t workers;
    int err = reload_config_get(master, &config, &privilege, &workers, error);

    if (err != 0)
        return err;
    /* Sockets of all addresses and all workers' slots are held here too. */
    privilege_rlimit_nofile(config.rlimit_nofile, master->log);
    if (inherit->count == 0 && master->pid_path != NULL) {
        err = daemon_pid_check(master->pid_path);
        if (err != 0)
            snprintf(error, MASTER_ERROR_SIZE, "pid file %s: %s", master->pid_path, err_text(err));
    }
    if (err == 0 && inherit->count == 0)
        err = look_for_predecessor(master, &config, inherit, error);
    if (err == 0)
        err = shared_setup(master, inherit, workers, error);
    if (err == 0 && master->program->daemonize && !master->is_inherited) {
        err = daemon_detach(&master->notify_fd);
        if (err != 0)
            snprintf(error, MASTER_ERROR_SIZE, "daemonize: %s", err_text(err));
    }
    if (err == 0) {
        master->self = shm_master_register(&master->shm);
        master->signal_fd = signals_open(SIGNALS_MASTER);
        if (master->self == NULL || master->signal_fd < 0) {
            snprintf(error, MASTER_ERROR_SIZE, "too many masters, or no signals");
            err = ERR_FULL;
        }
    }
    if (err != 0) {
        if (master->program->release != NULL)
            master->program->release(master->program->arg, &config);
        return err;
    }
    atomic_store(&master->self->log_level, log_level(master->log));
    return reload_generation_begin(master, &config, &privilege, workers, error);
}

int master_run(const struct master_program *program)
{
    struct master master = {.program = program, .log = program->log, .signal_fd = -1,
                            .parent_channel = -1, .notify_fd = -1, .cwd_fd = -1};
    struct inherit inherit;
    char error[MASTER_ERROR_SIZE] = "";
    int err;

    ASSERT(program->configure != NULL && program->worker_main != NULL && program->log != NULL);
    title_keep_argv(program->argc, program->argv);
    signals_ignore();
    crash_setup(log_fd(program->log), program->name, program->version);
    master.shm.table_fd = master.shm.stats_fd = -1;
    master.upgrade.channel = -1;
    list_init(&master.generations);
    listeners_init(&master.listeners);
    master.text = must_alloc(WORKER_TEXT_MAX + 1);
    master.packet = must_alloc(HANDOVER_SIZE_MAX);
    master.sets = must_zalloc(MASTER_SETS_MAX * sizeof(*master.sets));
    paths_setup(&master);
    err = upgrade_inherited(&inherit, error);
    master.is_inherited = inherit.count > 0;
    if (err == 0)
        err = master_start(&master, &inherit, error);
    if (err != 0) {
        struct channel_message refused = {.type = CHANNEL_REFUSED};
        const struct inherit_entry *parent = inherit_find(&inherit, INHERIT_parent);

        master.exit_code = start_error(&master, error);
        if (master.parent_channel >= 0 || (parent != NULL && parent->fd >= 0))
            channel_try_send(master.parent_channel >= 0 ? master.parent_channel : parent->fd,
                             &refused, error, -1);
        /* A start that failed half-way has children to see out. */
        if (master.signal_fd >= 0 && !list_is_empty(&master.generations)) {
            master_stop(&master);
            master_loop(&master);
        }
        inherit_free(&inherit, true);
        master_teardown(&master, false);
        return master.exit_code;
    }
    inherit_free(&inherit, false);
    title_set("%s: master", program->name);
    log_set_name(program->log, program->name);
    master_loop(&master);
    upgrade_leave(&master);
    log_notice(program->log, "stopped");
    master_teardown(&master, true);
    return master.exit_code;
}
