/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hotkeys.h - which keys are asked for most: space-saving over a sample.
 *
 * A table of a few counters. A sampled key that has one raises it; a new one takes over the smallest
 * counter and its count, which becomes its possible error. A key with more than 1/entries of all
 * samples is always in the table (Metwally, Agrawal, El Abbadi: Efficient computation of frequent and top-k
 * elements in data streams, 2005). Counts are halved once a minute: what is hot now is on top.
 */
#pragma once
#include "proxy/stats_layout.h"

uint64_t hotkeys_hash(const char *pool, struct bytes key); /* never 0 */
void hotkeys_add(struct stats_hotkeys *hotkeys, const char *pool, struct bytes key);
void hotkeys_fade(struct stats_hotkeys *hotkeys, uint64_t now_s);

/* A copy of the table in private memory, to be freed with mem_free(); NULL: none, or always busy. */
MUST_USE struct stats_hotkeys *hotkeys_copy(const struct stats_hotkeys *hotkeys);
