/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generation: the workers that were forked with one configuration, and their stats process.
 *
 *   I1  Sockets are assigned among the workers that are ready. When one dies, its sockets go to
 *       siblings in the same turn, before its successor is forked; when that is ready they come back.
 *   I2  A death is answered by a fork at once; from the third in a row on with a delay that doubles. The
 *       only worker that is left to a generation never waits longer than a tenth of a second.
 *   I3  A worker's slot is kept over its respawns, so what was passed to it is read by its successor.
 */
#include "common/base/mem.h"
#include "nginx-style-master/private.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ABORT_MS 3000u /* for the report of one that is stuck */

uint32_t master_timeout(uint32_t configured, uint32_t standard)
{
    return configured == 0 ? standard : configured;
}

/* ---- children ----------------------------------------------------------------------------- */

void child_tell(struct child *child, enum channel_type type, uint32_t value, const char *text,
                int fd)
{
    struct channel_message message = {.type = (uint32_t)type, .value = value};
    int err;

    if (child->channel < 0)
        return;
    err = channel_send(child->channel, &message, text, fd);
    if (err != 0 && err != ERR_EOF)
        log_warn(child->generation->master->log, "a message to pid %d was lost type=%u: %s",
                 (int)child->pid, (unsigned)type, err_text(err));
}

static const char *child_name(const struct child *child, char out[32])
{
    if (child->is_stats)
        snprintf(out, 32, "stats process");
    else
        snprintf(out, 32, "worker %u", child->index);
    return out;
}

static int child_fork(struct child *child)
{
    struct generation *generation = child->generation;
    struct master *master = generation->master;
    int fds[2], err = channel_pair(fds);
    char name[32];
    pid_t pid;

    ASSERT(child->pid == 0 && child->channel < 0);
    if (err != 0)
        return err;
    if (!child->is_stats)
        shm_slot_move(&master->shm, child->slot, WORKER_STATE_STARTING);
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        close(fds[0]);
        worker_run(master, child, fds[1]);
    }
    close(fds[1]);
    if (pid < 0) {
        err = -errno;
        close(fds[0]);
        return err;
    }
    child->pid = pid;
    child->channel = fds[0];
    child->is_ready = false;
    child->fork_at_ms = child->abort_at_ms = 0;
    child->forked_ms = shm_now_ms();
    child->has_lanes_sent = false;
    if (!child->is_stats)
        atomic_store(&master->shm.table->slots[child->slot].pid, pid);
    log_info(master->log, "%s started pid=%d generation=%u", child_name(child, name), (int)pid,
             generation->id);
    return 0;
}

static void child_fork_or_later(struct child *child)
{
    int err = child_fork(child);

    if (err == 0)
        return;
    log_error(child->generation->master->log, "fork failed, again in a second: %s", err_text(err));
    child->fork_at_ms = shm_now_ms() + 1000;
}

static void child_over(struct child *child)
{
    child->is_over = true;
    child->fork_at_ms = 0;
    if (!child->is_stats && child->slot != WORKER_SLOT_NONE) {
        struct master *master = child->generation->master;

        shm_slot_move(&master->shm, child->slot, WORKER_STATE_RETIRED);
        master_reroute(master, child->slot);
        master_slot_retired(master, child->slot);
        child->slot = WORKER_SLOT_NONE;
    }
}

static bool generation_has_other(const struct generation *generation, const struct child *but)
{
    for (uint32_t i = 0; i < generation->workers; i++)
        if (&generation->children[i] != but && generation->children[i].pid != 0)
            return true;
    return false;
}

static void child_respawn(struct child *child)
{
    struct generation *generation = child->generation;
    struct master *master = generation->master;
    uint64_t now_ms = shm_now_ms(), delay_ms = 0;
    char name[32];

    if (now_ms - child->forked_ms > 10000)
        child->deaths = 0;
    child->deaths++;
    if (child->deaths > MASTER_CRASHES_AT_ONCE) {
        uint32_t doublings = MIN(child->deaths - MASTER_CRASHES_AT_ONCE - 1, 10u);

        delay_ms = MIN(100ull << doublings, (uint64_t)MASTER_BACKOFF_MAX_MS);
    }
    if (!child->is_stats && !generation_has_other(generation, child))
        delay_ms = MIN(delay_ms, 100u);
    atomic_fetch_add(&master->self->respawns, 1);
    if (!child->is_stats) {
        shm_slot_move(&master->shm, child->slot, WORKER_STATE_GONE);
        master->shm.table->slots[child->slot].respawns++;
    }
    generation_assign_lanes(generation);
    if (delay_ms == 0) {
        child_fork_or_later(child);
        return;
    }
    if (!child->is_stats)
        master_reroute(master, child->slot);
    child->fork_at_ms = now_ms + delay_ms;
    log_warn(master->log, "%s dies in a loop, next start later deaths=%u delay_ms=%llu",
             child_name(child, name), child->deaths, (unsigned long long)delay_ms);
}

