/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead.h - the cache lines, and the values on the disk, that the next requests will need, asked for while there is other
 * work.
 *
 * A look-up waits twice for memory: for the index's bucket and for the entry. In a batch of requests these waits
 * overlap when all keys are looked for first. This is a hint and nothing else: it guesses where keys are, never
 * changes anything, and stops at the first byte that it does not expect.
 */
#pragma once
#include "backend/cmd/session.h"

#define AHEAD_MAX 16u /* requests at once: the lines must still be there when their turn comes */

/* The first RESP request of `data`, for store_prefetch_entry(); 0: none. */
uint64_t ahead_resp_first(struct store *store, uint8_t db, struct bytes data);
/* RESP requests at the start of `data`: returns how many bytes were looked at, 0 if there is no batch. */
size_t ahead_resp(struct store *store, uint8_t db, struct bytes data);
/* The first request of `data` waits for cold values: those that the next few will read are fetched meanwhile. */
void ahead_fetch(struct session *session, struct bytes data);
