/* SPDX-License-Identifier: Apache-2.0 */
#include "common/stats/histogram.h"

uint64_t histogram_bucket_low(uint32_t index)
{
    uint32_t shift;

    ASSERT(index < HISTOGRAM_BUCKETS);
    if (index < 2u << HISTOGRAM_STEP_BITS)
        return index;
    shift = (index >> HISTOGRAM_STEP_BITS) - 1;
    return (uint64_t)(index - (shift << HISTOGRAM_STEP_BITS)) << shift;
}

uint64_t histogram_bucket_high(uint32_t index)
{
    return index + 1 < HISTOGRAM_BUCKETS ? histogram_bucket_low(index + 1) - 1 : HISTOGRAM_VALUE_MAX;
}

static uint64_t load(const uint64_t *cell)
{
    return __atomic_load_n(cell, __ATOMIC_RELAXED);
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    uint64_t max = load(&from->max);

    into->sum += load(&from->sum);
    into->max = MAX(into->max, max);
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += load(&from->buckets[i]);
}

uint64_t histogram_count(const struct histogram *histogram)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += load(&histogram->buckets[i]);
    return count;
}

uint64_t histogram_count_to(const struct histogram *histogram, uint64_t value)
{
    uint32_t last = histogram_index(value);
    uint64_t count = 0;

    for (uint32_t i = 0; i <= last; i++)
        count += load(&histogram->buckets[i]);
    return count;
}

uint64_t histogram_quantile(const struct histogram *histogram, uint32_t per_10000)
{
    uint64_t total = histogram_count(histogram);
    uint64_t max = load(&histogram->max);
    uint64_t rank, seen = 0;

    ASSERT(per_10000 <= 10000);
    if (total == 0)
        return 0;
    if (per_10000 == 10000)
        return max;
    /* Rounded up, without overflow: how many values the answer must cover. */
    rank = total / 10000 * per_10000 + (total % 10000 * per_10000 + 9999) / 10000;
    rank = MAX(rank, (uint64_t)1);
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += load(&histogram->buckets[i]);
        if (seen >= rank)
            return MIN(histogram_bucket_high(i), max);
    }
    return max;
}