static void child_log_death(const struct child *child, int status)
{
    struct master *master = child->generation->master;
    bool expected = child->is_leaving || child->generation->state == GENERATION_LEAVING;
    char name[32];

    child_name(child, name);
    if (WIFSIGNALED(status)) {
        log_line(master->log, LOG_ERROR, "%s died pid=%d signal=%d (%s)%s", name, (int)child->pid,
                 WTERMSIG(status), strsignal(WTERMSIG(status)),
                 WCOREDUMP(status) ? " core dumped" : "");
        atomic_fetch_add(&master->self->crashes, 1);
        return;
    }
    log_line(master->log, expected && WEXITSTATUS(status) == 0 ? LOG_INFO : LOG_WARN,
             "%s left pid=%d code=%d", name, (int)child->pid, WEXITSTATUS(status));
}

static bool status_is_final(int status)
{
    return WIFEXITED(status) && (WEXITSTATUS(status) == MASTER_EXIT_FATAL ||
                                 WEXITSTATUS(status) == MASTER_EXIT_DISK);
}

void child_died(struct child *child, int status)
{
    struct generation *generation = child->generation;
    struct master *master = generation->master;
    uint32_t holder = child->slot + 1;

    child_log_death(child, status);
    if (child->channel >= 0)
        close(child->channel);
    child->channel = -1;
    child->pid = 0;
    child->is_ready = false;
    if (!child->is_stats)
        MAYBE(atomic_compare_exchange_strong(&master->self->mutex_holder, &holder, 0));
    if (generation->state == GENERATION_LEAVING || child->is_leaving) {
        child_over(child);
        return;
    }
    if (status_is_final(status)) {
        char name[32];

        log_error(master->log, "%s is not started again, its exit code says so",
                  child_name(child, name));
        child_over(child);
        generation_assign_lanes(generation);
        return;
    }
    if (generation->state == GENERATION_STARTING && (master->serving != NULL || master->parent_channel >= 0)) {
        /* A reload or an upgrade: the configuration or the binary is bad; the old one goes on. The master sees that. */
        child_over(child);
        return;
    }
    child_respawn(child);
}

/* ---- lanes -------------------------------------------------------------------------------- */

static void lanes_send(struct child *child)
{
    struct channel_message message = {.type = CHANNEL_ACCEPT, .lanes = child->lanes};

    if (!child->is_ready || child->channel < 0 ||
        (child->has_lanes_sent &&
         memcmp(&child->lanes, &child->lanes_sent, sizeof(child->lanes)) == 0))
        return;
    if (channel_send(child->channel, &message, NULL, -1) != 0)
        return; /* its channel is full: the next tick tries again */
    child->lanes_sent = child->lanes;
    child->has_lanes_sent = true;
}

void generation_assign_lanes(struct generation *generation)
{
    struct child *takers[MASTER_WORKERS_MAX];
    uint32_t takers_count = 0;

    if (generation->state != GENERATION_SERVING)
        return;
    for (uint32_t i = 0; i < generation->workers; i++) {
        struct child *child = &generation->children[i];

        memset(&child->lanes, 0, sizeof(child->lanes));
        if (child->is_ready && !child->is_leaving) {
            takers[takers_count++] = child;
            child->lanes.is_accepting = 1;
        }
    }
    for (uint32_t lane = 0; lane < MASTER_WORKERS_MAX && takers_count > 0; lane++) {
        struct child *own = lane < generation->workers ? &generation->children[lane] : NULL;
        struct child *taker =
            own != NULL && own->lanes.is_accepting ? own : takers[lane % takers_count];

        taker->lanes.bits[lane / 64] |= 1ull << lane % 64;
    }
    for (uint32_t i = 0; i < generation->workers; i++)
        lanes_send(&generation->children[i]);
}

void generation_stats_accept(struct generation *generation, bool on)
{
    struct child *stats = &generation->stats;

    memset(&stats->lanes, 0, sizeof(stats->lanes));
    stats->lanes.is_accepting = on;
    stats->lanes.bits[0] = on;
    lanes_send(stats);
}

/* ---- the generation ----------------------------------------------------------------------- */

struct generation *generation_create(struct master *master, const struct master_config *config,
                                     const struct privilege *privilege, uint32_t workers,
                                     struct listener **bound)
{
    struct generation *generation = must_zalloc(sizeof(*generation));

