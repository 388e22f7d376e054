/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RESP replies: the answer, and what belongs to a reply, do not depend on how the stream is cut; a
 * complete reply can be walked by resp_next() from one end to the other, and resp_value_len() agrees; so does
 * resp_bulks_scan(), where it answers.
 *
 * The first byte chooses where the stream is cut.
 */
#include <stdlib.h>
#include "common/proto/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct proto_limits limits = {.line_max = 256, .bulk_max = 4096};

#define REPLIES_MAX 4096

struct trace {
    size_t ends[REPLIES_MAX]; /* where each reply ended */
    char types[REPLIES_MAX];
    int64_t integers[REPLIES_MAX];
    uint32_t count;
    enum parse_result last;
};

static void read_stream(struct bytes stream, size_t step, struct trace *trace)
{
    struct resp_reply_parser parser = {0};
    size_t have = 0, consumed = 0;

    trace->count = 0;
    trace->last = PARSE_MORE;
    while (have < stream.len && trace->last != PARSE_BAD) {
        have = MIN(have + step, stream.len);
        do {
            size_t len = have - consumed;
            size_t scanned = 0;
            char *copy = malloc(len > 0 ? len : 1);

            ASSERT(copy != NULL);
            memcpy(copy, stream.data + consumed, len);
            trace->last = resp_reply_scan(&parser, &limits, bytes_of(copy, len), &scanned);
            free(copy);
            ASSERT(scanned <= len);
            consumed += scanned;
            if (trace->last == PARSE_MORE)
                ASSERT(parser.need > len - scanned && parser.depth <= RESP_DEPTH_MAX);
            if (trace->last == PARSE_OK) {
                ASSERT(scanned > 0 && trace->count < REPLIES_MAX);
                trace->types[trace->count] = parser.type;
                trace->integers[trace->count] = parser.integer;
                trace->ends[trace->count++] = consumed;
            }
        } while (trace->last == PARSE_OK && consumed < have);
    }
}

static void check_walk(struct bytes reply)
{
    struct bytes cursor = reply;
    struct resp_value value;

    ASSERT(resp_value_len(reply) == reply.len);
    while (cursor.len > 0) {
        size_t before = cursor.len;

        ASSERT(resp_next(&cursor, &value));
        ASSERT(cursor.len < before);
    }
}

static void check_bulks(struct bytes reply, struct bytes stream)
{
    static uint32_t lens[REPLIES_MAX];
    struct bytes cursor = reply;
    struct resp_value value;
    size_t len;

    ASSERT(resp_next(&cursor, &value));
    if (value.type != '*' || value.integer < 0 || value.integer > REPLIES_MAX)
        return;
    len = resp_bulks_scan(stream, &limits, (uint32_t)value.integer, lens);
    if (len == 0)
        return;
    ASSERT(len == reply.len);
    for (int64_t i = 0; i < value.integer; i++) {
        ASSERT(resp_value_len(cursor) == lens[i]);
        cursor = bytes_skip(cursor, lens[i]);
    }
    ASSERT(cursor.len == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes stream, cursor;
    struct resp_value value;
    struct trace *whole, *cut;
    size_t start = 0;

    if (size < 2 || size > REPLIES_MAX)
        return 0;
    whole = malloc(sizeof(*whole));
    cut = malloc(sizeof(*cut));
    ASSERT(whole != NULL && cut != NULL);
    stream = bytes_of(data + 1, size - 1);
    read_stream(stream, stream.len, whole);
    read_stream(stream, data[0] % 61u + 1, cut);
    ASSERT(whole->count == cut->count && whole->last == cut->last);
    for (uint32_t i = 0; i < whole->count; i++) {
        ASSERT(whole->ends[i] == cut->ends[i] && whole->types[i] == cut->types[i] &&
               whole->integers[i] == cut->integers[i]);
        check_walk(bytes_of(stream.data + start, whole->ends[i] - start));
        check_bulks(bytes_of(stream.data + start, whole->ends[i] - start), bytes_skip(stream, start));
        start = whole->ends[i];
    }
    /* Rubbish is no value, but it is survived. */
    for (cursor = stream; resp_next(&cursor, &value);)
        ASSERT(cursor.len < stream.len);
    MAYBE(resp_value_len(stream));
    free(whole);
    free(cut);
    return 0;
}
