/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving back what was emptied, before a checkpoint comes.
 *
 *     emptied ──(some have come together, or room is short)──> flush of the log ──> free
 *
 * The newest checkpoint goes on naming places in such a segment. A recovery from it comes by what took their place:
 *
 *     checkpoint                    log since, as the recovery reads it              index then
 *     A: victim+2  ───────────────> [A, same LSN] copy, in a cold segment  ────────> A: cold+0
 *     B: victim+5  ───────────────> [B, higher LSN], [TOMB B] or [FLUSH]   ────────> B: hot+9, or none
 *
 *   V1  Copies, and what took the place of the rest, are durable before it goes: the flush was asked for after the walk that
 *       found nothing live, with no transaction half done, nor one that has not ended in the log.
 *   V2  The recovery reads them: all that was appended since the checkpoint began lies in hot segments from its hot_from on,
 *       or in cold ones that were open then or opened later. Those hot ones are not given back here. A cold one may be:
 *       what lived in it was copied in turn, and of the rest V1 holds.
 *   V3  Every entry that went away since the checkpoint has left a record. While one has not (it expired on a full disk), only
 *       checkpoints give back.
 *   V4  The recovery ends with no entry whose segment is not there, or the start is refused (replay.c, Y6).
 *   V5  A backup can be restored as of any LSN from the newest checkpoint on, but not of one before what took a lost
 *       record's place: headers, footers and the file "lock" tell the LSN that was durable when the last one went (given_lsn;
 *       log_given.c), and while a backup is made none goes.
 */
#include "backend/store/backup.h"
#include "backend/store/checkpoint.h"
#include "backend/store/cleaner_private.h"

bool clean_would_go(const struct store *store, const struct segment_info *segment)
{
    return checkpoint_lsn(store) != 0 && !store_log_is_followed(store->log, segment, checkpoint_hot_from(store));
}

bool clean_goes(const struct store *store, const struct segment_info *segment)
{
    return segment->is_emptied && segment->state == SEGMENT_SEALED && segment->pins == 0 && !store->is_unlogged &&
           !store->cleaner->is_unlogged && !store_log_is_unit_open(store->log) && clean_would_go(store, segment);
}

/* The first that leaves; NULL: none does. */
static struct segment_info *leaving_find(struct store *store)
{
    for (uint32_t i = 0; i < store_log_segment_count(store->log); i++) {
        struct segment_info *segment = store_log_segment(store->log, i);

        if (segment->is_leaving)
            return segment;
    }
    return NULL;
}

static void give_flushed(void *arg, int err)
{
    struct store *store = arg;
    struct segment_info *segment;
    bool may_go = err == 0 && store->state == STORE_OPEN && !backup_holds(store);

    store->cleaner->is_giving = store->cleaner->is_starved = false;
    store->cleaner->next_ms = 0;
    while ((segment = leaving_find(store)) != NULL) {
        segment->is_leaving = false;
        /* A checkpoint that has begun meanwhile has taken it over, and leaves it to us all the same. */
        if (may_go && !store_log_is_followed(store->log, segment, checkpoint_hot_from(store)))
            store->stats.segments_given +=
                store_log_give_back(store->log, segment->sequence, checkpoint_hot_from(store));
    }
    clean_plan_forget(store);
    store_work_soon(store, 0);
}

void cleaner_give_work(struct store *store)
{
    if (store->cleaner->is_giving || backup_holds(store) || !clean_wants_flush(store))
        return;
    for (uint32_t i = 0; i < store_log_segment_count(store->log); i++) {
        struct segment_info *segment = store_log_segment(store->log, i);

        segment->is_leaving = clean_goes(store, segment);
    }
    store->cleaner->is_giving = true;
    store_turn_end(store);
    store_log_flush(store->log, give_flushed, store); /* V1 */
    clean_plan_forget(store);
}
