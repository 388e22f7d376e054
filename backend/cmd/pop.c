/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/pop.h"
#include "backend/cmd/reply.h"

bool pop_parse(struct cmd *c, uint32_t at, const char *const words[2], struct pop *out)
{
    int64_t keys, count = -1;
    uint32_t i;

    if (!arg_i64_range(c, at, 1, INT64_MAX, &keys, "ERR numkeys should be greater than 0"))
        return false;
    if (keys >= (int64_t)c->argc - at - 1)
        goto syntax;
    out->first = at + 1;
    out->keys = (uint32_t)keys;
    i = out->first + out->keys;
    if (!arg_is(c, i, words[0]) && !arg_is(c, i, words[1]))
        goto syntax;
    out->word = arg_is(c, i, words[1]);
    for (i++; i < c->argc; i += 2) {
        if (count != -1 || !arg_is(c, i, "COUNT") || i + 1 >= c->argc)
            goto syntax;
        if (!arg_i64_range(c, i + 1, 1, INT64_MAX, &count, "ERR count should be greater than 0"))
            return false;
    }
    out->count = count == -1 ? 1 : (uint64_t)count;
    return true;
syntax:
    reply_error(c, ERROR_SYNTAX);
    return false;
}

bool pop_find(struct cmd *c, uint32_t first, uint32_t keys, enum store_type type,
              struct store_key *out)
{
    enum store_type wanted = c->session->blocked != NULL ? STORE_NONE : type;

    for (uint32_t i = 0; i < keys; i++) {
        if (!key_write(c, c->argv[first + i], wanted, out))
            return false;
        if (out->entry != NULL && entry_type(out->entry) == type)
            return true;
    }
    out->entry = NULL;
    return true;
}

void pop_change(struct cmd *c, struct store_key *key, enum notify_flag class, const char *event)
{
    if (store_change(c->store, key) != 0) {
        c->session->close_after_reply = true;
        return;
    }
    session_hold(c->session, store_lsn(c->store));
    notify_change(c, class, event, key);
}
