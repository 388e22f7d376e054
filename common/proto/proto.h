/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proto.h - what all codecs share.
 *
 * Parsers never own bytes: their results are views into the bytes they were given, valid as long as
 * those. They are resumable: PARSE_MORE keeps how far they looked, so that a frame that comes byte by
 * byte is scanned once, not once a byte; the caller gives the same bytes again, with more behind.
 * The answer for a stream of bytes does not depend on how it was cut.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

enum parse_result {
    PARSE_OK,   /* a whole frame: out->len bytes */
    PARSE_MORE, /* needs more bytes; parser->need says how many in all, where that is known */
    PARSE_BAD,  /* framing is lost; parser->error says why; answer and close */
};

/* How a client talks, and so what an upstream connection speaks. Text and meta share one. */
enum dialect { DIALECT_RESP2, DIALECT_RESP3, DIALECT_MC_TEXT, DIALECT_MC_BINARY, DIALECT_COUNT };

struct proto_limits {
    uint32_t args_max;         /* RESP: of one request (1048576) */
    uint32_t line_max;         /* inline or memcache command line (64 KiB) */
    uint64_t bulk_max;         /* one RESP bulk (512 MiB) */
    bool is_unauthenticated;   /* RESP: as Redis no more than 10 arguments of 16 KiB, whatever else would be allowed */
    uint32_t value_max;        /* memcache value (1 MiB by default, as memcached) */
    uint32_t key_max;          /* memcache: 250 */
    bool has_control_keys;     /* memcache text: keys may have control bytes but NUL, as memcached's; a proxy's may not */
    bool has_sasl;             /* memcache binary: SASL requests are known; without a password they are not */
};
#define PROTO_LIMITS_DEFAULT                                                                       \
    ((struct proto_limits){.args_max = 1048576, .line_max = 65536, .bulk_max = 512u << 20,         \
                           .value_max = 1u << 20, .key_max = 250})
