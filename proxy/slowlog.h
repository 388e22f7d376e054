/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slowlog.h - the last requests that took long, in the worker's segment, and the last big values.
 */
#pragma once
#include "proxy/stats_layout.h"

/* Writes over the oldest. */
void slowlog_add(struct stats_slowlog *slowlog, const struct stats_slow *slow);
/* Copies entry number `index` (0: the first ever); false: it is gone, or being written. */
bool slowlog_get(const struct stats_slowlog *slowlog, uint64_t index, struct stats_slow *out);
/* Entries of another log that are newer than `after_us`, oldest first, are added. */
void slowlog_merge(struct stats_slowlog *into, const struct stats_slowlog *from);

/* The same key again raises its count; a new one takes the place of the one that was longest not seen. */
void bigkeys_add(struct stats_bigkeys *bigkeys, const struct stats_big *big);
void bigkeys_merge(struct stats_bigkeys *into, const struct stats_bigkeys *from);
