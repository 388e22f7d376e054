/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OBJECT: what Redis would say of such a value.
 */
#include "backend/cmd/handlers.h"
#include "backend/cmd/reply.h"
#include "backend/types/hash.h"
#include "backend/types/list.h"
#include "backend/types/set.h"
#include "backend/types/zset.h"

#define EMBEDDED_MAX       44 /* longer strings are "raw" in Redis */
#define INTEGER_DIGITS_MAX 20
#define SHARED_INTEGERS    10000 /* small numbers that Redis has once for all */
#define SHARED_REFCOUNT    2147483647

static bool object_find(struct cmd *c, struct store_key *key)
{
    if (!key_read(c, c->argv[2], STORE_NONE, key))
        return false;
    if (key->entry != NULL)
        return true;
    reply_null(c);
    return false;
}

static bool string_is_integer(struct bytes value, int64_t *number)
{
    return value.len <= INTEGER_DIGITS_MAX && bytes_to_i64(value, number);
}

static const char *string_encoding(const struct entry *e)
{
    enum entry_form form = entry_is_object(e) ? FORM_SET : entry_form(e);
    int64_t number;

    if (form == FORM_SET && string_is_integer(store_string(e), &number))
        return "int";
    return form == FORM_RAW || store_string(e).len > EMBEDDED_MAX ? "raw" : "embstr";
}

static const char *encoding_of(const struct entry *e)
{
    switch (entry_type(e)) {
    case STORE_STRING:
        return string_encoding(e);
    case STORE_LIST:
        return list_encoding(entry_object(e));
    case STORE_SET:
        return set_encoding(entry_object(e));
    case STORE_ZSET:
        return zset_encoding(entry_object(e));
    case STORE_HASH:
        return hash_encoding(entry_object(e));
    case STORE_NONE:
    case STORE_STREAM:
    case STORE_TYPE_COUNT:
        break;
    }
    return "unknown";
}

void cmd_object_encoding(struct cmd *c)
{
    struct store_key key;

    if (object_find(c, &key))
        reply_bulk_string(c, encoding_of(key.entry));
}

void cmd_object_refcount(struct cmd *c)
{
    struct store_key key;
    int64_t number;

    if (!object_find(c, &key))
        return;
    if (entry_type(key.entry) == STORE_STRING && !entry_is_cold(key.entry) &&
        strcmp(string_encoding(key.entry), "int") == 0 && string_is_integer(store_string(key.entry), &number) && number >= 0 && number < SHARED_INTEGERS)
        reply_integer(c, SHARED_REFCOUNT);
    else
        reply_integer(c, 1);
}

/* Uses are counted, not dated: a value that is in memory counts as used just now. */
void cmd_object_idletime(struct cmd *c)
{
    struct store_key key;

    if (object_find(c, &key))
        reply_integer(c, 0);
}

void cmd_object_freq(struct cmd *c)
{
    struct store_key key;

    if (object_find(c, &key))
        reply_error(c, "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note "
                       "that when switching between policies at runtime LRU and LFU data will take some time to "
                       "adjust.");
}

void cmd_object_help(struct cmd *c)
{
    static const char *const lines[] = {
        "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ENCODING <key>",
        "    Return the kind of internal representation used in order to store the value",
        "    associated with a <key>.",
        "FREQ <key>",
        "    Return the access frequency index of the <key>. The returned integer is",
        "    proportional to the logarithm of the recent access frequency of the key.",
        "IDLETIME <key>",
        "    Return the idle time of the <key>, that is the approximated number of",
        "    seconds elapsed since the last access to the key.",
        "REFCOUNT <key>",
        "    Return the number of references of the value associated with the specified",
        "    <key>.",
        "HELP",
        "    Prints this help.",
    };

    reply_array(c, ARRAY_COUNT(lines));
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
        reply_status(c, lines[i]);
}
