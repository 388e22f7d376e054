/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The child's side: from fork() to exit(), and the calls of worker.h.
 *
 * The struct worker and what it points to is a copy that fork() made of the master's memory; only shm,
 * the health area and descriptors are really shared.
 */
#include "nginx-style-master/worker.h"
#include "common/base/mem.h"
#include "nginx-style-master/crash.h"
#include "nginx-style-master/private.h"
#include "nginx-style-master/signals.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS_MAX          16
#define MESSAGES_A_TURN_MAX 128
#define AWAKE_MS            2500u /* a worker that beats each second has missed one */

enum source { SOURCE_CHANNEL, SOURCE_SIGNAL, SOURCE_PASS, SOURCE_GUARD };

struct worker {
    struct master *master; /* our copy */
    struct child *child;
    struct generation *generation;
    const struct worker_handler *handler; /* borrows; NULL until set */
    void *arg;
    struct shm_slot *slot; /* in shm; the stats process has none: NULL */
    int channel;           /* -1: the master is gone */
    int signal_fd, epoll_fd;
    struct worker_listener *listeners;
    uint32_t listeners_count;
    uint32_t *listener_lanes; /* [listeners_count]: which socket of the address it is */
    bool is_draining, is_stopping;
    bool has_start_stderr; /* a daemon's first: stderr is still the starter's */
    uint64_t request_last;
    char name[64];
};

/* ---- who am I ----------------------------------------------------------------------------- */

uint32_t worker_index(const struct worker *worker)
{
    return worker->child->index;
}

uint32_t worker_count(const struct worker *worker)
{
    return worker->generation->workers;
}

uint32_t worker_slot(const struct worker *worker)
{
    return worker->child->slot;
}

uint32_t worker_generation(const struct worker *worker)
{
    return worker->generation->id;
}

bool worker_is_stats(const struct worker *worker)
{
    return worker->child->is_stats;
}

bool worker_is_respawn(const struct worker *worker)
{
    return worker->slot != NULL && worker->slot->respawns > 0;
}

bool worker_is_draining(const struct worker *worker)
{
    return worker->is_draining;
}

bool worker_has_master(const struct worker *worker)
{
    return worker->channel >= 0;
}

struct log *worker_log(const struct worker *worker)
{
    return worker->master->log;
}

void *worker_config_arg(const struct worker *worker)
{
    return worker->generation->config.arg;
}

void *worker_program_arg(const struct worker *worker)
{
    return worker->master->program->arg;
}

void *worker_health(const struct worker *worker, size_t *size)
{
    if (size != NULL)
        *size = worker->generation->config.health_size;
    return worker->generation->health;
}

void *worker_stats(const struct worker *worker, size_t *size)
{
    if (size != NULL)
        *size = worker->slot == NULL ? 0 : worker->slot->stats_size;
    return worker->slot == NULL ? NULL : shm_segment(&worker->master->shm, worker->child->slot);
}

struct worker_listener *worker_listeners(struct worker *worker, uint32_t *count)
{
    *count = worker->listeners_count;
    return worker->listeners;
}

void worker_handler_set(struct worker *worker, const struct worker_handler *handler, void *arg)
{
    worker->handler = handler;
    worker->arg = arg;
}

void *worker_arg(const struct worker *worker)
{
    return worker->arg;
}

int worker_channel_fd(const struct worker *worker)
{
    return worker->epoll_fd;
}

void worker_heartbeat(struct worker *worker)
{
    _Atomic uint64_t *beat_ms = worker->slot != NULL ? &worker->slot->heartbeat_ms
                                                     : &worker->master->self->stats_heartbeat_ms;

    atomic_store_explicit(beat_ms, shm_now_ms(), memory_order_relaxed);
}

void worker_ready(struct worker *worker)
{
    struct channel_message message = {.type = CHANNEL_READY};

    worker_heartbeat(worker);
    /* Whoever reads what the command that started the daemon says would else wait for our end. */
    if (worker->has_start_stderr)
        daemon_quiet();
    worker->has_start_stderr = false;
    if (worker->channel >= 0)
        channel_try_send(worker->channel, &message, NULL, -1);
}

