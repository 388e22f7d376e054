/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hyperloglog.h - Redis's HyperLogLog, which is a string with this content:
 *
 *     "HYLL" | encoding u8 | 0 0 0 | cached cardinality u64, top bit: it is stale | registers
 *
 * dense (0):  16384 registers of 6 bits, the first in the low bits of byte 0
 * sparse (1): runs of registers in order
 *     00llllll                 l + 1 zeros
 *     01llllll llllllll        l + 1 zeros
 *     1vvvvvll                 l + 1 registers of value v + 1
 *
 * GET shows these bytes and other servers read them, so the same elements must give the same bytes as in Redis
 * 7.0: same hash (MurmurHash64A), same splitting and joining of runs, dense above HLL_SPARSE_MAX bytes.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

#define HLL_HEADER_SIZE 16u
#define HLL_REGISTERS   16384u
#define HLL_DENSE_SIZE  (HLL_HEADER_SIZE + HLL_REGISTERS * 6 / 8)
#define HLL_SPARSE_MAX  3000u /* hll-sparse-max-bytes */

/* One under change: a copy of the string. */
struct hll {
    unsigned char *data; /* owns */
    size_t len, cap;
};

/* Whether a string looks like one: magic, encoding, size. Its runs may be broken all the same. */
bool hll_is_valid(struct bytes string);
bool hll_is_dense(struct bytes string);

/* A copy, or (value.len 0) an empty one. ERR_FULL: no memory. */
MUST_USE int hll_load(struct hll *hll, struct bytes value);
void hll_deinit(struct hll *hll);
static inline struct bytes hll_bytes(const struct hll *hll)
{
    return bytes_of(hll->data, hll->len);
}

/* 1: the registers changed, 0: they did not; ERR_CORRUPT: broken runs. */
MUST_USE int hll_add(struct hll *hll, struct bytes element);
/* ERR_CORRUPT: broken runs, nothing was changed. */
MUST_USE int hll_make_dense(struct hll *hll);
/* Raises each register to at least its value in `registers`, which a string of this encoding can do. */
void hll_raise(struct hll *hll, const uint8_t registers[HLL_REGISTERS]);
void hll_cache_invalidate(struct hll *hll);
void hll_cache_set(struct hll *hll, uint64_t count);

/* The cached cardinality; false: stale. */
bool hll_cached(struct bytes string, uint64_t *count);
/* ERR_CORRUPT: broken runs. */
MUST_USE int hll_count(struct bytes string, uint64_t *count);
uint64_t hll_count_registers(const uint8_t registers[HLL_REGISTERS]);
/* Raises `registers` to at least what the string has. ERR_CORRUPT. */
MUST_USE int hll_merge(struct bytes string, uint8_t registers[HLL_REGISTERS]);
