/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bytes.h - a view of bytes that somebody else owns.
 *
 * A view is a pointer and a length, never terminated by a NUL. Who hands one out says what ends it.
 */
#pragma once
#include "common/base/base.h"

struct bytes {
    const char *data; /* borrows */
    size_t len;
};

#define BYTES(literal)                                                                             \
    ((struct bytes){.data = (literal), .len = sizeof(literal) - 1})
#define BYTES_EMPTY ((struct bytes){.data = "", .len = 0})
/* For "%.*s". */
#define BYTES_ARG(b) (int)(b).len, (b).data

static inline struct bytes bytes_of(const void *data, size_t len)
{
    return (struct bytes){.data = data, .len = len};
}

static inline struct bytes bytes_of_string(const char *string)
{
    return (struct bytes){.data = string, .len = strlen(string)};
}

static inline struct bytes bytes_first(struct bytes b, size_t count)
{
    return (struct bytes){.data = b.data, .len = MIN(b.len, count)};
}

static inline struct bytes bytes_skip(struct bytes b, size_t count)
{
    size_t skip = MIN(b.len, count);

    /* Through an integer: an empty view may have no address, and NULL + 0 is undefined in C. */
    return (struct bytes){.data = (const char *)((uintptr_t)b.data + skip), .len = b.len - skip};
}

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* memcpy() for the few dozen bytes of a key, without a call. */
static inline void bytes_copy_short(char *to, const char *from, size_t len)
{
    char head[16], tail[16];

    if (LIKELY(len >= 16 && len <= 32)) {
        memcpy(head, from, 16);
        memcpy(tail, from + len - 16, 16);
        memcpy(to, head, 16);
        memcpy(to + len - 16, tail, 16);
    } else if (len > 0) {
        memcpy(to, from, len);
    }
}

/* ASCII only; no locale. */
bool bytes_equal_nocase(struct bytes a, struct bytes b);

/* Plain decimals: no sign, no leading zero (but "0" itself), no blank, at most `max`. */
MUST_USE bool bytes_to_u64(struct bytes b, uint64_t max, uint64_t *out);
/* As bytes_to_u64 with an optional '-'. */
MUST_USE bool bytes_to_i64(struct bytes b, int64_t *out);

/* Writes the decimal digits of `value` (no NUL) to `out`, which has room for 20; returns how many. */
size_t u64_to_digits(uint64_t value, char *out);
size_t i64_to_digits(int64_t value, char *out); /* room for 21 */
