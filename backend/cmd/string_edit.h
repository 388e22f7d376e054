/* SPDX-License-Identifier: Apache-2.0 */
/*
 * string_edit.h - changing a part of a string, short or long (APPEND, SETRANGE, SETBIT, BITFIELD).
 *
 * A short one is copied, changed, and put as a whole; a longer one is changed in place and logs what was written
 * (store_string_in_place()). Time to live and flags stay.
 *
 *     if (string_edit_begin(&edit, c, &key, len)) {
 *         string_edit_write(&edit, off, bytes);    // as often as one likes, below `len`
 *         if (string_edit_end(&edit)) reply...
 *     }
 */
#pragma once
#include "backend/cmd/cmd.h"

struct string_edit {
    struct cmd *c;
    struct store_key *key;
    const char *data; /* to read: as changed so far */
    size_t len;
    struct object *object;  /* NULL: it is in `small` */
    bool is_object_ours;    /* owns `object`, which the store does not know yet */
    bool is_dirty;
    uint8_t form;           /* enum entry_form: what OBJECT ENCODING will say of a short one */
    char small[STRING_INLINE_MAX];
};

/* `key` is of a string that is in memory, or absent: then it is created. It gets at least `len` bytes, zeros behind
 * what it has. False: the error was replied, nothing was changed. */
bool string_edit_begin(struct string_edit *edit, struct cmd *c, struct store_key *key, size_t len);
void string_edit_write(struct string_edit *edit, size_t off, struct bytes bytes);
/* Stores, if anything differs. False: the error was replied. */
bool string_edit_end(struct string_edit *edit);
/* The whole value anew, which the log gets as what differs if that is little. `attributes` are those that it has. */
MUST_USE int string_replace(struct store *store, struct store_key *key, struct bytes value,
                            const struct store_attributes *attributes);
/* `bytes` behind the end; *len: of the whole then. */
bool string_edit_append(struct cmd *c, struct store_key *key, struct bytes bytes, size_t *len);

/* The value, or no bytes. */
static inline struct bytes key_string(const struct store_key *key)
{
    return key->entry == NULL ? BYTES_EMPTY : store_string(key->entry);
}
/* "ERR string exceeds maximum allowed size (proto-max-bulk-len)" unless off + len is allowed. */
bool string_size_fits(struct cmd *c, uint64_t off, size_t len);
