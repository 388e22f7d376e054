/* SPDX-License-Identifier: Apache-2.0 */
/*
 * key_move.h - a value to another key, whatever its type, with its time to live and flags.
 */
#pragma once
#include "backend/cmd/cmd.h"

/* A key of any database. Notes what the reply depends on. Its value may be cold. */
void key_find_in(struct cmd *c, uint8_t db, struct bytes name, struct store_key *out);
/* "string", "list" ...; "none" for NULL. */
const char *key_type_name(const struct entry *entry);

/* Both: the source's value is in memory, the target may have one that goes away; they are not the same.
 * False: the error was replied. */
bool key_move(struct cmd *c, struct store_key *source, struct store_key *target);
bool key_copy(struct cmd *c, struct store_key *source, struct store_key *target);
