/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_ev_rest.h - what a stream's recv() did not consume. Siblings only.
 *
 * It lies at rest_off_ in a buffer of rest_cap_ bytes that the stream owns, and grows with what was received, not with
 * what a peer announces.
 */
#pragma once
#include "common/io/io.h"

struct rest {
    char *data; /* owns */
    uint32_t off, len, cap;
};

/* Takes it off the stream; puts it back where none is. */
struct rest rest_take(struct io_stream *stream);
void rest_put(struct io_stream *stream, struct rest rest);
void rest_free(struct io_stream *stream);
/* Makes room: up to `need` if that is known, but no more than a doubling at a time. Where it is not
 * known each receive ends in a call, so the room must be worth one. 0, ERR_FULL, -ENOMEM. */
MUST_USE int rest_reserve(struct io_stream *stream);
MUST_USE int rest_append(struct io_stream *stream, const char *data, size_t len);
/* A stream at rest must not hold a large buffer for a few bytes. */
void rest_shrink(struct io_stream *stream);

static inline struct bytes rest_bytes(const struct io_stream *stream)
{
    return stream->rest_len_ == 0 ? BYTES_EMPTY
                                  : bytes_of(stream->rest_ + stream->rest_off_, stream->rest_len_);
}

/* Whether the frame's end is known. "One more byte" is what a parser says that stands before a header. */
static inline bool stream_knows_end(const struct io_stream *stream)
{
    return stream->need > (size_t)stream->rest_len_ + 1;
}
