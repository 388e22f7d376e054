/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One reply of a memcache server. The first two bytes say what was asked, the third how the reply is cut.
 *
 * Checked: the outcome (whole, broken or not, how long, its items) does not depend on the cuts, nor on
 * whether whole items are taken the short way; nothing beyond the bytes is read; keys and lengths are within their limits.
 */
#include "common/proto/memcache.h"
#include <stdlib.h>

#define SIZE_MAX_REPLY 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    enum parse_result result;
    size_t used;
    uint64_t items; /* a hash of them and of what the end says */
};

static void mix(struct outcome *outcome, struct bytes b, uint64_t number)
{
    for (size_t i = 0; i < b.len; i++)
        outcome->items = (outcome->items ^ (unsigned char)b.data[i]) * UINT64_C(0x100000001b3);
    outcome->items = (outcome->items ^ number) * UINT64_C(0x100000001b3) + b.len;
}

/* What mc_reply_item() takes of the bytes; returns their length. */
static size_t take_items(struct mc_reply_parser *parser, const struct proto_limits *limits,
                         struct bytes data, struct outcome *out)
{
    size_t done = 0;

    for (;;) {
        struct bytes rest = bytes_skip(data, done), key;
        size_t len = mc_reply_item(parser, limits, rest, &key);

        if (len == 0)
            return done;
        ASSERT(len <= rest.len);
        if (key.len > 0) {
            const char *newline = memchr(rest.data, '\n', len);

            ASSERT(newline != NULL && key.data == rest.data + 6);
            mix(out, key, len - (size_t)(newline + 1 - rest.data) - 2);
        }
        done += len;
    }
}

static struct outcome run(const uint8_t *head, struct bytes wire, size_t have, size_t step,
                          bool takes_items)
{
    struct proto_limits limits = PROTO_LIMITS_DEFAULT;
    struct mc_reply_parser parser = {.expect = head[0] % (MC_KIND_LOCAL + 1),
                                     .verb = head[1] % MC_VERB_COUNT};
    struct outcome out = {PARSE_MORE, 0, 0};

    while (true) {
        size_t len = have - out.used;
        char *copy = malloc(len);
        struct mc_reply reply;

        ASSERT(copy != NULL);
        if (len > 0)
            memcpy(copy, wire.data + out.used, len);
        if (takes_items && parser.expect == MC_KIND_GET) {
            size_t taken = take_items(&parser, &limits, bytes_of(copy, len), &out);

            out.used += taken;
            len -= taken;
            memmove(copy, copy + taken, len);
        }
        out.result = mc_reply_scan(&parser, &limits, bytes_of(copy, len), &reply);
        ASSERT(reply.scanned <= len);
        ASSERT(!reply.is_item_start || out.result == PARSE_MORE);
        ASSERT(reply.item_data_len <= MC_REPLY_VALUE_MAX || out.result == PARSE_BAD);
        out.used += reply.scanned;
        if (reply.is_item_start)
            mix(&out, reply.item_key, reply.item_data_len);
        if (out.result == PARSE_OK)
            mix(&out, reply.line, reply.is_end * 2u + reply.is_error);
        free(copy);
        if (out.result != PARSE_MORE || (!reply.is_item_start && have == wire.len))
            break;
        if (!reply.is_item_start)
            have = MIN(wire.len, have + step);
    }
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, cut;
    struct bytes wire;

    if (size < 3 || size > SIZE_MAX_REPLY)
        return 0;
    wire = bytes_of((const char *)data + 3, size - 3);
    whole = run(data, wire, wire.len, 1, false);
    for (unsigned i = 0; i < 5; i++) {
        bool takes_items = i >= 2;

        cut = i % 3 == 0 ? run(data, wire, 0, 1 + (data[2] & 0x1f), takes_items)
              : i % 3 == 1 ? run(data, wire, wire.len / 2, wire.len, takes_items)
                           : run(data, wire, wire.len, 1, takes_items);
        ASSERT(cut.result == whole.result && cut.items == whole.items);
        ASSERT(cut.result == PARSE_BAD || cut.used == whole.used);
    }
    return 0;
}