int worker_sandbox(struct worker *worker)
{
    if (worker->generation->config.no_sandbox)
        return ERR_UNSUPPORTED;
    return sandbox_enter(worker->master->log);
}

int worker_sandbox_folders(struct worker *worker, const char *const *folders, size_t count)
{
    if (worker->generation->config.no_sandbox)
        return ERR_UNSUPPORTED;
    return sandbox_enter_folders(worker->master->log, folders, count);
}

int worker_sandbox_calls(struct worker *worker)
{
    if (worker->generation->config.no_sandbox)
        return ERR_UNSUPPORTED;
    return sandbox_enter_calls(worker->master->log);
}

/* The descriptors are shared with other processes: closing ours would not take them out of the epoll. */
static void guards_unwatch(struct worker *worker)
{
    LIST_FOR_EACH (&worker->master->listeners.list, node) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);

        if (listener->guard_fd >= 0)
            MAYBE(epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, listener->guard_fd, NULL));
    }
}

/* ---- accepting ---------------------------------------------------------------------------- */

static void listener_switch(struct worker *worker, struct worker_listener *listener, bool on)
{
    if (listener->is_accepting == on)
        return;
    listener->is_accepting = on;
    if (worker->handler != NULL && worker->handler->accept != NULL)
        worker->handler->accept(worker, listener, on);
}

static void lanes_apply(struct worker *worker, const struct lanes *lanes)
{
    for (uint32_t i = 0; i < worker->listeners_count && !worker->is_draining; i++) {
        struct worker_listener *listener = &worker->listeners[i];
        uint32_t lane = worker->listener_lanes[i];
        bool mine = (lanes->bits[lane / 64] >> lane % 64 & 1) != 0;

        listener_switch(worker, listener,
                        lanes->is_accepting && (mine || listener->is_shared));
    }
}

static void accept_stop(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->listeners_count; i++)
        listener_switch(worker, &worker->listeners[i], false);
}

static void worker_drain(struct worker *worker, uint32_t timeout_ms)
{
    if (worker->is_draining || worker->is_stopping)
        return;
    accept_stop(worker);
    worker->is_draining = true;
    if (worker->slot != NULL)
        shm_slot_move(&worker->master->shm, worker->child->slot, WORKER_STATE_DRAINING);
    if (worker->handler != NULL && worker->handler->drain != NULL)
        worker->handler->drain(worker, timeout_ms);
    else if (worker->handler != NULL && worker->handler->stop != NULL)
        worker->handler->stop(worker);
    guards_unwatch(worker);
    /* Our copies would keep the sockets of an address alive that is no longer configured. */
    for (uint32_t i = 0; i < worker->listeners_count; i++)
        worker->listeners[i].fd = -1;
    listeners_deinit(&worker->master->listeners, false);
}

static void worker_stop(struct worker *worker)
{
    if (worker->is_stopping)
        return;
    worker->is_stopping = true;
    if (worker->handler != NULL && worker->handler->stop != NULL)
        worker->handler->stop(worker);
    else
        exit(MASTER_EXIT_DONE);
}

/* ---- the master's messages ---------------------------------------------------------------- */

static void guards_watch(struct worker *worker)
{
    LIST_FOR_EACH (&worker->master->listeners.list, node) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);
        struct epoll_event event = {.events = EPOLLIN};

        event.data.u64 = SOURCE_GUARD | (uint64_t)(uint32_t)listener->guard_fd << 32;
        if (listener->guard_fd >= 0)
            MAYBE(epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, listener->guard_fd, &event));
    }
}

/* Of an upgrade. Ours may still be on its way out. */
static bool another_master_lives(const struct worker *worker)
{
    struct shm_table *table = worker->master->shm.table;

    for (uint32_t i = 0; i < SHM_MASTERS_MAX; i++) {
        const struct shm_master *master = &table->masters[i];

        if (master != worker->master->self && shm_pid_is_alive(atomic_load(&master->pid), master->pid_start))
            return true;
    }
    return false;
}

