/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream of memcache text requests. The first byte chooses the limits and how the stream is cut.
 *
 * Checked: what is understood does not depend on the cuts; nothing beyond the bytes is read; what is
 * forwarded (the composed line with its block) is itself one canonical request that means the same.
 */
#include "tests/unit/common/proto/memcache_trace.h"

#define SIZE_MAX_STREAM 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct trace whole, cut;

/* The accepted requests of the stream, composed: read again they must be the same text, with no "~". */
static void check_canonical(const struct proto_limits *limits, struct bytes wire)
{
    static char line[200000], frame[400000];
    struct mc_parser parser = {0}, again_parser;
    struct mc_keys keys, again_keys;
    struct mc_request request, again;

    mc_keys_init(&keys);
    mc_keys_init(&again_keys);
    while (wire.len > 0 && mc_parse(&parser, &keys, limits, wire, &request) == PARSE_OK) {
        size_t len;

        wire = bytes_skip(wire, request.len);
        if (request.status != MC_REQ_OK)
            continue;
        len = mc_compose_line(&request, NULL, 0, frame, sizeof(frame));
        ASSERT(len > 0);
        if (mc_verb_info(request.verb)->kind == MC_KIND_STORE || request.verb == MC_ms) {
            memcpy(frame + len, request.data.data, request.data.len);
            len += request.data.len;
            memcpy(frame + len, "\r\n", 2);
            len += 2;
        }
        again_parser = (struct mc_parser){0};
        ASSERT(mc_parse(&again_parser, &again_keys, limits, bytes_of(frame, len), &again) ==
               PARSE_OK);
        ASSERT(again.status == MC_REQ_OK && again.is_canonical && again.len == len);
        ASSERT(again.verb == request.verb && again.key_count == request.key_count);
        ASSERT(again.is_noreply == request.is_noreply && again.is_quiet == request.is_quiet);
        ASSERT(again.flags == request.flags && again.exptime == request.exptime);
        ASSERT(again.cas == request.cas && again.delta == request.delta);
        ASSERT(bytes_equal(again.data, request.data));
        ASSERT(bytes_equal(again.route_key, request.route_key));
        for (uint32_t i = 0; i < request.key_count; i++)
            ASSERT(bytes_equal(again.keys[i], request.keys[i]));
        len = mc_compose_line(&again, NULL, 0, line, sizeof(line));
        ASSERT(len > 0 && memcmp(line, frame, len) == 0);
    }
    mc_keys_deinit(&keys);
    mc_keys_deinit(&again_keys);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proto_limits limits = PROTO_LIMITS_DEFAULT;
    struct bytes wire;

    if (size < 1 || size > SIZE_MAX_STREAM)
        return 0;
    wire = bytes_of((const char *)data + 1, size - 1);
    if ((data[0] & 0x80) != 0) {
        limits.line_max = 300;
        limits.value_max = 20;
        limits.key_max = 20;
    }
    trace_stream(&whole, &limits, wire, wire.len, 1);
    trace_stream(&cut, &limits, wire, 0, 1 + (data[0] & 0x1f));
    ASSERT(whole.len == cut.len && memcmp(whole.text, cut.text, whole.len) == 0);
    trace_stream(&cut, &limits, wire, wire.len / 2, wire.len);
    ASSERT(whole.len == cut.len && memcmp(whole.text, cut.text, whole.len) == 0);
    check_canonical(&limits, wire);
    return 0;
}
