/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When the cleaner works, how hard, and on what.
 *
 *     free + emptied:   0 ......... low ................. start ..... the bound
 *                       urgent: any    the less is left, the    nothing is
 *                       victim, no     faster, and the fuller   cleaned
 *                       pauses         a victim may be
 *
 * Dead space costs nothing while it is not needed, and a segment that waits gets emptier: so cleaning begins late, and all
 * that is free beyond what a burst of writes needs is room that what is dead could have waited in. `low` is a 32nd of the
 * disk (two reserves at least), `start` a 64th (two segments) above. What was emptied counts: who waits on a full disk
 * waits for a checkpoint then, not for fuller victims. Where nobody has said how much is ours (log_bound.c) cleaning begins
 * as well when half of what is used is dead.
 *
 * Most of what was emptied goes without a checkpoint (cleaner_give.c). One frees the rest, which is of the hot log since
 * the last one: such a victim is worth less than another. It costs two flushes, and a record for every page of the index that
 * has changed, so it comes when an eighth of the disk was logged since the last one, for a 128th of the disk (two segments)
 * that waits for it, or when nothing else can be emptied. What a checkpoint cannot free as it is being read, say, waits for
 * a later one; on a full disk that comes after a second. With a bound on the disk it makes no pauses while less than `low` is free,
 * or `start` if something that was emptied waits for it: clients write on meanwhile, and when they have come to the reserve
 * they wait.
 */
#include "backend/store/checkpoint.h"
#include "backend/store/cleaner_private.h"

#define PLAN_AGE_MS        20u
#define DEAD_PERCENT_START 50u /* of what is used, where disk_max is not set */
#define LOW_RESERVES       2u
#define RAMP_MIN           2u
/* Of a victim's room, in 1/256, may at most be live: what is fuller than that is not worth it ever. */
#define LIVE_MAX           248u
/* Page headers and padding: a segment never holds more records than this part of it. */
#define ROOM_OF(size)      ((size) - (size) / 32)
#define NEARLY_NOTHING     0.1  /* of a segment: reading it costs something, too */
#define WAITS_DIVIDER      4.0  /* one that would have to wait for a checkpoint is worth so much less */
/* Parts of the disk: */
#define LOW_SHARE          32u
#define RAMP_SHARE         64u
#define BATCH_SHARE        128u
#define BATCH_MIN          2u
#define SINCE_SHARE        8u /* of what was logged since the last checkpoint */
#define SINCE_MIN          4u
#define BATCH_COUNT        16u /* without a bound on the disk */
#define FLUSH_BATCH        2u /* segments that go by one flush: it pads a page write of each stream */

static uint64_t unit_of(const struct store *store)
{
    return store->options.segment_size != 0 ? store->options.segment_size : 64u << 20;
}

static uint64_t low_mark(const struct store *store)
{
    return MAX(LOW_RESERVES * store_log_reserve(store->log), store_log_bound(store->log) / LOW_SHARE);
}

/* Cleaning begins below. */
static uint64_t start_mark(const struct store *store)
{
    return low_mark(store) + MAX(RAMP_MIN * unit_of(store), store_log_bound(store->log) / RAMP_SHARE);
}

/* So much waits for a checkpoint before one comes for it. */
static uint64_t batch_bytes(const struct store *store)
{
    uint64_t share = MAX(BATCH_MIN * unit_of(store), store_log_bound(store->log) / BATCH_SHARE);

    return store->options.disk_max != 0 ? share : MIN(share, BATCH_COUNT * unit_of(store));
}

/* ---- victims ---------------------------------------------------------------------------------- */

/* A large record may have got more than it needs (G10): to copy it into another such file gains nothing. Nor does what was
 * copied already leave less beside it when it is copied again, where records are no small part of a page: that would have
 * no end. Unless it was ended early, by a stop. */
static uint64_t room_of(const struct segment_info *segment)
{
    bool is_ended_early = segment->used_bytes + segment->size / 4 < segment->size;

    if (segment->record_bytes > 0 &&
        (segment->kind == SEGMENT_BLOB || (segment->kind == SEGMENT_COLD && !is_ended_early)))
        return segment->record_bytes;
    return MAX(segment->record_bytes, ROOM_OF(segment->size));
}