/* Nobody assigns sockets any more, so each worker takes from all of them. */
static void master_is_gone(struct worker *worker)
{
    struct lanes all = {.is_accepting = 1};

    memset(all.bits, 0xff, sizeof(all.bits));
    close(worker->channel);
    worker->channel = -1;
    if (worker->handler == NULL || worker->handler->master_gone == NULL) {
        worker_stop(worker);
        return;
    }
    if (!worker->child->is_stats && !worker->is_draining) {
        log_warn(worker->master->log, "the master is gone master_pid=%d",
                 (int)worker->slot->master_pid);
        if (atomic_load(&worker->slot->state) == WORKER_STATE_SERVING)
            lanes_apply(worker, &all);
    }
    /* It may have died before it heard that this process is ready. */
    if (worker->child->is_stats && !another_master_lives(worker))
        lanes_apply(worker, &all);
    /* A stats process that stays answers for its own addresses: a new master would ask it in vain else, when
     * no worker lives. */
    if (!worker->is_draining)
        guards_watch(worker);
    worker->handler->master_gone(worker);
}

static void log_reopen_with(struct worker *worker, int fd)
{
    struct log *log = worker->master->log;

    /* The master's descriptor: a worker that gave up its rights could not open the file. */
    if (fd >= 0 && dup3(fd, log_fd(log), O_CLOEXEC) < 0)
        log_warn(log, "log reopen failed: %s", err_text(-errno));
    if (worker->handler != NULL && worker->handler->reopen != NULL)
        worker->handler->reopen(worker);
}

static void channel_message(struct worker *worker, const struct channel_message *message,
                            const char *text, int fd)
{
    static const struct worker_handler nothing;
    const struct worker_handler *handler = worker->handler != NULL ? worker->handler : &nothing;

    switch ((enum channel_type)message->type) {
    case CHANNEL_ACCEPT:
        lanes_apply(worker, &message->lanes);
        break;
    case CHANNEL_DRAIN:
        worker_drain(worker, message->value);
        break;
    case CHANNEL_STOP:
        worker_stop(worker);
        break;
    case CHANNEL_REOPEN:
        log_reopen_with(worker, fd);
        break;
    case CHANNEL_LOG_LEVEL:
        log_set_level(worker->master->log, (int)message->value);
        if (handler->log_level != NULL)
            handler->log_level(worker, (int)message->value);
        break;
    case CHANNEL_SET:
        if (handler->set != NULL)
            handler->set(worker, text);
        break;
    case CHANNEL_APPLY:
        if (handler->apply != NULL)
            handler->apply(worker, text);
        break;
    case CHANNEL_SUCCESSOR:
        if (handler->successor != NULL)
            handler->successor(worker);
        break;
    case CHANNEL_RETIRED:
        if (handler->retired != NULL)
            handler->retired(worker, message->value);
        break;
    case CHANNEL_REPLY:
        if (handler->reply != NULL)
            handler->reply(worker, message->id, -(int)message->value, text);
        break;
    case CHANNEL_READY:
    case CHANNEL_LEAVING:
    case CHANNEL_REQUEST:
    case CHANNEL_UPGRADED:
    case CHANNEL_REFUSED:
    case CHANNEL_STARTING:
    case CHANNEL_TYPE_MAX_:
        break; /* not for us */
    }
}

static void channel_read(struct worker *worker)
{
    for (int i = 0; i < MESSAGES_A_TURN_MAX && worker->channel >= 0; i++) {
        struct channel_message message;
        int fd, err = channel_recv(worker->channel, &message, worker->master->text, &fd);

        if (err == ERR_AGAIN)
            return;
        if (err == ERR_EOF) {
            master_is_gone(worker);
            return;
        }
        if (err == 0)
            channel_message(worker, &message, worker->master->text, fd);
        if (fd >= 0)
            close(fd);
    }
}

/* The master gives our sockets to siblings, and forks our successor when we are gone. */
static void drain_by_itself(struct worker *worker)
{
    struct channel_message message = {.type = CHANNEL_LEAVING};

    if (worker->channel >= 0)
        channel_try_send(worker->channel, &message, NULL, -1);
    worker_drain(worker,
                 master_timeout(worker->generation->config.drain_timeout_ms, MASTER_DRAIN_MS));
}

/* The process's own signals: of an operator, or of a terminal, which signals the whole group; there the
 * master tells us what INT and QUIT mean. */
