/* SPDX-License-Identifier: Apache-2.0 */
/*
 * histogram.h - how long things took: microseconds up to four minutes, in a fixed number of cells.
 *
 * Log-linear: 16 steps to each power of two, so a value is known to 1/16 of itself (values below 32
 * exactly). Adding costs a few instructions and touches one bucket and the sum; merging is adding the
 * cells. What is longer than the range counts in the last bucket; its true size is in `max` and `sum`.
 *
 * All cells are plain 64-bit words with one writer; another process may read them while they change
 * (count and sum may then differ by what came in between).
 */
#pragma once
#include "common/base/base.h"

#define HISTOGRAM_STEP_BITS  4
#define HISTOGRAM_VALUE_BITS 28
#define HISTOGRAM_BUCKETS    ((HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_VALUE_MAX  ((1u << HISTOGRAM_VALUE_BITS) - 1)

struct histogram {
    uint64_t sum;
    uint64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};
#define HISTOGRAM_CELLS (sizeof(struct histogram) / sizeof(uint64_t))

static inline uint32_t histogram_index(uint64_t value)
{
    uint32_t bounded = (uint32_t)MIN(value, (uint64_t)HISTOGRAM_VALUE_MAX);
    uint32_t shift = 31u - HISTOGRAM_STEP_BITS - (uint32_t)__builtin_clz(bounded | 1u << HISTOGRAM_STEP_BITS);

    return (shift << HISTOGRAM_STEP_BITS) + (bounded >> shift);
}

/* `index` is the value's: who adds to several histograms finds it once. */
static inline void histogram_add_at(struct histogram *histogram, uint32_t index, uint64_t value)
{
    histogram->buckets[index]++;
    histogram->sum += value;
    if (UNLIKELY(value > histogram->max))
        histogram->max = value;
}

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram_add_at(histogram, histogram_index(value), value);
}

/* The least and the greatest value that count in a bucket. */
uint64_t histogram_bucket_low(uint32_t index);
uint64_t histogram_bucket_high(uint32_t index);

/* `from` may be written to meanwhile. */
void histogram_merge(struct histogram *into, const struct histogram *from);
uint64_t histogram_count(const struct histogram *histogram);
/* How many were <= value, to the accuracy of the buckets. */
uint64_t histogram_count_to(const struct histogram *histogram, uint64_t value);

/* The value that `per_10000` / 10,000 of all are not above (5000: the median; 10,000: the max).
 * 0 when there is none. Rounded up to the end of its bucket, but never above the max. */
uint64_t histogram_quantile(const struct histogram *histogram, uint32_t per_10000);
