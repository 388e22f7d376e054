/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a configuration to a generation that serves, or back.
 *
 * What can fail happens before anything is changed: a reload parses, resolves, binds and starts a whole
 * generation, and only when all of that is ready does the old one hear of it (serve_new()). The way
 * back (starting_abort()) closes what was opened for the attempt and touches nothing else.
 */
#include "common/base/mem.h"
#include "nginx-style-master/private.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* A stats process may stay for the answer to a reload that waits for this count. */
static uint32_t generations_count(const struct master *master)
{
    uint32_t count = 0;

    for (struct list_node *node = list_first(&master->generations); node != NULL;
         node = list_next(&master->generations, node))
        count += generation_has_workers(CONTAINER_OF(node, struct generation, node));
    return count;
}

void master_sets_forget(struct master *master)
{
    for (uint32_t i = 0; i < master->sets_count; i++)
        mem_free(master->sets[i]);
    master->sets_count = 0;
}

int reload_config_check(const struct master_config *config, struct privilege *privilege, uint32_t *workers, char *error)
{
    int err = privilege_resolve(config->user, config->group, privilege, error, MASTER_ERROR_SIZE);

    *workers = config->workers == 0 ? master_cpu_count() : config->workers;
    if (err == 0 && *workers > MASTER_WORKERS_MAX) {
        snprintf(error, MASTER_ERROR_SIZE, "workers: %u are too many, at most %u", *workers,
                 MASTER_WORKERS_MAX);
        err = ERR_INVALID;
    }
    if (err == 0 && config->settings != NULL && strlen(config->settings) > WORKER_TEXT_MAX) {
        snprintf(error, MASTER_ERROR_SIZE, "the settings are longer than %u bytes",
                 WORKER_TEXT_MAX);
        err = ERR_INVALID;
    }
    return err;
}

int reload_config_get(struct master *master, struct master_config *config,
                      struct privilege *privilege, uint32_t *workers, char *error)
{
    int err;

    *config = (struct master_config){0};
    error[0] = '\0';
    master_enter_start_dir(master);
    err = master->program->configure(master->program->arg, config, error);
    master_leave_start_dir(master);
    if (err != 0) {
        if (error[0] == '\0')
            snprintf(error, MASTER_ERROR_SIZE, "the configuration is refused: %s", err_text(err));
        return err;
    }
    err = reload_config_check(config, privilege, workers, error);
    if (err == 0 && master->shm.table != NULL && *workers * 2 > master->shm.table->slots_count) {
        snprintf(error, MASTER_ERROR_SIZE,
                 "workers: at most %u without stopping first (the shared table is that large)",
                 master->shm.table->slots_count / 2);
        err = ERR_INVALID;
    }
    if (err != 0 && master->program->release != NULL)
        master->program->release(master->program->arg, config);
    return err;
}

/* The attempt leaves no trace but its slots' counters (which are folded). */
void reload_abort(struct master *master)
{
    struct generation *generation = master->starting;

    master->starting = NULL;
    listeners_rollback(&master->listeners);
    generation_leave(generation, true);
}

/* Binds and forks. The configuration is the callee's, also on errors. */
int reload_generation_begin(struct master *master, struct master_config *config,
                            const struct privilege *privilege, uint32_t workers, char *error)
{
    struct listener **bound = must_zalloc(MAX(config->listeners_count, 1u) * sizeof(*bound));
    bool is_first = master->serving == NULL;
    int err = listeners_bind(&master->listeners, config, workers, is_first, bound, error);

    ASSERT(master->starting == NULL);
    if (err != 0) {
        mem_free(bound);
        if (master->program->release != NULL)
            master->program->release(master->program->arg, config);
        return err;
    }
    master->starting = generation_create(master, config, privilege, workers, bound);
    err = generation_start(master->starting, error);
    if (err != 0)
        reload_abort(master);
    return err;
}

static void reload_failed(struct master *master, const char *error, int err)
{
    atomic_fetch_add(&master->self->reloads_failed, 1);
    master_log_lines(master, "reload refused, the old configuration goes on", error);
    master_reply(master, master->reload_requester, &master->reload_request_id, err, error);
}

/* What says where they listen, if that is not the same; NULL: it is. */
static const char *listen_change(const struct generation *generation, struct listener *const *bound,
                                 const struct master_config *config, uint32_t workers)
{
    if (workers != generation->workers || config->listeners_count != generation->config.listeners_count)
        return "workers";
    for (uint32_t i = 0; i < config->listeners_count; i++)
        if (bound[i] != generation->bound[i])
            return config->listeners[i].for_whom == MASTER_FOR_STATS ? "stats" : "listen";
    return NULL;
}

/* The directory has one writer, so the workers stay and change what can be changed. */
static void reload_in_place(struct master *master, struct master_config *config,
                            const struct privilege *privilege, uint32_t workers)
{
    struct generation *generation = master->serving;
    struct listener **bound = must_zalloc(MAX(config->listeners_count, 1u) * sizeof(*bound));
    char error[MASTER_ERROR_SIZE];
    int err = listeners_bind(&master->listeners, config, workers, false, bound, error);
    bool is_bound = err == 0;
    const char *change = is_bound ? listen_change(generation, bound, config, workers) : NULL;

    if (change != NULL) {
        snprintf(error, sizeof(error), "%s: a change needs a new start", change);
        err = ERR_INVALID;
    } else if (is_bound && master->program->may_change != NULL) {
        err = master->program->may_change(master->program->arg, &generation->config, config, error);
    }
    if (err != 0) {
        if (is_bound)
            listeners_rollback(&master->listeners);
        mem_free(bound);
        if (master->program->release != NULL)
            master->program->release(master->program->arg, config);
        reload_failed(master, error, err);
        return;
    }
    err = listeners_listen(&master->listeners, error);
    MAYBE(err); /* they listen already; this was about the backlog */
    master_sets_forget(master);
    if (master->program->release != NULL)
        master->program->release(master->program->arg, &generation->config);
    mem_free(generation->bound);
    generation->bound = bound;
    config->health_size = generation->config.health_size;
    config->stats_size = generation->config.stats_size;
    generation->config = *config;
    generation->privilege = *privilege;
    for (uint32_t i = 0; i < generation->workers; i++)
        child_tell(&generation->children[i], CHANNEL_APPLY, 0,
                   config->settings == NULL ? "" : config->settings, -1);
    child_tell(&generation->stats, CHANNEL_APPLY, 0,
               config->settings == NULL ? "" : config->settings, -1);
    atomic_fetch_add(&master->self->reloads, 1);
    master->self->reloaded_s = (uint64_t)time(NULL);
    log_notice(master->log, "reload done in place generation=%u", generation->id);
    master_reply(master, master->reload_requester, &master->reload_request_id, 0, "");
}

