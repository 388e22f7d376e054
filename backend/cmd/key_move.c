/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/key_move.h"

#include "backend/cmd/reply.h"
#include "common/base/err.h"

void key_find_in(struct cmd *c, uint8_t db, struct bytes name, struct store_key *out)
{
    store_find(c->store, db, name, out);
    session_hold(c->session, out->entry != NULL ? entry_lsn(out->entry) : store_absent_lsn(c->store));
}

const char *key_type_name(const struct entry *entry)
{
    switch (entry == NULL ? STORE_NONE : entry_type(entry)) {
    case STORE_STRING:
        return "string";
    case STORE_LIST:
        return "list";
    case STORE_SET:
        return "set";
    case STORE_ZSET:
        return "zset";
    case STORE_HASH:
        return "hash";
    case STORE_STREAM:
        return "stream";
    case STORE_NONE:
    case STORE_TYPE_COUNT:
        break;
    }
    return "none";
}

/* The source stays; the target's entry is another run of bytes, so the value may be a view of the source's. */
static bool string_copy(struct cmd *c, const struct store_key *source, struct store_key *target)
{
    struct store_attributes attributes = key_attributes(source);

    attributes.form = (uint8_t)entry_form(source->entry);
    return cmd_stored(c, store_put_string(c->store, target, store_string(source->entry), &attributes));
}

static bool object_move(struct cmd *c, struct store_key *source, struct store_key *target)
{
    struct store_attributes attributes = key_attributes(source);

    return cmd_stored(c, store_move_object(c->store, source, target, &attributes));
}

bool key_move(struct cmd *c, struct store_key *source, struct store_key *target)
{
    if (entry_is_object(source->entry))
        return object_move(c, source, target);
    if (!string_copy(c, source, target))
        return false;
    store_find(c->store, c->db, source->name, source); /* putting may have made room by moving it */
    return cmd_stored(c, store_delete(c->store, source));
}

bool key_copy(struct cmd *c, struct store_key *source, struct store_key *target)
{
    struct store_attributes attributes = key_attributes(source);
    const struct object_ops *ops = store_type_ops(c->store, entry_type(source->entry));
    struct buffer image = {0};
    struct object *object = NULL;
    int err = ERR_FULL;

    if (entry_type(source->entry) == STORE_STRING)
        return string_copy(c, source, target);
    ops->encode(entry_object(source->entry), &image);
    if (!image.failed)
        object = ops->decode(buffer_bytes(&image));
    if (object != NULL) {
        err = store_put_copy(c->store, target, object, buffer_bytes(&image), &attributes);
        if (err != 0)
            ops->destroy(object);
    }
    buffer_deinit(&image);
    return cmd_stored(c, err);
}