static void signals_read(struct worker *worker)
{
    pid_t from;

    for (int number; (number = signals_take(worker->signal_fd, &from)) != 0;) {
        if (number == SIGTERM)
            worker_stop(worker);
        else if (number == SIGINT && worker->channel < 0)
            worker_stop(worker);
        else if (number == SIGQUIT && (from != 0 || worker->channel < 0))
            drain_by_itself(worker);
    }
}

/* ---- passing on --------------------------------------------------------------------------- */

static void pending_add(struct shm_slot *slot, uint32_t count)
{
    atomic_fetch_add_explicit(&slot->pending, count, memory_order_relaxed);
}

static void pending_take(struct shm_slot *slot)
{
    uint32_t pending = atomic_load_explicit(&slot->pending, memory_order_relaxed);

    while (pending > 0 && !atomic_compare_exchange_weak_explicit(&slot->pending, &pending,
                                                                 pending - 1, memory_order_relaxed,
                                                                 memory_order_relaxed))
        MAYBE(pending);
}

static void passed_deliver(struct worker *worker, const struct handover *handover, const int *fds,
                           uint32_t fds_count)
{
    struct worker_passed passed = {
        .kind = (enum worker_pass_kind)handover->kind,
        .fds_count = fds_count,
        .listener_name = "",
        .blob = handover->blob,
        .from_generation = handover->from_generation,
        .hops = handover->hops,
    };
    char name[HANDOVER_NAME_MAX + 1];

    memcpy(name, handover->name.data, handover->name.len);
    name[handover->name.len] = '\0';
    passed.listener_name = name;
    memcpy(passed.fds, fds, fds_count * sizeof(int));
    for (uint32_t i = 0; i < worker->listeners_count && passed.listener == NULL; i++)
        if (strcmp(worker->listeners[i].name, name) == 0)
            passed.listener = &worker->listeners[i];
    if (worker->handler != NULL && worker->handler->passed != NULL) {
        worker->handler->passed(worker, &passed);
        return;
    }
    for (uint32_t i = 0; i < fds_count; i++)
        close(fds[i]);
}

static void pass_read(struct worker *worker)
{
    int rx = worker->master->pass_rx[worker->child->slot];

    for (int i = 0; i < MESSAGES_A_TURN_MAX; i++) {
        struct handover handover;
        int fds[WORKER_PASS_FDS_MAX];
        uint32_t fds_count;
        int err = handover_recv(rx, worker->master->packet, &handover, fds, &fds_count);

        if (err == ERR_AGAIN)
            return;
        if (err != 0) {
            log_warn(worker->master->log, "hand-over: a packet does not parse, dropped");
            continue;
        }
        if (handover.kind == HANDOVER_DRAIN) {
            uint32_t timeout_ms =
                master_timeout(worker->generation->config.drain_timeout_ms, MASTER_DRAIN_MS);

            for (uint32_t j = 0; j < fds_count; j++)
                close(fds[j]);
            if (handover.blob.len == sizeof(timeout_ms))
                memcpy(&timeout_ms, handover.blob.data, sizeof(timeout_ms));
            /* Its own master may have been slow to die, or has: either way another serves now. */
            worker_drain(worker, timeout_ms);
            continue;
        }
        pending_take(worker->slot);
        passed_deliver(worker, &handover, fds, fds_count);
    }
}

static bool slot_serves(const struct shm_slot *slot)
{
    return atomic_load_explicit(&slot->state, memory_order_relaxed) == WORKER_STATE_SERVING;
}

static uint32_t slot_load(const struct shm_slot *slot)
{
    return atomic_load_explicit(&slot->load, memory_order_relaxed) +
           atomic_load_explicit(&slot->pending, memory_order_relaxed);
}

void worker_load_set(struct worker *worker, uint32_t load)
{
    atomic_store_explicit(&worker->slot->load, load, memory_order_relaxed);
}

/* Compared with our own last beat, so that no clock is read. */
static bool slot_is_awake(const struct worker *worker, const struct shm_slot *slot)
{
    return atomic_load_explicit(&slot->heartbeat_ms, memory_order_relaxed) + AWAKE_MS >=
           atomic_load_explicit(&worker->slot->heartbeat_ms, memory_order_relaxed);
}

