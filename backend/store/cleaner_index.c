/* SPDX-License-Identifier: Apache-2.0 */
/*
 * That nothing lives in a victim, shown by the index.
 *
 *     index     [A: 17+2] [B: 17+9] [C: 12+4] ...      all of it, a few buckets a step
 *     victim    13: nobody names a place in it          => emptied, and not one page of it was read
 *
 * Where few keys change often, all that a segment has is dead long before it is a victim. The walk of its records
 * (cleaner.c) reads 64 MiB, sums it up and looks for half a million keys to find that out; here it takes a look at each
 * entry. Where the keys are many the walk is quicker.
 *
 *   D1  Only of a segment that this process has filled: what it says of its records' LSNs is true, then.
 *   D2  A segment that is sealed gains nothing: an entry's address changes only to the place of what was appended just now.
 *       So who was seen elsewhere stays elsewhere, and the scan sees all that is there from its start to its end (X2).
 *   D3  Deltas have no address of their own. Those of an object have LSNs above its image's and at most the entry's: if the
 *       segment may have one of those the object may need it. While there are chains that a recovery has left (fetch.c) nothing
 *       is shown here: a start puts what the log ring had into a segment of its own, and only a walk fetches who needs it.
 *   D4  What takes away has no entry at all: a segment with a TOMB, FLUSH or SWAP above the horizon (L4) is walked.
 *   D5  What cannot be ruled out is walked. Nothing is moved here, nor freed on the word of a count (L8).
 */
#include "backend/store/checkpoint.h"
#include "backend/store/cleaner_private.h"

#define STEP_BUCKETS    256u
#define BYTES_PER_LOOK  256u /* of records for each bucket and entry: of fewer the walk is quicker */

bool clean_index_may(const struct store *store, const struct segment_info *segment)
{
    uint64_t looks = index_bucket_count(store->index) + index_count(store->index);

    return segment->live_bytes == 0 && segment->is_ours && segment->takes_lsn <= checkpoint_horizon(store) &&
           store->chains == NULL && looks * BYTES_PER_LOOK <= segment->record_bytes;
}

struct look {
    const struct store *store;
    const struct segment_info *victim;
    bool is_live;
};

static void look_at(void *arg, struct entry *e)
{
    struct look *look = arg;
    const struct segment_info *victim = look->victim;

    if (store_is_flushed(look->store, e))
        return;
    look->is_live |= address_sequence(e->address) == victim->sequence;
    if (entry_is_object(e) && victim->kind != SEGMENT_COLD) { /* D3: deltas are not copied */
        const struct object *object = entry_object(e);
        uint64_t oldest = object->image_lsn != 0 ? object->image_lsn + 1 : object->base_lsn;

        look->is_live |= object->image_lsn != entry_lsn(e) && oldest <= victim->last_lsn &&
                         entry_lsn(e) >= victim->first_lsn;
    }
}

enum clean_look clean_index_look(struct store *store)
{
    struct cleaner *cleaner = store->cleaner;
    struct look look = {.store = store, .victim = store_log_segment_find(store->log, cleaner->victim)};

    ASSERT(look.victim != NULL && look.victim->state == SEGMENT_SEALED);
    for (unsigned i = 0; i < STEP_BUCKETS && !look.is_live; i++) {
        cleaner->index_cursor = index_scan(store->index, cleaner->index_cursor, look_at, &look);
        if (cleaner->index_cursor == 0)
            break;
    }
    if (look.is_live)
        return LOOK_LIVE;
    return cleaner->index_cursor == 0 ? LOOK_DEAD : LOOK_ON;
}
