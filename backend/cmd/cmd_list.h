/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_list.h - what the list commands share.
 */
#pragma once
#include "backend/cmd/cmd.h"
#include "backend/types/list.h"

/* Of a key that was looked up as a list; NULL: it is not there. */
const struct deque *list_of(const struct store_key *key);
/* Redis's ranges: negative from the end, cut to what is there. False: empty. */
bool list_range(int64_t start, int64_t stop, uint64_t count, uint64_t *first, uint64_t *length);