uint32_t worker_pick_for_accept(struct worker *worker)
{
    const struct shm_table *table = worker->master->shm.table;
    uint32_t own = slot_load(worker->slot), best = worker->child->slot, best_load = own;


    for (uint32_t i = 0; i < table->slots_count; i++) {
        const struct shm_slot *slot = &table->slots[i];
        uint32_t load;

        if (!slot_serves(slot) || slot->generation != worker->generation->id)
            continue;
        load = slot_load(slot);
        if (load < best_load && slot_is_awake(worker, slot)) {
            best = i;
            best_load = load;
        }
    }
    if ((uint64_t)own * 8 <= (uint64_t)best_load * 9)
        return worker->child->slot;
    /* Without a master nobody would see to what waits for a worker that died. Its channel's end may
     * still be unread, so ask the kernel. */
    return getppid() == atomic_load_explicit(&worker->slot->master_pid, memory_order_relaxed)
               ? best
               : worker->child->slot;
}

uint32_t worker_pick_successor(struct worker *worker)
{
    const struct shm_table *table = worker->master->shm.table;
    /* Who drains takes what there is: an upgrade that is backed out leads to an older generation, and an
     * operator's QUIT to one worker to its siblings. Of a generation that drains none is SERVING. */
    uint32_t above = worker->is_draining ? 0 : worker->generation->id;
    uint32_t best = WORKER_SLOT_NONE, best_load = 0, best_generation = 0;
    bool is_coming = false;

    for (uint32_t i = 0; i < table->slots_count; i++) {
        const struct shm_slot *slot = &table->slots[i];
        uint32_t load = slot_load(slot), state = atomic_load(&slot->state);

        is_coming |= (state == WORKER_STATE_STARTING || state == WORKER_STATE_GONE) &&
                     slot->generation > above && slot->generation != worker->generation->id;
        if (!slot_serves(slot) || slot == worker->slot || slot->generation <= above ||
            slot->generation < best_generation)
            continue;
        if (slot->generation > best_generation || load < best_load) {
            best = i;
            best_load = load;
            best_generation = slot->generation;
        }
    }
    return best == WORKER_SLOT_NONE && is_coming ? WORKER_SLOT_LATER : best;
}

uint32_t worker_predecessor(const struct worker *worker)
{
    const struct shm_table *table = worker->master->shm.table;
    uint32_t best = WORKER_SLOT_NONE, best_generation = 0;

    for (uint32_t i = 0; i < table->slots_count; i++) {
        const struct shm_slot *slot = &table->slots[i];
        uint32_t state = atomic_load(&slot->state);
        bool is_coming = state == WORKER_STATE_STARTING || state == WORKER_STATE_GONE;

        /* One that drains has given it away perhaps, but not all that belongs to it. */
        if ((!slot_serves(slot) && !is_coming && state != WORKER_STATE_DRAINING) || slot->index != worker->child->index ||
            slot->generation >= worker->generation->id || slot->generation < best_generation ||
            !shm_pid_is_alive(atomic_load(is_coming ? &slot->master_pid : &slot->pid),
                              is_coming ? 0 : slot->pid_start))
            continue;
        best = is_coming ? WORKER_SLOT_LATER : i;
        best_generation = slot->generation;
    }
    return best;
}

int worker_pass(struct worker *worker, uint32_t slot, enum worker_pass_kind kind,
                const struct worker_listener *listener, const int *fds, uint32_t fds_count,
                struct bytes blob, uint8_t hops)
{
    struct shm_table *table = worker->master->shm.table;
    struct handover handover = {
        .kind = (uint8_t)kind,
        .hops = (uint8_t)(hops + 1),
        .from_generation = worker->generation->id,
        .name = listener == NULL ? BYTES_EMPTY : bytes_of_string(listener->name),
        .blob = blob,
    };
    bool is_claim = kind == WORKER_PASS_CLAIM;
    int err;

    ASSERT(fds_count >= 1);
    if (slot >= table->slots_count ||
        (!slot_serves(&table->slots[slot]) &&
         !(is_claim && atomic_load(&table->slots[slot].state) == WORKER_STATE_DRAINING)))
        return ERR_NOT_FOUND;
    if (hops >= WORKER_HOPS_MAX)
        return ERR_FULL;
    /* Before the send: the taker may be quicker than we are. */
    pending_add(&table->slots[slot], 1);
    err = handover_send(worker->master->pass_tx[slot], &handover, fds, fds_count);
    if (err != 0) {
        pending_take(&table->slots[slot]);
        return err;
    }
    for (uint32_t i = 0; i < fds_count; i++)
        close(fds[i]);
    return 0;
}

