/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move.h - what a session is in the middle of, as RESP commands that bring another one to the same place.
 *
 * The commands are run there with their replies thrown away: first move_pack(), then what the flags say.
 */
#pragma once
#include "backend/cmd/session.h"
#include "common/base/buffer.h"

enum move_flag { MOVE_SPOILED = 1, MOVE_DIRTY = 2 };

void move_put(struct buffer *out, const struct bytes *argv, uint32_t argc);
/* WATCH, subscriptions, MULTI with its queue. The database of what is watched is selected in between. */
void move_pack(const struct session *session, struct buffer *out);
/* enum move_flag: a refused command in the queue, a watched key that was touched. */
uint8_t move_flags(const struct session *session);
/* How many watched keys were there when WATCH saw them. */
uint32_t move_watched_existing(const struct session *session);
/* False: no memory. A key that has gone in between counts as touched. */
MUST_USE bool move_flags_set(struct session *session, uint8_t flags, uint32_t watched_existing);

void transaction_pack_watches(const struct session *session, struct buffer *out); /* transaction.c */
void transaction_pack_queue(const struct session *session, struct buffer *out);
void pubsub_pack(const struct session *session, struct buffer *out); /* pubsub.c; without MONITOR */
