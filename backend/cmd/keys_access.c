/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How commands come to keys, and what their replies then depend on (N2 of session.h).
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/notify.h"

static bool key_type_fits(struct cmd *c, enum store_type type, const struct entry *entry)
{
    if (type == STORE_NONE || entry_type(entry) == type)
        return true;
    reply_error(c, ERROR_WRONGTYPE);
    return false;
}

bool key_read(struct cmd *c, struct bytes name, enum store_type type, struct store_key *out)
{
    store_find(c->store, c->db, name, out);
    if (out->entry == NULL) {
        c->engine->counters.keyspace_misses++;
        notify(c, NOTIFY_KEY_MISS, "keymiss", name);
        session_hold(c->session, store_absent_lsn(c->store));
        return true;
    }
    session_hold(c->session, entry_lsn(out->entry));
    if (UNLIKELY(!key_type_fits(c, type, out->entry)))
        return false;
    if (!c->keys_only) {
        if (UNLIKELY(entry_is_cold(out->entry))) {
            cmd_need(c, out);
            return false;
        }
        if (LIKELY(!c->session->no_touch))
            store_touch(out->entry);
    }
    c->engine->counters.keyspace_hits++;
    return true;
}

bool key_write(struct cmd *c, struct bytes name, enum store_type type, struct store_key *out)
{
    store_find(c->store, c->db, name, out);
    if (out->entry == NULL) {
        session_hold(c->session, store_absent_lsn(c->store));
        return true;
    }
    session_hold(c->session, entry_lsn(out->entry));
    if (UNLIKELY(!key_type_fits(c, type, out->entry)))
        return false;
    if (!c->keys_only) {
        if (UNLIKELY(entry_is_cold(out->entry))) {
            cmd_need(c, out);
            return false;
        }
        store_touch(out->entry);
    }
    return true;
}

void cmd_need(struct cmd *c, const struct store_key *key)
{
    ASSERT(key->entry != NULL && entry_is_cold(key->entry));
    if (c->abort_error == NULL && !c->is_parked)
        c->is_parked = fetch_start(c, key);
}

bool cmd_stored(struct cmd *c, int err)
{
    if (LIKELY(err == 0)) {
        session_hold(c->session, store_lsn(c->store));
        return true;
    }
    if (err == ERR_FULL)
        cmd_out_of_memory(c);
    else if (err == -ENOSPC)
        reply_error(c, ERROR_DISK_FULL);
    else if (err == -EROFS)
        reply_error(c, ERROR_DISK_FAILED);
    else
        reply_error_format(c, "ERR cannot store: %s", err_text(err));
    return false;
}

void cmd_out_of_memory(struct cmd *c)
{
    reply_error(c, ERROR_MEMORY);
}

struct store_attributes key_attributes(const struct store_key *key)
{
    struct store_attributes attributes = {0};

    if (key->entry != NULL) {
        attributes.expire_ms = entry_expire_ms(key->entry);
        attributes.mc_flags = entry_mc_flags(key->entry);
    }
    return attributes;
}

bool key_expire_at(struct cmd *c, struct store_key *key, int64_t at_ms)
{
    ASSERT(key->entry != NULL);
    if (at_ms <= (int64_t)c->now_ms)
        return cmd_stored(c, store_delete(c->store, key));
    return cmd_stored(c, store_set_expire(c->store, key, (uint64_t)at_ms));
}
