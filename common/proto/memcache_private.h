/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcache_private.h - what the files of the memcache codec share.
 */
#pragma once
#include "common/proto/memcache.h"

/* Enough for meta's 19 and for every classic command but get. */
#define MC_TOKENS_MAX 24

/* The arguments of a command line (the verb is not among them). */
struct mc_line {
    uint32_t count; /* of all; the first MC_TOKENS_MAX are in tokens */
    uint32_t dirty; /* bit i: token i has a control byte or DEL */
    bool is_dirty;  /* any token has */
    bool is_tidy;   /* one blank before each token, none behind the last */
    struct bytes tokens[MC_TOKENS_MAX];
};

#define MC_ERROR_KEY_LONG     "CLIENT_ERROR key too long"
#define MC_ERROR_KEY_INVALID  "CLIENT_ERROR invalid key"
#define MC_ERROR_DELTA        "CLIENT_ERROR invalid numeric delta argument"
#define MC_ERROR_EXPTIME      "CLIENT_ERROR invalid exptime argument"
#define MC_ERROR_FORMAT       "CLIENT_ERROR bad command line format"
#define MC_ERROR_DATA_LENGTH  "CLIENT_ERROR bad data length"
#define MC_ERROR_DATA_CHUNK   "CLIENT_ERROR bad data chunk"
#define MC_ERROR_LINE_LONG    "CLIENT_ERROR line too long"
#define MC_ERROR_TOO_LARGE    "SERVER_ERROR object too large for cache"
#define MC_ERROR_NO_MEMORY    "SERVER_ERROR out of memory"
#define MC_ERROR_SYNTAX       "ERROR"

#define MC_EACH_BYTE(b) (UINT64_MAX / 255 * (b))

/* How many of the eight bytes at p come before the first blank, control byte or DEL. The lowest flagged
 * byte of each test is exact. */
static inline unsigned mc_token_span(const char *p)
{
    uint64_t word, del, found;

    memcpy(&word, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    del = word ^ MC_EACH_BYTE(0x7f);
    found = (((word - MC_EACH_BYTE(0x21)) & ~word) | ((del - MC_EACH_BYTE(0x01)) & ~del)) &
            MC_EACH_BYTE(0x80);
    return found == 0 ? 8 : (unsigned)__builtin_ctzll(found) >> 3;
}

/* Decimals, leading zeros allowed (they clear *is_tidy), at most `max`. */
bool mc_number_u64(struct bytes token, uint64_t max, uint64_t *out, bool *is_tidy);
/* The same with an optional '-'. From 2^31 on it is what the 32 bits say, as in memcached: libmemcached writes -1 as
 * 4294967295. */
bool mc_number_i32(struct bytes token, int32_t *out, bool *is_tidy);

/* False: no memory. */
bool mc_keys_grow(struct mc_keys *keys);

/* NULL, or the error line. */
const char *mc_key_error(struct bytes key, bool is_dirty, const struct proto_limits *limits);

static inline bool mc_bytes_are(struct bytes b, const char *text, size_t len)
{
    return b.len == len && memcmp(b.data, text, len) == 0;
}
#define MC_BYTES_ARE(b, literal) mc_bytes_are((b), (literal), sizeof(literal) - 1)

/* Reads key and flags of a meta command (not mn) into out; `first_flag` is the index of the first flag
 * token. NULL, or the error line. The value's length is not looked at. */
const char *mc_meta_line_parse(const struct mc_line *line, uint32_t first_flag,
                               const struct proto_limits *limits, struct mc_keys *keys,
                               struct mc_request *out);
