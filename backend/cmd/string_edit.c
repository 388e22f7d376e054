/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/string_edit.h"

#include "backend/cmd/settings.h"
#include "backend/cmd/reply.h"
#include "backend/types/string.h"
#include "common/base/err.h"

/* Equal bytes between two differences that are logged rather than a second place and length. */
#define DIFFERENCE_GAP  16u
#define DIFFERENCE_STEP 256u

bool string_size_fits(struct cmd *c, uint64_t off, size_t len)
{
    uint64_t max = MIN(c->engine->settings->bulk_max, (uint64_t)STORE_VALUE_MAX);

    if (off <= max && len <= max - off)
        return true;
    reply_error(c, "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    return false;
}

static void edit_view(struct string_edit *edit)
{
    struct bytes bytes = string_object_bytes(edit->object);

    edit->data = bytes.data;
    edit->len = bytes.len;
}

/* The store's own object, which may be new, grows to `len`. */
static bool edit_open(struct string_edit *edit, size_t len)
{
    struct store *store = edit->c->store;
    bool is_new = edit->key->entry == NULL;
    int err;

    edit->object = store_object_open(store, edit->key, STORE_STRING, true);
    if (edit->object == NULL) {
        cmd_out_of_memory(edit->c);
        return false;
    }
    if (string_room(edit->object, len) != 0) {
        if (is_new)
            MAYBE(store_delete(store, edit->key) != 0);
        cmd_out_of_memory(edit->c);
        return false;
    }
    if (string_object_bytes(edit->object).len < len) {
        err = string_write(edit->object, len - 1, BYTES("\0"));
        ASSERT(err == 0); /* there is room */
        string_effect_write(store_effects(store), len - 1, BYTES("\0"));
    }
    edit_view(edit);
    return true;
}

/* A short string that becomes a long one. */
static bool edit_outgrow(struct string_edit *edit, struct bytes old, size_t len)
{
    edit->object = string_object_of(old);
    if (edit->object != NULL && string_write(edit->object, len - 1, BYTES("\0")) != 0)
        string_ops.destroy(edit->object), edit->object = NULL;
    if (edit->object == NULL) {
        cmd_out_of_memory(edit->c);
        return false;
    }
    edit->is_object_ours = true;
    edit_view(edit);
    return true;
}

bool string_edit_begin(struct string_edit *edit, struct cmd *c, struct store_key *key, size_t len)
{
    struct bytes old = key_string(key);

    ASSERT(len <= STORE_VALUE_MAX);
    len = MAX(len, old.len);
    edit->c = c;
    edit->key = key;
    edit->object = NULL;
    edit->is_object_ours = false;
    edit->form = FORM_RAW;
    edit->is_dirty = key->entry == NULL || len > old.len;
    if (key->entry != NULL && store_string_in_place(c->store, key))
        return edit_open(edit, len);
    if (len > STRING_INLINE_MAX)
        return key->entry == NULL ? edit_open(edit, len) : edit_outgrow(edit, old, len);
    if (old.len > 0)
        memcpy(edit->small, old.data, old.len);
    memset(edit->small + old.len, 0, len - old.len);
    edit->data = edit->small;
    edit->len = len;
    return true;
}

void string_edit_write(struct string_edit *edit, size_t off, struct bytes bytes)
{
    int err = 0;

    ASSERT(off <= edit->len && bytes.len <= edit->len - off);
    edit->is_dirty = true;
    if (edit->object == NULL) {
        memcpy(edit->small + off, bytes.data, bytes.len);
        return;
    }
    err = string_write(edit->object, off, bytes);
    ASSERT(err == 0); /* there is room */
    if (!edit->is_object_ours)
        string_effect_write(store_effects(edit->c->store), off, bytes);
}

bool string_edit_end(struct string_edit *edit)
{
    struct store_attributes attributes = key_attributes(edit->key);
    struct store *store = edit->c->store;
    int err;

    if (edit->object == NULL && !edit->is_dirty) {
        entry_form_set(edit->key->entry, (enum entry_form)edit->form);
        return true;
    }
    attributes.form = edit->form;
    if (edit->object == NULL)
        return cmd_stored(edit->c, store_put_string(store, edit->key, bytes_of(edit->small, edit->len), &attributes));
    if (!edit->is_object_ours)
        return cmd_stored(edit->c, store_change(store, edit->key));
    err = store_put_object(store, edit->key, edit->object, &attributes);
    if (err != 0)
        string_ops.destroy(edit->object);
    return cmd_stored(edit->c, err);
}

/* The bytes from `at` on that differ, with what is equal in between if it is little; none: at the end. */
static struct bytes difference_find(struct bytes old, struct bytes value, size_t at)
{
    size_t end;

    while (value.len - at >= DIFFERENCE_STEP && memcmp(old.data + at, value.data + at, DIFFERENCE_STEP) == 0)
        at += DIFFERENCE_STEP;
    while (at < value.len && old.data[at] == value.data[at])
        at++;
    end = at;
    for (size_t i = at; i < value.len && i - end < DIFFERENCE_GAP; i++)
        if (old.data[i] != value.data[i])
            end = i + 1;
    return bytes_of(value.data + at, end - at);
}

/* Whether what differs is worth being logged in place of all. */
static bool differs_little(struct bytes old, struct bytes value)
{
    size_t bytes = 0, at = 0;
    struct bytes part;

    while (bytes <= value.len / 4) {
        part = difference_find(old, value, at);
        if (part.len == 0)
            return true;
        bytes += part.len + DIFFERENCE_GAP;
        at = (size_t)(part.data - value.data) + part.len;
    }
    return false;
}

int string_replace(struct store *store, struct store_key *key, struct bytes value,
                   const struct store_attributes *attributes)
{
    struct object *object;
    struct bytes old = key_string(key), part;
    size_t at = 0;

    if (key->entry == NULL || old.len != value.len || !differs_little(old, value) || !store_string_in_place(store, key))
        return store_put_string(store, key, value, attributes);
    object = store_object_open(store, key, STORE_STRING, false);
    if (string_room(object, value.len) != 0)
        return ERR_FULL;
    while ((part = difference_find(string_object_bytes(object), value, at)).len > 0) {
        int err;

        at = (size_t)(part.data - value.data);
        err = string_write(object, at, part);
        ASSERT(err == 0); /* there is room */
        string_effect_write(store_effects(store), at, part);
        at += part.len;
    }
    if (at == 0) /* nothing differs; a change all the same: watchers are told */
        string_effect_write(store_effects(store), 0, bytes_first(value, 1));
    return store_change(store, key);
}

bool string_edit_append(struct cmd *c, struct store_key *key, struct bytes bytes, size_t *len)
{
    struct string_edit edit;
    struct object *object;
    size_t old_len = key_string(key).len;

    *len = old_len + bytes.len;
    if (key->entry == NULL || !store_string_in_place(c->store, key)) {
        if (!string_edit_begin(&edit, c, key, *len))
            return false;
        if (key->entry == NULL)
            edit.form = FORM_SET;
        string_edit_write(&edit, old_len, bytes);
        return string_edit_end(&edit);
    }
    object = store_object_open(c->store, key, STORE_STRING, false);
    if (string_append(object, bytes) != 0) {
        cmd_out_of_memory(c);
        return false;
    }
    string_effect_append(store_effects(c->store), bytes);
    return cmd_stored(c, store_change(c->store, key));
}
