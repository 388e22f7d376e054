/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.h - the log's formats, version 1: record, frame, page write, segment. Little endian.
 *
 *     segment  = header page (4096) | page write ... | footer page
 *     page write (4096-aligned) = header (64) | frame ... | zeroes up to 4096      local to this node
 *     frame    (16-aligned)     = header (64) | record ...                         the same on every replica
 *     record   (16-aligned)     = header (32) | options | key | value | zeroes up to 16
 *
 * RECORD
 *    0 u32 crc32c of bytes 4 .. end of value
 *    4 u8  record type     5 u8 flags (RECORD_HAS_...)   6 u16 slot (CRC16 of the key, hash tags heeded)
 *    8 u16 key length     10 u8 database                11 u8 value's type (enum store_type)
 *   12 u32 value length   16 u64 lsn                    24 u32 epoch            28 u32 zero
 *   32 options, in this order: [expire_ms u64] [mc_flags u64] [base_lsn u64] [request id 16 bytes]
 *   Valid if and only if the crc fits, lengths lie within the frame, type and flags are known, reserved
 *   bytes and padding are zero. Placement is not covered: a record may be moved and keeps its LSN.
 *
 * FRAME
 *    0 u32 magic  4 u16 version  6 u16 flags   8 u32 size, header included, multiple of 16
 *   12 u32 record count  16 u32 epoch  20 u32 zero  24 u64 first lsn  32 u64 last lsn
 *   40 u64 chain of the frame before   48 u64 chain = XXH3_64(bytes 0..47; seed: XXH3_64(bytes 56..size))
 *   56 u64 wall clock, ms
 *   FRAME_CONTINUES: the transaction goes on in the next frame; without that one it never happened.
 *   A cold frame (cleaner's copies, local images) has FRAME_COLD, chain before 0, and LSNs in any order.
 *
 * PAGE WRITE
 *    0 u32 magic  4 u16 version  6 u16 kind   8 u64 segment sequence  16 u32 block number (offset / 4096)
 *   20 u32 bytes used, header included  24 u32 frame count  28 u32 shard
 *   32 u64 durable mark: highest LSN known durable when it was composed; cold: bytes of this segment
 *   40 u64 XXH3_64 of the header with this field zero   48 16 bytes: the node's uuid
 *   Valid if and only if the hash fits and sequence and block number are those of the place it is read from
 *   (a misdirected or stale write is not), and every frame in it verifies.
 */
#pragma once
#include "backend/store/entry.h"
#include "common/base/bytes.h"

enum record_type {
    RECORD_NONE,
    RECORD_SET,      /* the whole value: a string's bytes, a collection's image; a new incarnation */
    RECORD_IMAGE,    /* local: the state of an object at `lsn`, which a delta record had */
    RECORD_DELTA,    /* operations on an object (effect.h); lsn == base: it creates it */
    RECORD_TOMB,     /* the key is gone */
    RECORD_FLUSH,    /* no key: the database `db` (STORE_DBS: all) has no key with a lower LSN */
    RECORD_NOP,      /* marks an epoch */
    RECORD_SWAP,     /* no key; 16 bytes: under which number the records have database 0, 1 ... from this LSN on */
    RECORD_TYPE_COUNT,
};

#define RECORD_HAS_EXPIRE   0x01u
#define RECORD_HAS_MC_FLAGS 0x02u
#define RECORD_HAS_BASE     0x04u
#define RECORD_HAS_REQUEST  0x08u

#define RECORD_HEADER_SIZE  32u
#define RECORD_OPTIONS_MAX  40u
#define RECORD_ALIGN        16u
#define FRAME_HEADER_SIZE   64u
#define FRAME_CONTINUES     0x01u
#define FRAME_COLD          0x02u
#define PAGE_HEADER_SIZE    64u
#define PAGE_SIZE_          4096u
#define RECORD_VALUE_MAX    (1u << 31) /* an image may be larger than any string */

struct record {
    uint8_t type, db, value_type;
    uint16_t slot;
    uint32_t epoch;
    uint64_t lsn;
    uint64_t expire_ms;  /* 0: none */
    uint64_t base_lsn;   /* 0: none */
    uint64_t mc_flags;   /* 0: none; <= ENTRY_MC_FLAGS_MAX */
    bool has_request;
    unsigned char request[16];
    struct bytes key;
    struct bytes value;  /* views: as composed, or into the bytes decoded */
    size_t size;         /* once it was appended: bytes in the log */
};

/* Bytes that it takes in a frame, padding included. */
size_t record_size(const struct record *record);
/* Writes record_size() bytes, checksum included. */
void record_encode(const struct record *record, char *out);
/* Something is gone by it, and no entry names it. */
static inline bool record_takes_away(const struct record *record)
{
    return record->type == RECORD_TOMB || record->type == RECORD_FLUSH || record->type == RECORD_SWAP;
}

/* The record at the start of `data`. Its size, or 0: does not verify (or is cut). */
size_t record_decode(struct bytes data, struct record *out);
/* The size that a valid header announces (0: none does), without looking at the checksum: to know how much to
 * read. `data` has at least RECORD_HEADER_SIZE bytes. */
size_t record_size_announced(struct bytes data);

uint32_t crc32c(uint32_t crc, const void *data, size_t size); /* Castagnoli; hardware where there is any */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size); /* the same, without */
/* Redis Cluster's slot of a key: CRC16 (XMODEM) mod 16384 of its hash tag. */
uint16_t key_slot(struct bytes key);
