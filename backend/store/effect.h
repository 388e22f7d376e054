/* SPDX-License-Identifier: Apache-2.0 */
/*
 * effect.h - what a change did to an object, as the log keeps it: operations, not commands.
 *
 *     DELTA value = operation*          operation = code u8, argument count varint, argument*
 *                                       argument  = length varint, bytes
 *
 * Deterministic: random and relative things are already resolved. Codes are each type's own, from 1;
 * EFFECT_EXPIRE and EFFECT_FLAGS are the store's. Varints are LEB128, at most 5 bytes (10 for
 * numbers).
 */
#pragma once
#include "common/base/buffer.h"
#include "common/base/bytes.h"

#define EFFECT_EXPIRE 0xf0u /* one argument: absolute milliseconds, u64; 0: never */
#define EFFECT_FLAGS  0xf1u /* one argument: memcache flags, u32 */
#define EFFECT_ARGUMENTS_MAX ((uint32_t)INT32_MAX) /* as many as a request may have */

/* Starts an operation; then exactly `count` arguments follow. Errors are the buffer's sticky one. */
void effect_begin(struct buffer *out, uint8_t code, uint32_t count);
void effect_bytes(struct buffer *out, struct bytes argument);
void effect_u64(struct buffer *out, uint64_t number);   /* 8 bytes, little endian */
void effect_double(struct buffer *out, double number);  /* 8 bytes, IEEE 754, little endian */

/* Reading: a cursor with a sticky error. */
struct effect_reader {
    struct bytes rest;
    uint32_t arguments_left; /* of the operation begun */
    bool is_bad;
};
void effect_reader_init(struct effect_reader *reader, struct bytes ops);
/* The next operation; false: the end, or bad (see is_bad). Skips arguments of the last that were not read. */
bool effect_next(struct effect_reader *reader, uint8_t *code, uint32_t *argument_count);
bool effect_read_bytes(struct effect_reader *reader, struct bytes *argument);
bool effect_read_u64(struct effect_reader *reader, uint64_t *number);
bool effect_read_double(struct effect_reader *reader, double *number);

/* Varints, for images too. */
void varint_append(struct buffer *out, uint64_t number);
/* Advances the cursor; false: cut or too long. */
bool varint_read(struct bytes *cursor, uint64_t *number);
/* Length varint and bytes. */
void varint_append_bytes(struct buffer *out, struct bytes data);
bool varint_read_bytes(struct bytes *cursor, struct bytes *data);
