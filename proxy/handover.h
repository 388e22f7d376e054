/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover.h - an idle client goes to another process: its descriptor, and this blob.
 *
 * Little endian. Valid if and only if magic and version are right, lengths add up to the blob's size, and
 * every field is in its range. From a process of another version: never trusted.
 *
 *     0  u32  magic "WHO1"
 *     4  u16  version (1)
 *     6  u8   dialect (enum dialect)
 *     7  u8   db
 *     8  u8   flags: 1 authenticated, 2 has a session
 *     9  u8   0
 *    10  u16  length of the session part
 *    12  u32  length of the unparsed input, at most HANDOVER_INPUT_MAX
 *    16  u64  bytes of a refused memcache value still to be thrown away
 *    24  u64  client id
 *    32       session part, then input
 */
#pragma once
#include "common/base/buffer.h"
#include "common/base/bytes.h"
#include "common/base/err.h"

#define HANDOVER_HEADER_SIZE 32
#define HANDOVER_VERSION     1
#define HANDOVER_INPUT_MAX   (64u << 10)
#define HANDOVER_SESSION_MAX 65000
#define HANDOVER_BLOB_MAX   (72u << 10) /* of all: what a hand-over socket takes */

struct handover {
    uint8_t dialect, db;
    bool is_authenticated;
    uint64_t swallow, client_id;
    struct bytes session; /* a view into the blob; empty: none */
    struct bytes input;   /* likewise */
};

/* ERR_FULL: the input or the session part is too long to be passed on. */
MUST_USE int handover_blob_encode(const struct handover *handover, struct buffer *out);
/* ERR_CORRUPT. */
MUST_USE int handover_blob_decode(struct bytes blob, struct handover *out);
