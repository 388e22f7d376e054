/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay.h - records of the log become keys again.
 */
#pragma once
#include "backend/store/record.h"

struct store;

/* `epoch` and `lsn` are the checkpoint's; 0: there is none. ERR_FULL. */
MUST_USE int replay_begin(struct store *store, uint32_t epoch, uint64_t lsn);
/* One record that was found at `address`. ERR_CORRUPT: it makes no sense; ERR_FULL: no memory. */
MUST_USE int replay_record(struct store *store, const struct record *record, uint64_t address, bool is_cold);
/* After the last one; store->epoch is this life's then. ERR_CORRUPT: a key lacks the beginning of its chain. */
MUST_USE int replay_finish(struct store *store);
/* A delta that is the store's own (expiry, flags), not the type's. */
bool delta_is_attribute(const struct record *record);
void replay_destroy(struct store *store);