bool worker_mutex_try(struct worker *worker)
{
    uint32_t me = worker->child->slot + 1, holder = 0;
    _Atomic uint32_t *mutex = &worker->master->self->mutex_holder;

    if (atomic_compare_exchange_strong(mutex, &holder, me) || holder == me)
        return true;
    return false; /* a dead holder's is freed by the master */
}

void worker_mutex_release(struct worker *worker)
{
    uint32_t me = worker->child->slot + 1;

    MAYBE(atomic_compare_exchange_strong(&worker->master->self->mutex_holder, &me, 0));
}

/* ---- orphans ------------------------------------------------------------------------------ */

static void guard_read(struct worker *worker, int guard_fd)
{
    struct inherit inherit = {0};
    pid_t master_pid = shm_master_other(&worker->master->shm);

    if (worker->is_draining || worker->is_stopping)
        return;
    if (master_pid != 0) {
        /* Another master, of an upgrade, has the same sockets; it will tell us to drain. */
        takeover_answer_live(guard_fd, master_pid);
        return;
    }
    upgrade_collect(worker->master, &inherit);
    if (takeover_answer_orphan(guard_fd, worker->master->shm.table->owner_uid, &inherit))
        log_notice(worker->master->log, "a new master has taken the listeners over");
    inherit_free(&inherit, false);
}

/* ---- the loop's entry --------------------------------------------------------------------- */

void worker_channel_ready(struct worker *worker)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(worker->epoll_fd, events, EVENTS_MAX, 0);

    worker_heartbeat(worker);
    for (int i = 0; i < count; i++) {
        switch ((enum source)(uint32_t)events[i].data.u64) {
        case SOURCE_CHANNEL:
            channel_read(worker);
            break;
        case SOURCE_SIGNAL:
            signals_read(worker);
            break;
        case SOURCE_PASS:
            pass_read(worker);
            break;
        case SOURCE_GUARD:
            guard_read(worker, (int)(events[i].data.u64 >> 32));
            break;
        }
    }
}

/* ---- the stats process -------------------------------------------------------------------- */

uint32_t worker_slots_count(const struct worker *worker)
{
    return worker->master->shm.table->slots_count;
}

static uint32_t newest_generation(const struct shm_table *table)
{
    uint32_t newest = 0;

    for (uint32_t i = 0; i < table->slots_count; i++)
        if (slot_serves(&table->slots[i]))
            newest = MAX(newest, table->slots[i].generation);
    return newest;
}

bool worker_slot_info(const struct worker *worker, uint32_t index, struct worker_info *out)
{
    const struct shm *shm = &worker->master->shm;
    const struct shm_slot *slot;
    uint64_t beat_ms, now_ms = shm_now_ms();

    if (index >= shm->table->slots_count)
        return false;
    slot = &shm->table->slots[index];
    *out = (struct worker_info){.state = (enum worker_state)atomic_load(&slot->state)};
    if (out->state == WORKER_STATE_FREE)
        return false;
    beat_ms = atomic_load(&slot->heartbeat_ms);
    out->pid = atomic_load(&slot->pid);
    out->master_pid = atomic_load(&slot->master_pid);
    out->generation = slot->generation;
    out->index = slot->index;
    out->load = atomic_load(&slot->load);
    out->respawns = slot->respawns;
    out->started_s = slot->started_s;
    out->heartbeat_age_ms = beat_ms == 0 || beat_ms > now_ms ? 0 : now_ms - beat_ms;
    out->is_newest = out->state == WORKER_STATE_SERVING &&
                     slot->generation == newest_generation(shm->table);
    out->stats = shm_segment(shm, index);
    out->stats_size = slot->stats_size;
    return true;
}

