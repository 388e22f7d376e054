/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/expiry.h"

/* Part of the keys met that are over: above the first it pays to go faster, below the second to go slower. */
#define FASTER_ABOVE 0.10
#define SLOWER_BELOW 0.025
/* When so many were met, they count half from then on. */
#define SAMPLE_MAX 2048.0

void expiry_init(struct expiry *expiry)
{
    *expiry = (struct expiry){.pace = EXPIRY_PACE_MIN};
}

/* One call of expiry_work(). */
struct expiring {
    uint64_t now_ms;
    index_each_fn each;
    void *arg;
    uint32_t looked, met, over;
};

static void hand_each(void *arg, struct entry *entry)
{
    struct expiring *work = arg;
    uint64_t expire_ms;

    work->looked++;
    expire_ms = entry_expire_ms(entry);
    if (expire_ms == 0)
        return;
    work->met++;
    if (expire_ms > work->now_ms)
        return;
    work->over++;
    work->each(work->arg, entry);
}

/* Keys of this call that were over are gone now: they tell of the buckets ahead, not of those behind. */
static void sample_add(struct expiry *expiry, const struct expiring *work)
{
    expiry->met += work->met;
    expiry->over += work->over;
    if (expiry->met > SAMPLE_MAX) {
        expiry->met /= 2;
        expiry->over /= 2;
    }
}

static void pace_set(struct expiry *expiry, const struct expiring *work, uint32_t budget)
{
    uint32_t pace = expiry->pace;

    if (work->over > FASTER_ABOVE * work->met)
        pace *= 2;
    else if (work->over < SLOWER_BELOW * work->met || work->met == 0)
        pace -= pace / 4;
    expiry->pace = MAX(MIN(pace, budget), EXPIRY_PACE_MIN);
}

uint32_t expiry_work(struct expiry *expiry, struct index *index, uint64_t now_ms,
                     uint64_t expiring_count, uint32_t budget, index_each_fn each, void *arg)
{
    struct expiring work = {.now_ms = now_ms, .each = each, .arg = arg};
    uint32_t looked_max = MIN(expiry->pace, budget);
    uint64_t begun = expiry->hand;

    if (expiring_count == 0) {
        expiry_init(expiry);
        return 0;
    }
    while (work.looked < looked_max) {
        expiry->hand = index_sweep(index, expiry->hand, hand_each, &work);
        work.looked++; /* empty buckets cost too */
        if (expiry->hand == begun)
            break; /* a small index: once round is enough */
    }
    sample_add(expiry, &work);
    pace_set(expiry, &work, budget);
    return work.over;
}

uint64_t expiry_estimate(const struct expiry *expiry, uint64_t expiring_count)
{
    if (expiry->met < 1)
        return 0;
    return (uint64_t)(expiry->over / expiry->met * (double)expiring_count);
}
