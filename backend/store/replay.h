/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay.h - records of the log become keys again.
 */
#pragma once
#include "backend/store/record.h"

struct store;

/* One record that was found at `address`. `page_lsn`: what the checkpoint says of the key's page is true at that LSN
 * (0: there is no checkpoint). ERR_CORRUPT: the record makes no sense; ERR_FULL: no memory. */
MUST_USE int replay_record(struct store *store, const struct record *record, uint64_t address,
                           uint64_t page_lsn);
/* After the last one. ERR_CORRUPT: a key lacks the beginning of its chain. */
MUST_USE int replay_finish(struct store *store);
/* A delta that is the store's own (expiry, flags), not the type's. */
bool delta_is_attribute(const struct record *record);
