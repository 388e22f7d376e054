/* SPDX-License-Identifier: Apache-2.0 */
/*
 *     NONE ──start──> WAITING ──no checkpoint runs──> SEALING ──> READY ──end, or nobody asks──> NONE
 *                        │                               │
 *                        └───────────────────────────────┴──error──> FAILED ──end, start──> NONE
 *
 * There is no checkpoint of its own: the log since the last one goes along, and is what a restore to a point in time
 * chooses from.
 */
#include "backend/store/backup.h"

#include "backend/store/checkpoint_private.h"
#include "common/base/mem.h"

#include <stdio.h>

#define NAMES_FIXED_MAX 4u /* shard, MANIFEST, two checkpoints */

enum backup_step { STEP_NONE, STEP_WAITING, STEP_SEALING, STEP_READY, STEP_FAILED };

struct backup {
    uint8_t step; /* enum backup_step */
    bool is_given_up; /* it ended while something was under way */
    int err;
    uint64_t id, asked_ms, lsn, wall_ms, limit;
    uint64_t *sequences; /* owns; each is pinned */
    uint32_t *slots;     /* owns */
    uint32_t count, fixed_count;
    uint64_t checkpoint_files[2];
};

static void files_free(struct store *store)
{
    struct backup *backup = store->backup;

    for (uint32_t i = 0; i < backup->count; i++)
        store_log_pin(store->log, backup->sequences[i], false);
    mem_free(backup->sequences);
    mem_free(backup->slots);
    backup->sequences = NULL;
    backup->slots = NULL;
    backup->count = 0;
}

void backup_destroy(struct store *store)
{
    struct backup *backup = store->backup;

    if (backup == NULL)
        return;
    mem_free(backup->sequences);
    mem_free(backup->slots);
    mem_free(backup);
    store->backup = NULL;
}

static void backup_failed(struct store *store, int err)
{
    store->backup->step = STEP_FAILED;
    store->backup->err = err;
    log_warn(store->text_log, "store: no backup shard=%u why=\"%s\"", store->options.shard, err_text(err));
}

bool backup_holds(const struct store *store)
{
    return store->backup != NULL && store->backup->step >= STEP_WAITING && store->backup->step <= STEP_READY;
}

/* ---- the files -------------------------------------------------------------------------------- */

static void checkpoint_take(struct backup *backup, const struct checkpoint *c)
{
    uint64_t newest = c->generation == 0 ? 0 : c->file_number;

    backup->checkpoint_files[0] = newest;
    backup->fixed_count = newest == 0 ? 1 : 3;
    for (unsigned i = 0; i < 2 && newest != 0; i++)
        if (c->file_numbers[i] != 0 && c->file_numbers[i] != newest)
            backup->checkpoint_files[backup->fixed_count++ - 2] = c->file_numbers[i];
    ASSERT(backup->fixed_count <= NAMES_FIXED_MAX);
}

static int files_take(struct store *store)
{
    struct backup *backup = store->backup;
    uint32_t count = store_log_segment_count(store->log);

    backup->sequences = mem_alloc(sizeof(*backup->sequences) * (count + 1));
    backup->slots = mem_alloc(sizeof(*backup->slots) * (count + 1));
    if (backup->sequences == NULL || backup->slots == NULL)
        return ERR_FULL;
    for (uint32_t i = 0; i < count; i++) {
        const struct segment_info *info = store_log_segment(store->log, i);

        /* What was opened later, and a hot one that was opened and has nothing in it. */
        if (info->sequence >= backup->limit || info->state == SEGMENT_OPEN)
            continue;
        ASSERT(info->state == SEGMENT_SEALED || info->state == SEGMENT_CLEANED);
        store_log_pin(store->log, info->sequence, true);
        backup->sequences[backup->count] = info->sequence;
        backup->slots[backup->count++] = info->slot;
    }
    checkpoint_take(backup, store->checkpoint);
    return 0;
}

/* "shard", "MANIFEST", checkpoint.N, newest first; then the segments. */
void backup_file_name(const struct store *store, uint32_t i, char out[BACKUP_NAME_MAX])
{
    const struct backup *backup = store->backup;

    ASSERT(backup->step == STEP_READY && i < backup->fixed_count + backup->count);
    if (i >= backup->fixed_count)
        (void)snprintf(out, BACKUP_NAME_MAX, "%06u.seg", backup->slots[i - backup->fixed_count]);
    else if (i < 2)
        (void)snprintf(out, BACKUP_NAME_MAX, "%s", i == 0 ? "shard" : "MANIFEST");
    else
        (void)snprintf(out, BACKUP_NAME_MAX, "checkpoint.%llu", (unsigned long long)backup->checkpoint_files[i - 2]);
}

