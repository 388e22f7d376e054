/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/io_ev_rest.h"
#include "common/base/mem.h"

#include <errno.h>

#define REST_GROW_MIN (64u << 10)
#define REST_ROOM_MIN (4u << 10)
/* No frame is larger (values end at 512 MiB); a handler that never consumes ends here. */
#define REST_MAX      (1u << 30)

struct rest rest_take(struct io_stream *stream)
{
    struct rest rest = {stream->rest_, stream->rest_off_, stream->rest_len_, stream->rest_cap_};

    stream->rest_ = NULL;
    stream->rest_off_ = stream->rest_len_ = stream->rest_cap_ = 0;
    return rest;
}

void rest_put(struct io_stream *stream, struct rest rest)
{
    ASSERT(stream->rest_ == NULL);
    stream->rest_ = rest.data;
    stream->rest_off_ = rest.off;
    stream->rest_len_ = rest.len;
    stream->rest_cap_ = rest.cap;
}

void rest_free(struct io_stream *stream)
{
    struct rest rest = rest_take(stream);

    mem_free(rest.data);
}

/* Moves the rest into a buffer of exactly `cap`. */
static int rest_resize(struct io_stream *stream, size_t cap)
{
    char *data;

    ASSERT(cap >= stream->rest_len_);
    if (cap > REST_MAX)
        return ERR_FULL;
    if (stream->rest_off_ == 0) {
        data = mem_realloc(stream->rest_, cap);
        if (data == NULL)
            return -ENOMEM;
    } else {
        data = mem_alloc(cap);
        if (data == NULL)
            return -ENOMEM;
        memcpy(data, stream->rest_ + stream->rest_off_, stream->rest_len_);
        mem_free(stream->rest_);
    }
    stream->rest_ = data;
    stream->rest_off_ = 0;
    stream->rest_cap_ = (uint32_t)cap;
    return 0;
}

int rest_reserve(struct io_stream *stream)
{
    size_t len = stream->rest_len_;
    size_t room = stream->rest_cap_ - stream->rest_off_ - len;
    size_t cap = MAX(2 * len, (size_t)REST_GROW_MIN);
    size_t room_min = cap / 4;

    if (stream_knows_end(stream)) {
        room_min = MIN((size_t)REST_ROOM_MIN, stream->need - len);
        cap = MIN(cap, stream->need);
    }
    if (room >= room_min)
        return 0;
    if (stream->rest_cap_ >= cap && stream->rest_off_ >= len) {
        memcpy(stream->rest_, stream->rest_ + stream->rest_off_, len);
        stream->rest_off_ = 0;
        return 0;
    }
    return rest_resize(stream, cap);
}

int rest_append(struct io_stream *stream, const char *data, size_t len)
{
    size_t end = (size_t)stream->rest_off_ + stream->rest_len_;

    if (stream->rest_cap_ - end < len) {
        size_t total = stream->rest_len_ + len;
        /* The first time exactly: most rests are completed by the next receive. */
        int err = rest_resize(stream, stream->rest_len_ == 0 ? total : total + total / 2);

        if (err != 0)
            return err;
        end = stream->rest_len_;
    }
    memcpy(stream->rest_ + end, data, len);
    stream->rest_len_ += (uint32_t)len;
    return 0;
}

void rest_shrink(struct io_stream *stream)
{
    if (stream->rest_len_ == 0)
        rest_free(stream);
    else if (stream->rest_cap_ > REST_ROOM_MIN && stream->rest_len_ <= stream->rest_cap_ / 4)
        MAYBE(rest_resize(stream, stream->rest_len_) == 0);
}
