/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleaner.h - dead space comes back.
 */
#pragma once
#include "backend/store/store.h"

struct cleaner;

MUST_USE int cleaner_create(struct store *store);
void cleaner_destroy(struct store *store);
/* There is dead space, and a way to it: whoever needs room can wait for it. */
bool cleaner_will_help(const struct store *store);
/* Room is short: work is to go on without pauses. */
bool cleaner_is_urgent(const struct store *store);
/* What the cleaner found out before is out of date. */
void clean_plan_forget(struct store *store);
/* A step. True: more is to do now. */
bool cleaner_work(struct store *store);
/* A checkpoint begins: what was emptied before it will be free when it is durable. */
void cleaner_checkpoint_begins(struct store *store);
/* ... and has ended, well or not. */
void cleaner_checkpoint_ended(struct store *store, bool is_good);
/* Gives back what was emptied and need not wait for a checkpoint. */
void cleaner_give_work(struct store *store);
/* Segments wait for a checkpoint, and space is short. */
bool cleaner_wants_checkpoint(const struct store *store);
/* Walks sealed segments for damage, slowly. */
void cleaner_scrub_work(struct store *store);