/* ---- steps ------------------------------------------------------------------------------------ */

static void backup_sealed(void *arg, int err)
{
    struct store *store = arg;
    struct backup *backup = store->backup;

    backup->step = STEP_NONE;
    if (backup->is_given_up)
        return;
    if (err == 0)
        err = files_take(store);
    if (err != 0) {
        files_free(store);
        backup_failed(store, err);
        return;
    }
    backup->step = STEP_READY;
    backup->asked_ms = store->now_ms;
}

static void seal_step(struct store *store)
{
    struct backup *backup = store->backup;
    int err;

    store_turn_end(store);
    err = store_log_seal(store->log, backup_sealed, store);
    if (err == ERR_AGAIN)
        return;
    if (err != 0) {
        backup_failed(store, err);
        return;
    }
    backup->step = STEP_SEALING;
    backup->limit = store_log_next_sequence(store->log);
    backup->lsn = store_lsn(store);
    backup->wall_ms = store->now_ms;
}

void backup_work(struct store *store)
{
    struct backup *backup = store->backup;

    if (backup == NULL || (backup->step != STEP_WAITING && backup->step != STEP_READY))
        return;
    if (store->now_ms > backup->asked_ms + BACKUP_LEASE_MS) {
        log_warn(store->text_log, "store: nobody asks for the backup any more, it is given up shard=%u",
                 store->options.shard);
        MAYBE(backup_end(store, backup->id));
    } else if (backup->step == STEP_WAITING && !checkpoint_is_running(store)) {
        seal_step(store);
    }
}

/* ---- for whoever asks ------------------------------------------------------------------------- */

int backup_start(struct store *store, uint64_t *id)
{
    struct backup *backup = store->backup;

    if (store->log == NULL)
        return ERR_UNSUPPORTED;
    if (store_log_error(store->log) != 0)
        return -EROFS;
    if (backup == NULL)
        backup = store->backup = mem_zalloc(sizeof(*backup));
    if (backup == NULL)
        return ERR_FULL;
    if (backup->step != STEP_NONE && backup->step != STEP_FAILED)
        return ERR_EXISTS;
    *id = (io_random64(store->io) >> 1) | 1;
    *backup = (struct backup){.step = STEP_WAITING, .asked_ms = store->now_ms, .id = *id};
    return 0;
}

static bool is_held(const struct store *store, uint64_t id)
{
    const struct backup *backup = store->backup;

    return backup != NULL && backup->id == id && backup->step != STEP_NONE && !backup->is_given_up;
}

void backup_status_get(struct store *store, uint64_t id, struct backup_status *out)
{
    struct backup *backup = store->backup;

    *out = (struct backup_status){
        .dir = store->options.dir, .shard = store->options.shard, .shard_count = store->options.shard_count,
    };
    if (!is_held(store, id))
        return;
    backup->asked_ms = store->now_ms;
    if (store_log_error(store->log) != 0) {
        out->state = BACKUP_FAILED;
        out->err = store_log_error(store->log);
        return;
    }
    out->state = backup->step == STEP_READY    ? BACKUP_READY
                 : backup->step == STEP_FAILED ? BACKUP_FAILED
                                               : BACKUP_RUNNING;
    out->err = backup->err;
    if (out->state != BACKUP_READY)
        return;
    out->lsn = backup->lsn;
    out->wall_ms = backup->wall_ms;
    out->given_lsn = store_log_given_lsn(store->log);
    out->file_count = backup->fixed_count + backup->count;
}

bool backup_end(struct store *store, uint64_t id)
{
    struct backup *backup = store->backup;
    bool was_ready;

    if (!is_held(store, id))
        return false;
    if (backup->step == STEP_SEALING) { /* its end comes by later */
        backup->is_given_up = true;
        return false;
    }
    was_ready = backup->step == STEP_READY && store_log_error(store->log) == 0;
    files_free(store);
    backup->step = STEP_NONE;
    return was_ready;
}
