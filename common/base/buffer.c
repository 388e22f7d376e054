/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/buffer.h"
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define EXPECT_MIN (64u << 10) /* less is copied a few times as it grows, and does not matter */

void buffer_deinit(struct buffer *buffer)
{
    size_t max = buffer->max;

    mem_free(buffer->data);
    *buffer = (struct buffer){.max = max};
}

static bool cap_set(struct buffer *buffer, size_t cap)
{
    char *grown = mem_realloc(buffer->data, cap);

    if (grown == NULL)
        return false;
    buffer->data = grown;
    buffer->cap = cap;
    return true;
}

char *buffer_reserve(struct buffer *buffer, size_t size)
{
    size_t wanted, cap;

    if (buffer->failed)
        return NULL;
    if (LIKELY(buffer->cap - buffer->len >= size && buffer->data != NULL))
        return buffer->data + buffer->len;
    wanted = buffer->len + size;
    if (wanted < size || (buffer->max != 0 && wanted > buffer->max))
        goto fail;
    cap = MAX(buffer->cap * 2, (size_t)64);
    cap = MAX(cap, wanted);
    if (buffer->max != 0)
        cap = MIN(cap, buffer->max);
    if (!cap_set(buffer, cap))
        goto fail;
    return buffer->data + buffer->len;
fail:
    buffer->failed = true;
    return NULL;
}

void buffer_expect(struct buffer *buffer, size_t size)
{
    size_t wanted = buffer->len + size;

    if (size < EXPECT_MIN || buffer->failed || buffer->cap - buffer->len >= size || wanted < size ||
        (buffer->max != 0 && wanted > buffer->max))
        return;
    MAYBE(cap_set(buffer, wanted));
}

void buffer_append(struct buffer *buffer, const void *data, size_t size)
{
    char *room = size > 0 ? buffer_reserve(buffer, size) : NULL;

    if (room != NULL) {
        memcpy(room, data, size);
        buffer->len += size;
    }
}

void buffer_append_string(struct buffer *buffer, const char *string)
{
    buffer_append(buffer, string, strlen(string));
}

void buffer_append_format(struct buffer *buffer, const char *format, ...)
{
    va_list args;
    int len;
    char *room;

    va_start(args, format);
    len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    room = len < 0 ? NULL : buffer_reserve(buffer, (size_t)len + 1);
    if (room == NULL)
        return;
    va_start(args, format);
    vsnprintf(room, (size_t)len + 1, format, args);
    va_end(args);
    buffer->len += (size_t)len;
}

void buffer_consume(struct buffer *buffer, size_t size)
{
    ASSERT(size <= buffer->len);
    buffer->len -= size;
    if (buffer->len > 0 && size > 0)
        memmove(buffer->data, buffer->data + size, buffer->len);
}