void worker_master_info(const struct worker *worker, struct worker_master_info *out)
{
    const struct shm_master *self = worker->master->self;

    *out = (struct worker_master_info){
        .pid = atomic_load(&self->pid),
        .started_s = self->started_s,
        .reloads = atomic_load(&self->reloads),
        .reloads_failed = atomic_load(&self->reloads_failed),
        .upgrades = atomic_load(&self->upgrades),
        .upgrades_failed = atomic_load(&self->upgrades_failed),
        .respawns = atomic_load(&self->respawns),
        .crashes = atomic_load(&self->crashes),
        .reloaded_s = self->reloaded_s,
        .generation = atomic_load(&self->generation),
        .workers = atomic_load(&self->workers),
        .log_level = atomic_load(&self->log_level),
    };
}

pid_t worker_living_master(const struct worker *worker)
{
    return shm_master_other(&worker->master->shm);
}

const void *worker_stats_base(const struct worker *worker, size_t *size)
{
    if (size != NULL)
        *size = worker->master->shm.stats->segment_size;
    return shm_base(&worker->master->shm);
}

bool worker_stats_fold(struct worker *worker, uint32_t slot,
                       void (*fold)(void *, void *, size_t, const void *, size_t), void *arg)
{
    if (slot >= worker->master->shm.table->slots_count)
        return false;
    return shm_fold(&worker->master->shm, slot, fold, arg);
}

int worker_request(struct worker *worker, enum worker_request request, const char *text,
                   uint64_t *id)
{
    struct channel_message message = {.type = CHANNEL_REQUEST, .value = (uint32_t)request,
                                      .id = ++worker->request_last};

    *id = message.id;
    if (worker->channel < 0)
        return ERR_EOF;
    return channel_send(worker->channel, &message, text, -1);
}

/* ---- birth -------------------------------------------------------------------------------- */

static void close_if_open(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Above all the masters' ends of our siblings' channels: they would not see the master die. */
static void close_master_things(struct master *master)
{
    close_if_open(&master->signal_fd);
    close_if_open(&master->parent_channel);
    close_if_open(&master->notify_fd);
    close_if_open(&master->upgrade.channel);
    close_if_open(&master->cwd_fd);
    LIST_FOR_EACH (&master->generations, node) {
        struct generation *generation = CONTAINER_OF(node, struct generation, node);

        for (uint32_t i = 0; i < generation->workers; i++)
            close_if_open(&generation->children[i].channel);
        close_if_open(&generation->stats.channel);
    }
}

static bool listener_concerns(const struct child *child, const struct master_listener *wanted)
{
    if (child->is_stats)
        return wanted->for_whom == MASTER_FOR_STATS;
    return wanted->for_whom == MASTER_FOR_WORKERS ||
           (wanted->for_whom == MASTER_FOR_WORKER && wanted->only_worker == child->index);
}

/* Addresses of another configuration: one that is being left, or tried. Ours would keep them alive. The stats
 * process keeps only its own: it outlives the workers by as long as somebody waits for its answer. */
static void strangers_close(struct worker *worker)
{
    const struct generation *generation = worker->generation;
    struct listener_set *set = &worker->master->listeners;

    LIST_FOR_EACH (&set->list, node) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);
        bool is_ours = false;

        for (uint32_t i = 0; i < generation->config.listeners_count && !is_ours; i++)
            is_ours = generation->bound[i] == listener &&
                      (!worker->child->is_stats ||
                       listener_concerns(worker->child, &generation->config.listeners[i]));
        if (!is_ours)
            listener_forget(set, listener);
    }
}

static void listeners_build(struct worker *worker)
{
    const struct master_config *config = &worker->generation->config;
    uint32_t cap = 0, count = 0;

    for (uint32_t i = 0; i < config->listeners_count; i++)
        if (listener_concerns(worker->child, &config->listeners[i]))
            cap += worker->generation->bound[i]->lanes;
    worker->listeners = must_zalloc(MAX(cap, 1u) * sizeof(*worker->listeners));
    worker->listener_lanes = must_zalloc(MAX(cap, 1u) * sizeof(uint32_t));
    for (uint32_t i = 0; i < config->listeners_count; i++) {
        const struct master_listener *wanted = &config->listeners[i];
        struct listener *listener = worker->generation->bound[i];

        if (!listener_concerns(worker->child, wanted))
            continue; /* a stats process has closed it */
        for (uint32_t lane = 0; lane < listener->lanes; lane++) {
            bool is_unix = listener->addr.ss_family == AF_UNIX;

            worker->listener_lanes[count] = lane;
            worker->listeners[count++] = (struct worker_listener){
                .name = must_strdup(listener->name), /* outlives the listener in a drain */
                .tag = wanted->tag,
                .fd = listener->fds[lane],
                .is_unix = is_unix,
                /* Nobody else has these, but lane 0 is not necessarily ours: so "shared". */
                .is_shared = lane == 0 && (is_unix || wanted->for_whom != MASTER_FOR_WORKERS ||
                                           wanted->accept != MASTER_ACCEPT_REUSEPORT),
                .is_mutex = !is_unix && wanted->accept == MASTER_ACCEPT_MUTEX && lane == 0,
            };
        }
    }
    worker->listeners_count = count;
}

