/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pop.h - what commands that take elements from lists and sorted sets share.
 */
#pragma once
#include "backend/cmd/cmd.h"
#include "backend/cmd/notify.h"

/* LMPOP, ZMPOP: numkeys, keys, one of two words, COUNT. */
struct pop {
    uint32_t first, keys; /* arguments */
    uint32_t word;        /* 0 or 1: which of the two */
    uint64_t count;
};
/* `at`: the argument with numkeys. False: an error was replied. */
bool pop_parse(struct cmd *c, uint32_t at, const char *const words[2], struct pop *out);

/* Finds the first of these keys that is there. False: an error was replied, or the command is parked.
 * A client that has begun to wait does not mind that a key has become something else meanwhile. */
bool pop_find(struct cmd *c, uint32_t first, uint32_t keys, enum store_type type,
              struct store_key *out);

/* store_change() where the reply is out already, as its elements were views into the object: if the log cannot take
 * the change the client must not believe it, and is closed. */
void pop_change(struct cmd *c, struct store_key *key, enum notify_flag class, const char *event);
