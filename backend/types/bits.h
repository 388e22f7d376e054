/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bits.h - strings as runs of bits: counting, searching, integers of any width anywhere.
 *
 * Bit 0 is the most significant bit of byte 0, as SETBIT has it; an integer's first bit is its most
 * significant one. What lies behind the end of a string reads as zeros.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

uint64_t bits_count(struct bytes data);
/* Ones among the bits first..last, both included and inside. */
uint64_t bits_count_range(struct bytes data, uint64_t first, uint64_t last);
/* The first such bit among first..last; -1: none. */
int64_t bits_find(struct bytes data, uint64_t first, uint64_t last, bool bit);

static inline bool bits_get(struct bytes data, uint64_t at)
{
    return at >> 3 < data.len && ((unsigned char)data.data[at >> 3] >> (7 - (at & 7)) & 1) != 0;
}

enum bits_operation { BITS_AND, BITS_OR, BITS_XOR, BITS_NOT };
/* out, of `len` bytes, becomes the combination of the strings; len is that of the longest. BITS_NOT: of one. */
void bits_combine(enum bits_operation operation, const struct bytes *strings, size_t count,
                  unsigned char *out, size_t len);

/* Width is 1 to 64. */
uint64_t bits_field_get(struct bytes data, uint64_t at, unsigned width);
/* Sign-extends. */
int64_t bits_field_signed(uint64_t field, unsigned width);
/* The field must lie inside the string. */
void bits_field_set(unsigned char *data, uint64_t at, unsigned width, uint64_t field);

enum bits_overflow { BITS_WRAP, BITS_SATURATE, BITS_FAIL };
/* value + increment as `width` bits hold it; false: it does not fit, *out is what `overflow` makes of it (BITS_FAIL:
 * not to be used). Unsigned values are at most 63 bits wide. */
bool bits_add_signed(int64_t value, int64_t increment, unsigned width, enum bits_overflow overflow,
                     int64_t *out);
bool bits_add_unsigned(uint64_t value, int64_t increment, unsigned width,
                       enum bits_overflow overflow, uint64_t *out);
