/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memcache binary protocol. The first byte chooses requests or replies, and how the stream is cut.
 *
 * Checked: what is understood does not depend on the cuts; nothing beyond the bytes is read; headers
 * survive decoding and encoding.
 */
#include "common/proto/memcache.h"
#include <stdlib.h>

#define SIZE_MAX_STREAM 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    uint64_t events; /* a hash */
    bool is_closed;
};

static void mix(struct outcome *outcome, struct bytes b, uint64_t number)
{
    for (size_t i = 0; i < b.len; i++)
        outcome->events = (outcome->events ^ (unsigned char)b.data[i]) * UINT64_C(0x100000001b3);
    outcome->events = (outcome->events ^ number) * UINT64_C(0x100000001b3) + b.len;
}

static const struct proto_limits limits = {.line_max = 1024, .value_max = 40, .key_max = 20};

/* How much to drop; 0: more bytes are needed. */
static size_t request_step(struct mc_bin_parser *parser, struct bytes data, struct outcome *out)
{
    struct mc_bin_request request;
    char header[MC_BIN_HEADER];

    switch (mc_bin_parse(parser, &limits, data, &request)) {
    case PARSE_OK:
        ASSERT(request.len > 0 && request.len <= data.len);
        if (request.is_skip)
            return request.len;
        mc_bin_encode(&request.header, header);
        ASSERT(memcmp(header, data.data, sizeof(header)) == 0);
        mix(out, bytes_of(header, sizeof(header)), request.error_status);
        if (request.error_status == 0) {
            ASSERT(request.verb != NULL);
            ASSERT(MC_BIN_HEADER + request.extras.len + request.key.len + request.value.len ==
                   request.len);
            mix(out, request.key, request.verb->id);
            mix(out, request.value, request.is_quiet);
        }
        return request.len;
    case PARSE_MORE:
        ASSERT(parser->need > data.len);
        return 0;
    case PARSE_BAD:
        mix(out, BYTES("X"), request.error_status);
        out->is_closed = true;
        return 0;
    }
    return 0;
}

static size_t reply_step(struct mc_bin_reply_parser *parser, struct bytes data, struct outcome *out)
{
    struct mc_bin_reply reply;
    enum parse_result result = mc_bin_reply_scan(parser, &limits, data, &reply);

    ASSERT(reply.scanned <= data.len);
    if (reply.is_start) {
        mix(out, reply.key, reply.header.opaque);
        mix(out, reply.extras, reply.header.body_len);
    }
    if (result == PARSE_OK) {
        mix(out, BYTES("."), 0);
        *parser = (struct mc_bin_reply_parser){0};
    }
    out->is_closed = result == PARSE_BAD;
    return reply.scanned;
}

static struct outcome run(bool is_reply, struct bytes wire, size_t have, size_t step)
{
    struct mc_bin_parser parser = {0};
    struct mc_bin_reply_parser reply_parser = {0};
    struct outcome out = {0, false};
    size_t start = 0;

    while (!out.is_closed) {
        size_t used = 0, len = have - start;

        if (len > 0) {
            char *copy = malloc(len);

            ASSERT(copy != NULL);
            memcpy(copy, wire.data + start, len);
            used = is_reply ? reply_step(&reply_parser, bytes_of(copy, len), &out)
                            : request_step(&parser, bytes_of(copy, len), &out);
            free(copy);
        }
        start += used;
        if (used == 0 || start == have) {
            if (have == wire.len)
                break;
            have = MIN(wire.len, have + step);
        }
    }
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, cut;
    struct bytes wire;
    bool is_reply;

    if (size < 1 || size > SIZE_MAX_STREAM)
        return 0;
    is_reply = (data[0] & 0x80) != 0;
    wire = bytes_of((const char *)data + 1, size - 1);
    whole = run(is_reply, wire, wire.len, 1);
    cut = run(is_reply, wire, 0, 1 + (data[0] & 0x1f));
    ASSERT(cut.events == whole.events && cut.is_closed == whole.is_closed);
    cut = run(is_reply, wire, wire.len / 2, wire.len);
    ASSERT(cut.events == whole.events && cut.is_closed == whole.is_closed);
    return 0;
}