    ASSERT(workers >= 1 && workers <= MASTER_WORKERS_MAX);
    generation->master = master;
    generation->state = GENERATION_STARTING;
    generation->id = shm_generation_next(&master->shm);
    generation->config = *config;
    generation->privilege = *privilege;
    generation->workers = workers;
    generation->bound = bound;
    generation->children = must_zalloc(workers * sizeof(*generation->children));
    for (uint32_t i = 0; i < workers; i++)
        generation->children[i] = (struct child){
            .generation = generation, .channel = -1, .index = i, .slot = WORKER_SLOT_NONE};
    generation->stats = (struct child){.generation = generation,
                                       .channel = -1,
                                       .slot = WORKER_SLOT_NONE,
                                       .is_stats = true,
                                       .is_over = true};
    list_push_back(&master->generations, &generation->node);
    return generation;
}

int generation_start(struct generation *generation, char *error)
{
    struct master *master = generation->master;
    const struct generation *old = master->serving;
    struct master_config *config = &generation->config;

    if (config->health_size > 0) {
        generation->health = shm_area_map(config->health_size);
        if (generation->health == NULL) {
            snprintf(error, MASTER_ERROR_SIZE, "no memory for the health area of %zu bytes",
                     config->health_size);
            return -ENOMEM;
        }
        if (master->program->health_init != NULL)
            master->program->health_init(master->program->arg, config, generation->health,
                                         old == NULL ? NULL : &old->config,
                                         old == NULL ? NULL : old->health);
    }
    generation->ready_by_ms =
        shm_now_ms() + master_timeout(config->ready_timeout_ms, MASTER_READY_MS);
    for (uint32_t i = 0; i < generation->workers; i++) {
        struct child *child = &generation->children[i];
        int err;

        child->slot = shm_slot_claim(&master->shm, getpid(), generation->id, i, config->stats_size);
        if (child->slot == WORKER_SLOT_NONE) {
            snprintf(error, MASTER_ERROR_SIZE,
                     "all %u places for workers are taken: older generations still drain",
                     master->shm.table->slots_count);
            return ERR_FULL;
        }
        err = child_fork(child);
        if (err != 0) {
            snprintf(error, MASTER_ERROR_SIZE, "fork failed: %s", err_text(err));
            return err;
        }
    }
    return 0;
}

bool generation_is_ready(const struct generation *generation)
{
    for (uint32_t i = 0; i < generation->workers; i++)
        if (!generation->children[i].is_ready)
            return false;
    return true;
}

bool generation_has_workers(const struct generation *generation)
{
    for (uint32_t i = 0; i < generation->workers; i++)
        if (generation->children[i].pid != 0)
            return true;
    return false;
}

bool generation_is_gone(const struct generation *generation)
{
    return !generation_has_workers(generation) && generation->stats.pid == 0;
}

void generation_serve(struct generation *generation)
{
    struct master *master = generation->master;

    ASSERT(generation->state == GENERATION_STARTING);
    generation->state = GENERATION_SERVING;
    for (uint32_t i = 0; i < generation->workers; i++)
        if (generation->children[i].is_ready)
            shm_slot_move(&master->shm, generation->children[i].slot, WORKER_STATE_SERVING);
    generation_assign_lanes(generation);
    if (master->program->stats_main != NULL) {
        generation->stats.is_over = false;
        child_fork_or_later(&generation->stats);
        generation_stats_accept(generation, true);
    }
}

static void child_leave(struct child *child, bool at_once, uint32_t timeout_ms)
{
    if (child->pid == 0) {
        /* Not running, perhaps in back-off: it stays away. */
        if (!child->is_over)
            child_over(child);
        return;
    }
    child->is_leaving = true;
    child->fork_at_ms = 0;
    if (!child->is_stats && !at_once)
        shm_slot_move(&child->generation->master->shm, child->slot, WORKER_STATE_DRAINING);
    child_tell(child, at_once ? CHANNEL_STOP : CHANNEL_DRAIN, timeout_ms, NULL, -1);
}

void generation_leave(struct generation *generation, bool at_once)
{
    uint32_t timeout_ms = master_timeout(generation->config.drain_timeout_ms, MASTER_DRAIN_MS);
    uint64_t leave_by_ms = shm_now_ms() + (at_once ? 0 : timeout_ms) +
                           master_timeout(generation->config.stop_timeout_ms, MASTER_STOP_MS);

    if (generation->state == GENERATION_LEAVING && !at_once)
        return;
    generation->leave_by_ms = generation->state == GENERATION_LEAVING
                                  ? MIN(generation->leave_by_ms, leave_by_ms)
                                  : leave_by_ms;
    generation->state = GENERATION_LEAVING;
    for (uint32_t i = 0; i < generation->workers; i++)
        child_leave(&generation->children[i], at_once, timeout_ms);
    child_leave(&generation->stats, at_once, timeout_ms);
}

