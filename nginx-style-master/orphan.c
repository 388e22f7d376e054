/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What belongs to nobody: clients on their way to a worker that died, and workers whose master did.
 *
 * An orphan serves on from every socket until a new master, which shares its table, tells it to drain
 * over its hand-over socket. It is not our child, so its end is seen in /proc.
 */
#include "nginx-style-master/private.h"

#include <signal.h>
#include <unistd.h>

static uint32_t slot_that_serves(const struct master *master, uint32_t but)
{
    const struct shm_table *table = master->shm.table;
    uint32_t best = WORKER_SLOT_NONE;

    for (uint32_t i = 0; i < table->slots_count; i++) {
        const struct shm_slot *slot = &table->slots[i];

        if (i == but || atomic_load(&slot->state) != WORKER_STATE_SERVING)
            continue;
        if (best == WORKER_SLOT_NONE || slot->generation > table->slots[best].generation ||
            (slot->generation == table->slots[best].generation &&
             atomic_load(&slot->load) < atomic_load(&table->slots[best].load)))
            best = i;
    }
    return best;
}

void master_reroute(struct master *master, uint32_t slot)
{
    /* Bounded by what a socket holds. */
    for (int i = 0; i < 10000; i++) {
        uint32_t taker = slot_that_serves(master, slot), fds_count;
        struct handover handover;
        int fds[WORKER_PASS_FDS_MAX], err;

        if (taker == WORKER_SLOT_NONE)
            return; /* it waits in the socket, which is ours too */
        err = handover_recv(master->pass_rx[slot], master->packet, &handover, fds, &fds_count);
        if (err == ERR_AGAIN)
            return;
        if (err != 0 || handover.kind == HANDOVER_DRAIN)
            continue;
        err = handover_send(master->pass_tx[taker], &handover, fds, fds_count);
        if (err != 0) /* full: back where it came from */
            err = handover_send(master->pass_tx[slot], &handover, fds, fds_count);
        if (err != 0)
            log_error(master->log, "a client on its way to a dead worker was lost: %s",
                      err_text(err));
        else
            atomic_fetch_add(&master->shm.table->slots[taker].pending, 1);
        for (uint32_t j = 0; j < fds_count; j++)
            close(fds[j]);
    }
}

static bool master_is_alive(const struct master *master, pid_t pid)
{
    for (uint32_t i = 0; i < SHM_MASTERS_MAX; i++) {
        const struct shm_master *other = &master->shm.table->masters[i];

        if (atomic_load(&other->pid) == pid)
            return shm_pid_is_alive(pid, other->pid_start);
    }
    return false;
}

static void orphan_tell(struct master *master, uint32_t index, uint64_t now_ms)
{
    struct shm_slot *slot = &master->shm.table->slots[index];
    uint32_t timeout_ms =
        master_timeout(master->serving->config.drain_timeout_ms, MASTER_DRAIN_MS);
    uint64_t *told_ms = &master->foreign_told_ms[index];
    struct handover order = {.kind = HANDOVER_DRAIN, .name = BYTES_EMPTY,
                             .blob = bytes_of(&timeout_ms, sizeof(timeout_ms))};
    pid_t pid = atomic_load(&slot->pid);

    if (*told_ms == 0) {
        if (handover_send(master->pass_tx[index], &order, NULL, 0) != 0)
            return;
        *told_ms = now_ms;
        log_notice(master->log, "an orphan was told to drain pid=%d generation=%u", (int)pid,
                   slot->generation);
    } else if (now_ms > *told_ms + timeout_ms + 2 * MASTER_STOP_MS) {
        log_warn(master->log, "an orphan did not leave in time, ends it pid=%d", (int)pid);
        kill(pid, SIGKILL);
    }
}

/* Slots of masters that are dead: nobody else waits for their workers. */
static bool slot_is_orphan(const struct master *master, const struct shm_slot *slot)
{
    uint32_t state = atomic_load(&slot->state);
    pid_t owner = atomic_load(&slot->master_pid);

    return state != WORKER_STATE_FREE && state != WORKER_STATE_RETIRED && owner != getpid() &&
           !master_is_alive(master, owner);
}

void orphans_tick(struct master *master, uint64_t now_ms)
{
    struct shm_table *table = master->shm.table;

    for (uint32_t i = 0; i < table->slots_count; i++) {
        struct shm_slot *slot = &table->slots[i];
        uint32_t state = atomic_load(&slot->state);

        if (state == WORKER_STATE_FREE || state == WORKER_STATE_GONE ||
            state == WORKER_STATE_RETIRED)
            master_reroute(master, i);
        if (!slot_is_orphan(master, slot))
            continue;
        if (!shm_pid_is_alive(atomic_load(&slot->pid), slot->pid_start)) {
            shm_slot_move(&master->shm, i, WORKER_STATE_RETIRED);
            master_reroute(master, i);
            master_slot_retired(master, i);
            master->foreign_told_ms[i] = 0;
        } else if (master->serving != NULL) {
            /* All of them before the first is told: they must not pass clients to each other. */
            shm_slot_move(&master->shm, i, WORKER_STATE_DRAINING);
        }
    }
    for (uint32_t i = 0; i < table->slots_count && master->serving != NULL; i++)
        if (slot_is_orphan(master, &table->slots[i]))
            orphan_tell(master, i, now_ms);
}

bool orphans_live(const struct master *master)
{
    const struct shm_table *table = master->shm.table;

    for (uint32_t i = 0; i < table->slots_count; i++) {
        const struct shm_slot *slot = &table->slots[i];
        uint32_t state = atomic_load(&slot->state);

        if (state != WORKER_STATE_FREE && state != WORKER_STATE_RETIRED &&
            atomic_load(&slot->master_pid) != getpid() &&
            shm_pid_is_alive(atomic_load(&slot->pid), slot->pid_start))
            return true;
    }
    return false;
}
