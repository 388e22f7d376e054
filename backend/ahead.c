/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/ahead.h"

#define LENGTH_DIGITS_MAX 7
#define FETCH_REQUESTS    32u
#define FETCH_BYTES       (256u << 10)

/* A number of few digits behind `type`, and CRLF. False: something else, or not all there. */
static inline bool skip_header(const char **at, const char *end, char type, uint32_t *out)
{
    const char *p = *at;
    uint32_t value = 0;

    if (end - p < LENGTH_DIGITS_MAX + 3 || *p != type)
        return false;
    p++;
    for (int i = 0; i < LENGTH_DIGITS_MAX && *p >= '0' && *p <= '9'; i++)
        value = value * 10 + (uint32_t)(*p++ - '0');
    if (*p != '\r')
        return false;
    *at = p + 2;
    *out = value;
    return true;
}

static inline bool skip_argument(const char **at, const char *end, struct bytes *out)
{
    uint32_t len;

    if (!skip_header(at, end, '$', &len) || (size_t)(end - *at) < (size_t)len + 2)
        return false;
    *out = bytes_of(*at, len);
    *at += len + 2;
    return true;
}

/* The next request's second argument is taken for its key. */
static inline bool skip_request(const char **at, const char *end, struct bytes *name, struct bytes *key)
{
    struct bytes other;
    uint32_t count;

    *name = *key = BYTES_EMPTY;
    if (!skip_header(at, end, '*', &count))
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!skip_argument(at, end, i == 0 ? name : i == 1 ? key : &other))
            return false;
    return true;
}

size_t ahead_resp(struct store *store, uint8_t db, struct bytes data)
{
    const char *at = data.data, *end = data.data + data.len;
    uint64_t hashes[AHEAD_MAX];
    uint32_t count = 0;
    struct bytes name, key;

    while (count < AHEAD_MAX && skip_request(&at, end, &name, &key))
        hashes[count++] = store_prefetch(store, db, key);
    if (count < 2)
        return 0;
    for (uint32_t i = 0; i < count; i++)
        store_prefetch_entry(store, hashes[i]);
    for (uint32_t i = 0; i < count; i++)
        store_prefetch_chain(store, hashes[i]);
    return (size_t)(at - data.data);
}

uint64_t ahead_resp_first(struct store *store, uint8_t db, struct bytes data)
{
    const char *at = data.data, *end = data.data + data.len;
    struct bytes name, key;
    uint32_t count;

    if (!skip_header(&at, end, '*', &count) || count < 2 || !skip_argument(&at, end, &name) ||
        !skip_argument(&at, end, &key) || key.len == 0)
        return 0;
    return store_prefetch(store, db, key);
}

void ahead_fetch(struct session *session, struct bytes data)
{
    const char *at = data.data, *end = data.data + data.len;
    size_t bytes = 0;

    for (uint32_t i = 0; i <= FETCH_REQUESTS && bytes < FETCH_BYTES; i++) {
        struct bytes name, key;

        if (!skip_request(&at, end, &name, &key))
            return;
        if (i > 0 && key.len > 0 && !session_fetch_ahead(session, name, key, &bytes))
            return;
    }
}
