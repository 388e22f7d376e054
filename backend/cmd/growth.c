/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands of a few bytes that make a string long: SETBIT k 4294967295 1. What others bring has come with them, and is counted.
 */
#include "backend/cmd/cmd_private.h"

static bool is_offset(struct bytes text, int64_t width, int64_t *out)
{
    bool is_index = width > 0 && text.len > 0 && text.data[0] == '#';

    return bytes_to_i64(is_index ? bytes_skip(text, 1) : text, out) && *out >= 0 &&
           !(is_index && __builtin_mul_overflow(*out, width, out));
}

static uint64_t bitfield_end(struct cmd *c)
{
    uint64_t bits = 0;

    for (uint32_t i = 2; i + 2 < c->argc;) {
        bool is_write = arg_is(c, i, "set") || arg_is(c, i, "incrby");
        int64_t width, at;

        if (is_write && bytes_to_i64(bytes_skip(c->argv[i + 1], MIN(c->argv[i + 1].len, (size_t)1)), &width) &&
            width >= 1 && width <= 64 && is_offset(c->argv[i + 2], width, &at))
            bits = MAX(bits, (uint64_t)at + (uint64_t)width);
        i += is_write ? 4 : arg_is(c, i, "overflow") ? 2 : 3;
    }
    return (bits + 7) / 8;
}

/* How long the string must be for it; 0: it makes none longer, or makes no sense. */
static uint64_t end_wanted(struct cmd *c)
{
    int64_t at;

    switch (c->info->id) {
    case COMMAND_setbit: return is_offset(c->argv[2], 0, &at) ? (uint64_t)at / 8 + 1 : 0;
    case COMMAND_setrange: return c->argv[3].len > 0 && is_offset(c->argv[2], 0, &at) ? (uint64_t)at + c->argv[3].len : 0;
    case COMMAND_bitfield: return bitfield_end(c);
    default: return 0;
    }
}

uint64_t command_growth(struct cmd *c)
{
    uint64_t end = end_wanted(c);
    struct store_key key;

    if (LIKELY(end <= GROWTH_ASKED) || end > STORE_VALUE_MAX)
        return 0;
    store_find(c->store, c->db, c->argv[1], &key);
    if (key.entry == NULL)
        return end;
    /* A cold one is fetched first, then the command comes here again. */
    if (entry_type(key.entry) != STORE_STRING || entry_is_cold(key.entry))
        return 0;
    return end - MIN(end, (uint64_t)store_string(key.entry).len);
}