void generation_kill(struct generation *generation)
{
    for (uint32_t i = 0; i < generation->workers; i++)
        if (generation->children[i].pid != 0)
            kill(generation->children[i].pid, SIGKILL);
    if (generation->stats.pid != 0)
        kill(generation->stats.pid, SIGKILL);
}

void generation_destroy(struct generation *generation)
{
    struct master *master = generation->master;

    ASSERT(generation_is_gone(generation));
    ASSERT(master->serving != generation && master->starting != generation);
    for (uint32_t i = 0; i < generation->workers; i++)
        if (!generation->children[i].is_over)
            child_over(&generation->children[i]);
    shm_area_unmap(generation->health, generation->config.health_size);
    if (master->program->release != NULL)
        master->program->release(master->program->arg, &generation->config);
    list_remove(&generation->node);
    mem_free(generation->bound);
    mem_free(generation->children);
    mem_free(generation);
}

/* ---- time --------------------------------------------------------------------------------- */

/* A worker that has not shown itself for so long is in an endless loop: ABRT lets it say where. */
static void child_watch(struct child *child, uint64_t now_ms)
{
    struct generation *generation = child->generation;
    uint32_t limit_ms = master_timeout(generation->config.watchdog_ms, MASTER_WATCHDOG_MS);
    struct master *master = generation->master;
    uint64_t beat_ms;
    char name[32];

    /* Of stats processes the newest writes the heartbeat that they share. */
    if (child->pid == 0 || limit_ms == UINT32_MAX ||
        (child->is_stats && generation->state != GENERATION_SERVING))
        return;
    if (child->abort_at_ms != 0) {
        if (now_ms >= child->abort_at_ms)
            kill(child->pid, SIGKILL);
        return;
    }
    beat_ms = atomic_load(child->is_stats ? &master->self->stats_heartbeat_ms
                                          : &master->shm.table->slots[child->slot].heartbeat_ms);
    if (!child->is_ready || beat_ms == 0 || now_ms < beat_ms + limit_ms)
        return;
    log_error(master->log, "%s is stuck, ends it pid=%d silent_ms=%llu",
              child_name(child, name), (int)child->pid, (unsigned long long)(now_ms - beat_ms));
    kill(child->pid, SIGABRT);
    child->abort_at_ms = now_ms + ABORT_MS;
}

static void child_tick(struct child *child, uint64_t now_ms, bool is_late)
{
    if (child->fork_at_ms != 0 && now_ms >= child->fork_at_ms)
        child_fork_or_later(child);
    if (child->generation->state == GENERATION_SERVING)
        lanes_send(child);
    if (!is_late)
        child_watch(child, now_ms);
}

void generation_tick(struct generation *generation, uint64_t now_ms, bool is_late)
{
    for (uint32_t i = 0; i < generation->workers; i++)
        child_tick(&generation->children[i], now_ms, is_late);
    child_tick(&generation->stats, now_ms, is_late);
    if (generation->state != GENERATION_LEAVING || now_ms < generation->leave_by_ms)
        return;
    if (!generation->is_killed) {
        generation->is_killed = true;
        log_warn(generation->master->log, "generation %u did not leave in time, ends it",
                 generation->id);
    }
    generation_kill(generation);
    generation->leave_by_ms = now_ms + MASTER_STOP_MS;
}

uint64_t generation_deadline(const struct generation *generation)
{
    uint64_t at = UINT64_MAX;

    for (uint32_t i = 0; i <= generation->workers; i++) {
        const struct child *child =
            i < generation->workers ? &generation->children[i] : &generation->stats;

        if (child->fork_at_ms != 0)
            at = MIN(at, child->fork_at_ms);
        if (child->abort_at_ms != 0)
            at = MIN(at, child->abort_at_ms);
    }
    if (generation->state == GENERATION_LEAVING)
        at = MIN(at, generation->leave_by_ms);
    if (generation->state == GENERATION_STARTING)
        at = MIN(at, generation->ready_by_ms);
    return at;
}

struct child *child_by_pid(struct master *master, pid_t pid)
{
    LIST_FOR_EACH (&master->generations, node) {
        struct generation *generation = CONTAINER_OF(node, struct generation, node);

        for (uint32_t i = 0; i < generation->workers; i++)
            if (generation->children[i].pid == pid)
                return &generation->children[i];
        if (generation->stats.pid == pid)
            return &generation->stats;
    }
    return NULL;
}