void reload_begin(struct master *master)
{
    struct master_config config;
    struct privilege privilege;
    char error[MASTER_ERROR_SIZE];
    uint32_t workers;
    int err;

    if (master->is_stopping || master->is_quitting) {
        master_reply(master, master->reload_requester, &master->reload_request_id, ERR_CANCELED,
              "the master is leaving");
        return;
    }
    /* One at a time, and at most so many alive: it waits for the oldest to finish its clients. */
    if (master->starting != NULL || generations_count(master) >= MASTER_GENERATIONS_MAX) {
        master->is_reload_due = true;
        return;
    }
    master->is_reload_due = false;
    err = reload_config_get(master, &config, &privilege, &workers, error);
    if (err == 0 && config.replace == MASTER_REPLACE_IN_PLACE && master->serving != NULL) {
        reload_in_place(master, &config, &privilege, workers);
        return;
    }
    if (err == 0)
        err = reload_generation_begin(master, &config, &privilege, workers, error);
    if (err != 0)
        reload_failed(master, error, err);
}

static void start_is_done(struct master *master)
{
    struct channel_message upgraded = {.type = CHANNEL_UPGRADED};

    if (master->pid_path != NULL) {
        int err = daemon_pid_write(master->pid_path);

        if (err != 0)
            log_error(master->log, "pid file %s: %s", master->pid_path, err_text(err));
    }
    if (master->parent_channel >= 0)
        channel_try_send(master->parent_channel, &upgraded, NULL, -1);
    if (master->notify_fd >= 0) {
        daemon_quiet();
        daemon_notify(&master->notify_fd, 0);
    }
}

/* All of the new generation is ready: it accepts, the old one drains. */
static void serve_new(struct master *master)
{
    struct generation *generation = master->starting, *old = master->serving;
    bool is_start = atomic_load(&master->self->generation) == 0;
    char error[MASTER_ERROR_SIZE];
    int err = listeners_listen(&master->listeners, error);

    if (err != 0) {
        reload_abort(master);
        reload_failed(master, error, err);
        return;
    }
    master->starting = NULL;
    master->serving = generation;
    master_sets_forget(master);
    generation_serve(generation);
    atomic_store(&master->self->generation, generation->id);
    atomic_store(&master->self->workers, generation->workers);
    if (is_start) {
        start_is_done(master);
        log_notice(master->log, "serving generation=%u workers=%u version=%s", generation->id,
                   generation->workers, master->program->version);
    } else {
        atomic_fetch_add(&master->self->reloads, 1);
        master->self->reloaded_s = (uint64_t)time(NULL);
        log_notice(master->log, "reload done generation=%u workers=%u", generation->id,
                   generation->workers);
    }
    master_reply(master, master->reload_requester, &master->reload_request_id, 0, "");
    if (old != NULL)
        generation_leave(old, false);
    listeners_commit(&master->listeners);
    LIST_FOR_EACH (&master->generations, node) {
        struct generation *other = CONTAINER_OF(node, struct generation, node);

        for (uint32_t i = 0; i < other->workers && other != generation; i++)
            child_tell(&other->children[i], CHANNEL_SUCCESSOR, 0, NULL, -1);
    }
    master->tick_at_ms = 0; /* orphans, at once */
}

static void starting_failed(struct master *master, const char *why)
{
    bool is_first = master->serving == NULL && atomic_load(&master->self->generation) == 0;

    reload_abort(master);
    if (is_first) {
        struct channel_message refused = {.type = CHANNEL_REFUSED};

        log_error(master->log, "start failed: %s", why);
        if (log_path(master->log) != NULL)
            fprintf(stderr, "%s: start failed: %s; the log is %s\n", master->program->name, why, log_path(master->log));
        if (master->parent_channel >= 0)
            channel_try_send(master->parent_channel, &refused, why, -1);
        master->exit_code = 1;
        master->is_stopping = true;
        return;
    }
    reload_failed(master, why, ERR_INVALID);
}

void reload_check(struct master *master)
{
    struct generation *generation = master->starting;
    char why[128];

    if (generation == NULL)
        return;
    if (generation_is_ready(generation)) {
        serve_new(master);
        return;
    }
    for (uint32_t i = 0; i < generation->workers; i++)
        if (generation->children[i].is_over) {
            snprintf(why, sizeof(why), "new worker %u left before it was ready: its lines in the log say why", i);
            starting_failed(master, why);
            return;
        }
    if (shm_now_ms() >= generation->ready_by_ms) {
        snprintf(why, sizeof(why), "the new workers were not ready within %u ms",
                 master_timeout(generation->config.ready_timeout_ms, MASTER_READY_MS));
        starting_failed(master, why);
    }
}