/* Room gained for what is copied, and the square root of the age: ((1 - u) / u)^2 * age for live share u. */
static double clean_benefit(const struct store *store, const struct segment_info *segment)
{
    double u = MIN((double)segment->live_bytes / (double)room_of(segment), 1.0);
    double age = 1.0 + (double)(store_log_next_sequence(store->log) - segment->sequence);
    double gain = (1.0 - u) / (u + NEARLY_NOTHING);
    double benefit = gain * gain * age;

    return clean_would_go(store, segment) ? benefit : benefit / WAITS_DIVIDER;
}

static bool is_victim(const struct segment_info *segment, uint32_t live_max)
{
    return segment->state == SEGMENT_SEALED && segment->pins == 0 && !segment->is_emptied &&
           segment->live_bytes * 256 <= room_of(segment) * live_max;
}

static uint64_t victim_find(const struct store *store, uint32_t urgency)
{
    uint32_t live_max = urgency * LIVE_MAX / CLEAN_URGENT;
    uint64_t victim = 0;
    double best = 0;

    for (uint32_t i = 0; i < store_log_segment_count(store->log) && urgency > 0; i++) {
        const struct segment_info *segment = store_log_segment(store->log, i);
        double benefit;

        if (!is_victim(segment, live_max))
            continue;
        benefit = clean_benefit(store, segment);
        if (benefit > best) {
            best = benefit;
            victim = segment->sequence;
        }
    }
    return victim;
}

/* ---- the plan --------------------------------------------------------------------------------- */

static bool room_is_wanted(const struct store *store)
{
    return store_log_is_disk_full(store->log) || store->waits_for_cleaner;
}

static uint32_t urgency_of(const struct store *store, const struct clean_plan *plan, uint64_t used, uint64_t used_dead)
{
    uint64_t low = low_mark(store), start = start_mark(store);
    uint64_t left = plan->free + plan->going + plan->emptied;
    bool is_half_dead = store->options.disk_max == 0 && used_dead * 100 > used * DEAD_PERCENT_START &&
                        used_dead >= 2 * unit_of(store);

    /* What has room for copies already counts for who is short: they need no segment of their own. */
    if (plan->dead + (room_is_wanted(store) ? plan->copy_room : 0) < unit_of(store))
        return 0;
    if (room_is_wanted(store)) /* what was emptied may be enough: then it is a checkpoint that they wait for */
        return plan->going + plan->emptied > 0 && left >= start + store->blob_wanted ? 0 : CLEAN_URGENT;
    if (left >= start || store_log_bound(store->log) == 0)
        return is_half_dead ? CLEAN_URGENT / 2 : 0;
    if (left <= low)
        return CLEAN_URGENT;
    return (uint32_t)(1 + (CLEAN_URGENT - 1) * (start - left) / (start - low));
}

static void plan_make(const struct store *store, struct clean_plan *plan)
{
    struct store_log_stats stats;
    uint64_t used = 0, used_dead = 0, total = store_log_bound(store->log);

    store_log_stats_get(store->log, &stats);
    *plan = (struct clean_plan){
        .made_ms = store->now_ms, .next_sequence = store_log_next_sequence(store->log), .is_made = true};
    for (uint32_t i = 0; i < store_log_segment_count(store->log); i++) {
        const struct segment_info *segment = store_log_segment(store->log, i);
        uint64_t room = room_of(segment), dead = room - MIN(segment->live_bytes, room);

        if (segment->is_leaving) {
            plan->leaving += segment->size;
            continue;
        }
        if (clean_goes(store, segment)) {
            plan->going += segment->size;
            continue;
        }
        if (segment->is_emptied || segment->state == SEGMENT_CLEANED) {
            /* What the last checkpoint could not free the next one may not, either: nobody waits for that. */
            if (segment->is_emptied || checkpoint_is_running(store))
                plan->emptied += segment->size;
            else
                plan->kept += segment->size;
            continue;
        }
        if (is_victim(segment, LIVE_MAX))
            plan->dead += dead;
        if (segment->kind == SEGMENT_BLOB && segment->state == SEGMENT_OPEN && segment->live_bytes == 0)
            plan->closing += dead;
        if (segment->kind == SEGMENT_COLD && segment->state == SEGMENT_OPEN && segment->live_bytes == 0 && room_is_wanted(store))
            plan->closing += segment->record_bytes; /* store_log_cold_end_dead() */
        if (segment->kind == SEGMENT_COLD && segment->state == SEGMENT_OPEN)
            plan->copy_room += ROOM_OF(segment->size) - MIN(segment->used_bytes, ROOM_OF(segment->size));
        if (segment->state == SEGMENT_SEALED) {
            used += room;
            used_dead += dead;
        }
    }
    plan->freeing = stats.bytes_freeing + plan->leaving;
    plan->free = stats.segments_free * unit_of(store) + plan->freeing +
                 (total > stats.disk_bytes ? total - stats.disk_bytes : 0);
    plan->is_short = total != 0 && plan->free < low_mark(store);
    plan->urgency = urgency_of(store, plan, used, used_dead);
    plan->victim = victim_find(store, plan->urgency);
}