static void watch(struct worker *worker, int fd, enum source source)
{
    struct epoll_event event = {.events = EPOLLIN};

    event.data.u64 = source;
    if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        log_error(worker->master->log, "epoll_ctl failed: %s", err_text(-errno));
}

static void name_set(struct worker *worker)
{
    const char *program = worker->master->program->name;

    if (worker->child->is_stats)
        snprintf(worker->name, sizeof(worker->name), "%s: stats", program);
    else
        snprintf(worker->name, sizeof(worker->name), "%s: worker %u", program,
                 worker->child->index);
    title_set("%s", worker->name);
    crash_title_set(worker->name);
    if (worker->master->log != NULL) {
        /* The log shows "weir-proxy/3[pid]". */
        char name[48];

        if (worker->child->is_stats)
            snprintf(name, sizeof(name), "%s/stats", program);
        else
            snprintf(name, sizeof(name), "%s/%u", program, worker->child->index);
        log_set_name(worker->master->log, name);
    }
}

static void place_set(struct worker *worker)
{
    const struct master_config *config = &worker->generation->config;
    int cpu = worker->child->is_stats ? -1 : affinity_pick(config, worker->child->index), err;

    err = affinity_set(cpu);
    if (err != 0)
        log_warn(worker->master->log, "cpu_affinity: worker %u cannot run on cpu %d: %s",
                 worker->child->index, cpu, err_text(err));
    privilege_rlimit_nofile(config->rlimit_nofile, worker->master->log);
    err = privilege_drop(&worker->generation->privilege);
    if (err != 0) {
        log_error(worker->master->log, "user: cannot become uid=%u gid=%u: %s",
                  (unsigned)worker->generation->privilege.uid,
                  (unsigned)worker->generation->privilege.gid, err_text(err));
        exit(MASTER_EXIT_FATAL);
    }
}

void worker_run(struct master *master, struct child *child, int channel)
{
    struct worker worker = {.master = master, .child = child, .generation = child->generation,
                            .channel = channel};
    int code;

    worker.has_start_stderr = master->notify_fd >= 0;
    close_master_things(master);
    worker.signal_fd = signals_open(SIGNALS_WORKER);
    worker.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (worker.signal_fd < 0 || worker.epoll_fd < 0) {
        log_error(master->log, "cannot start a worker: %s", err_text(-errno));
        exit(1);
    }
    if (!child->is_stats) {
        worker.slot = &master->shm.table->slots[child->slot];
        worker.slot->pid_start = shm_pid_start(getpid());
        atomic_store(&worker.slot->pid, getpid());
    }
    name_set(&worker);
    place_set(&worker);
    strangers_close(&worker);
    listeners_build(&worker);
    watch(&worker, channel, SOURCE_CHANNEL);
    watch(&worker, worker.signal_fd, SOURCE_SIGNAL);
    if (worker.slot != NULL)
        watch(&worker, master->pass_rx[child->slot], SOURCE_PASS);
    code = child->is_stats ? master->program->stats_main(&worker)
                           : master->program->worker_main(&worker);
    if (worker.slot != NULL) {
        atomic_store(&worker.slot->load, 0);
        worker_mutex_release(&worker);
    }
    for (uint32_t i = 0; i < worker.listeners_count; i++)
        mem_free((char *)(uintptr_t)worker.listeners[i].name);
    mem_free(worker.listeners);
    mem_free(worker.listener_lanes);
    exit(code);
}
