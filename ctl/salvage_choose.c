/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a key is now, from all records of it that could be read: recovery's rules (backend/store/replay.c), with the
 * checkpoint as a witness.
 *
 *   E1  Up to its page's LSN the checkpoint says what the key was. A record from before that which it does not name is
 *       dead, and does not come back. If the one that it names cannot be read, the key is lost: an older value would
 *       be a wrong one.
 *   E2  Above that, or without a page that verifies, the highest LSN wins. What a record in a damaged place did after it
 *       is not known: such a key may have an older value, a deleted one may come back. The missing LSNs are told.
 *   E3  Deltas belong to the whole with their base. Without that whole they are nothing.
 *   E4  What is only in cold segments with a higher LSN than its epoch reached in the hot log never happened (Y5) - if
 *       all of the hot log since the checkpoint could be read.
 *   E5  Where the checkpoint's record lay does not matter: that segment may have been given back since. A copy has the same
 *       LSN; of a whole with deltas there may be a fresh image instead, with the LSN of one of these.
 */
#include "ctl/salvage.h"

#include <stdlib.h>

static int by_key(const void *a, const void *b)
{
    const struct salvage_item *x = a, *y = b;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    if (x->lsn != y->lsn)
        return x->lsn < y->lsn ? -1 : 1;
    if (x->type != y->type)
        return x->type < y->type ? -1 : 1;
    return x->is_tail != y->is_tail ? x->is_tail - y->is_tail : x->is_cold - y->is_cold;
}

/* The LSN up to which the checkpoint knows; 0: nothing. */
static uint64_t page_lsn(const struct salvage *salvage, uint64_t hash)
{
    const struct shard_checkpoint *c = &salvage->checkpoint;
    uint32_t page;

    if (!salvage->has_checkpoint)
        return 0;
    page = (uint32_t)(hash & ((1ull << c->meta.bits) - 1));
    return c->pages_bad[page] ? 0 : MAX(checkpoint_table_lsn(&c->table, page), c->meta.lsn);
}

static bool is_named(const struct salvage_known *known, const struct salvage_item *item)
{
    if (known == NULL)
        return false;
    if (known->has_chain && item->base == known->base_lsn && item->lsn > known->image_lsn && item->lsn <= known->lsn)
        return item->type == RECORD_DELTA || item->type == RECORD_IMAGE; /* a fresh image, of deltas that it names: E5 */
    return (item->type == RECORD_SET || item->type == RECORD_IMAGE) &&
           item->lsn == (known->has_chain ? known->image_lsn : known->lsn);
}

static bool is_valid(const struct salvage *salvage, const struct salvage_item *item)
{
    uint64_t end = 0;

    if (item->lsn <= salvage->flush_lsn[item->db])
        return false;
    if (!item->is_cold || salvage->range_count > 0 || !salvage->is_log_whole)
        return true;
    for (uint32_t epoch = MIN(item->epoch + 1, salvage->epoch_cap); epoch > 0 && end == 0; epoch--)
        end = salvage->epoch_ends[epoch - 1];
    return item->lsn <= MAX(end, salvage->has_checkpoint ? salvage->checkpoint.meta.lsn : 0); /* E4 */
}

/* The key being put together: a whole, and deltas on it. */
struct state {
    struct salvage_item *whole; /* NULL: none */
    uint64_t base;
    uint64_t lsn;               /* of the last one */
    bool is_orphan;             /* deltas were met whose whole is not there */
};

static void state_begin(struct state *state, struct salvage_item *item, struct salvage_item *first)
{
    for (struct salvage_item *i = first; i < item; i++)
        i->is_chosen = false;
    state->whole = item;
    state->base = item->type == RECORD_SET ? item->lsn : item->base;
    state->lsn = item->lsn;
    state->is_orphan = false;
    item->is_chosen = true;
}

static void item_apply(struct state *state, struct salvage_item *item, struct salvage_item *first)
{
    if (item->type == RECORD_TOMB) {
        state_begin(state, item, first);
        item->is_chosen = false;
        state->whole = NULL;
        return;
    }
    if (state->lsn == item->lsn && state->whole != NULL) /* a copy, or what an image has already */
        return;
    if (item->type != RECORD_DELTA || item->base == item->lsn) {
        state_begin(state, item, first);
        return;
    }
    if (state->whole == NULL || state->base != item->base) {
        if (item->base > state->base || state->whole == NULL) { /* E3 */
            state_begin(state, item, first);
            item->is_chosen = false;
            state->whole = NULL;
            state->base = item->base;
            state->is_orphan = true;
        }
        return;
    }
    item->is_chosen = true;
    state->lsn = item->lsn;
}

/* Deltas of an image go with its LSN, as it is written as a whole value. */
static void bases_set(const struct state *state, struct salvage_item *first, const struct salvage_item *end)
{
    if (state->whole->type != RECORD_IMAGE)
        return;
    for (struct salvage_item *item = first; item < end; item++)
        if (item->is_chosen)
            item->base = state->whole->lsn;
}

static void key_choose(struct salvage *salvage, struct salvage_item *first, struct salvage_item *end)
{
    struct salvage_known *known = salvage_known_find(salvage, first->hash);
    uint64_t until = page_lsn(salvage, first->hash);
    struct state state = {.lsn = 0};

    for (struct salvage_item *item = first; item < end; item++)
        if (is_valid(salvage, item) && (item->lsn > until || is_named(known, item)))
            item_apply(&state, item, first);
    if (state.whole != NULL) {
        bases_set(&state, first, end);
        salvage->keys++;
        if (known != NULL && state.lsn < known->lsn) /* deltas that it names are not there */
            salvage->keys_cut++;
    } else if (known == NULL && state.is_orphan) {
        salvage->keys_lost++;
    }
    if (known != NULL) /* superseded is not lost: a tombstone has an LSN as well; a delta without a whole is none */
        known->is_lost &= state.whole == NULL && (state.lsn < known->lsn || state.is_orphan);
}

static int by_lsn(const void *a, const void *b)
{
    uint64_t x = ((const struct salvage_item *)a)->lsn, y = ((const struct salvage_item *)b)->lsn;

    return x < y ? -1 : x > y;
}

void salvage_choose(struct salvage *salvage)
{
    size_t chosen = 0;

    for (size_t i = 0; i < salvage->known_count; i++)
        salvage->known[i].is_lost = salvage->known[i].lsn > salvage->flush_lsn[salvage->known[i].db];
    if (salvage->count > 0)
        qsort(salvage->items, salvage->count, sizeof(*salvage->items), by_key);
    for (size_t i = 0, end; i < salvage->count; i = end) {
        for (end = i + 1; end < salvage->count && salvage->items[end].hash == salvage->items[i].hash; end++)
            ;
        key_choose(salvage, &salvage->items[i], &salvage->items[end]);
    }
    for (size_t i = 0; i < salvage->count; i++) {
        if (salvage->items[i].is_chosen) {
            salvage->tails += salvage->items[i].is_tail;
            salvage->items[chosen++] = salvage->items[i];
        }
    }
    salvage->count = chosen;
    if (chosen > 0)
        qsort(salvage->items, chosen, sizeof(*salvage->items), by_lsn);
    for (size_t i = 0; i < salvage->known_count; i++)
        salvage->keys_lost += salvage->known[i].is_lost;
}
