/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buffer.h - a growable run of bytes with a bound and a sticky error.
 *
 * All zero is an empty buffer. Once an append fails (over `max`, or out of memory) `failed` stays set and
 * further appends do nothing: compose ten pieces, check once.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

struct buffer {
    char *data; /* owns */
    size_t len, cap;
    size_t max; /* 0: no bound but memory */
    bool failed;
};

void buffer_deinit(struct buffer *buffer); /* also resets it to empty */
static inline void buffer_clear(struct buffer *buffer)
{
    buffer->len = 0;
    buffer->failed = false;
}
/* Room for `size` more bytes at the end, or NULL; nothing is added. */
char *buffer_reserve(struct buffer *buffer, size_t size);
/* About `size` more bytes will come: room for them now, if there is memory, so that they are not copied as it grows. */
void buffer_expect(struct buffer *buffer, size_t size);
void buffer_append(struct buffer *buffer, const void *data, size_t size);
void buffer_append_string(struct buffer *buffer, const char *string);
void buffer_append_format(struct buffer *buffer, const char *format, ...) PRINTF_LIKE(2, 3);
/* Drops bytes from the front. */
void buffer_consume(struct buffer *buffer, size_t size);

static inline struct bytes buffer_bytes(const struct buffer *buffer)
{
    return bytes_of(buffer->data, buffer->len);
}