const struct clean_plan *clean_plan_of(const struct store *store)
{
    struct clean_plan *plan = &store->cleaner->plan;
    uint64_t age_max = room_is_wanted(store) ? 1 : PLAN_AGE_MS;

    if (!plan->is_made || store->now_ms >= plan->made_ms + age_max ||
        plan->next_sequence != store_log_next_sequence(store->log))
        plan_make(store, plan);
    return plan;
}

void clean_plan_forget(struct store *store)
{
    store->cleaner->plan.is_made = false;
}

/* It had no segment for its copies, and there is none yet. */
static bool is_starved(const struct store *store)
{
    return store->cleaner->is_starved && !store_log_has_free(store->log);
}

/* ---- for others ------------------------------------------------------------------------------- */

bool cleaner_will_help(const struct store *store)
{
    const struct cleaner *cleaner = store->cleaner;
    const struct clean_plan *plan = clean_plan_of(store);

    if (store_log_is_stalled(store->log))
        return false; /* no flush will end */
    if (plan->going > 0 || plan->freeing > 0)
        return true;
    if (store->now_ms < store->checkpoint_again_ms)
        return false; /* no checkpoint will come */
    if (plan->emptied > 0 || plan->closing > 0)
        return true;
    return (cleaner->state != CLEANER_IDLE || plan->victim != 0) && !is_starved(store);
}

bool cleaner_is_urgent(const struct store *store)
{
    const struct clean_plan *plan = clean_plan_of(store);

    if (plan->urgency == CLEAN_URGENT)
        return true;
    if (store_log_bound(store->log) == 0 || !checkpoint_is_running(store))
        return false;
    return plan->is_short || (plan->emptied > 0 && plan->free < start_mark(store));
}

bool clean_wants_flush(const struct store *store)
{
    const struct clean_plan *plan = clean_plan_of(store);

    if (plan->going == 0)
        return false;
    return plan->going >= FLUSH_BATCH * unit_of(store) || plan->is_short || room_is_wanted(store) ||
           (store->cleaner->state == CLEANER_IDLE && plan->victim == 0);
}

bool cleaner_wants_checkpoint(const struct store *store)
{
    const struct cleaner *cleaner = store->cleaner;
    const struct clean_plan *plan = clean_plan_of(store);
    uint64_t unit = unit_of(store), total = store_log_bound(store->log);

    bool is_wanted = room_is_wanted(store);

    if (is_wanted && checkpoint_lsn(store) == 0) /* there was none: what one weighs is guessed, and nothing goes without one */
        return true;
    if (plan->kept > 0 && is_wanted && store->now_ms >= cleaner->kept_again_ms)
        return true;
    if (total != 0 && plan->urgency > 0 && checkpoint_log_bytes(store) >= MAX(SINCE_MIN * unit, total / SINCE_SHARE))
        return true;
    if (plan->emptied == 0)
        return false;
    if (plan->emptied >= batch_bytes(store))
        return true;
    /* Nothing more can be emptied, and room is wanted. */
    return (is_starved(store) || (cleaner->state == CLEANER_IDLE && plan->victim == 0)) &&
           (is_wanted || (total != 0 && plan->free < low_mark(store)));
}
