/* SPDX-License-Identifier: Apache-2.0 */
/*
 * notify.h - what a handler calls after a change, for notify-keyspace-events: one comparison when it is off.
 */
#pragma once
#include "backend/cmd/cmd.h"
#include "backend/cmd/pubsub.h"

static inline void notify_in_db(struct cmd *c, uint8_t db, enum notify_flag class, const char *event,
                                struct bytes key)
{
    if (UNLIKELY(c->engine->settings->notify != 0))
        pubsub_notify(c->engine, class, event, key, db);
}

static inline void notify(struct cmd *c, enum notify_flag class, const char *event, struct bytes key)
{
    notify_in_db(c, c->db, class, event, key);
}

/* After store_change(): what was changed may be empty now, and gone. */
static inline void notify_change(struct cmd *c, enum notify_flag class, const char *event, const struct store_key *key)
{
    notify(c, class, event, key->name);
    if (key->entry == NULL)
        notify(c, NOTIFY_GENERIC, "del", key->name);
}
