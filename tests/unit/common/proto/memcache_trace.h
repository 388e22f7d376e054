/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcache_trace.h - a memcache request stream as a text of what was understood, for tests.
 *
 * One line an event: the canonical command line of an accepted request ("~" before it when the bytes
 * were not canonical, "<data>" behind it when it has a block), the text of an error, with " X" where
 * the connection closes. Every parse sees a heap block of exactly the bytes that are there, so that
 * the address sanitizer finds a read past them.
 */
#pragma once
#include "common/proto/memcache.h"
#include <stdio.h>
#include <stdlib.h>

struct trace {
    char text[65536];
    size_t len;
};

static void trace_add(struct trace *trace, const char *text, size_t len)
{
    if (len > sizeof(trace->text) - 1 - trace->len)
        len = sizeof(trace->text) - 1 - trace->len;
    if (len > 0)
        memcpy(trace->text + trace->len, text, len);
    trace->len += len;
    trace->text[trace->len] = '\0';
}

static void trace_request(struct trace *trace, const struct mc_request *request)
{
    static char line[200000];
    size_t len = mc_compose_line(request, NULL, 0, line, sizeof(line));

    ASSERT(len >= 2);
    if (!request->is_canonical)
        trace_add(trace, "~", 1);
    else
        ASSERT(len == request->line.len + 2 && memcmp(line, request->line.data, len - 2) == 0);
    trace_add(trace, line, len - 2);
    if (mc_verb_info(request->verb)->kind == MC_KIND_STORE || request->verb == MC_ms) {
        trace_add(trace, "<", 1);
        trace_add(trace, request->data.data, request->data.len);
        trace_add(trace, ">", 1);
    }
    trace_add(trace, "\n", 1);
}

/* One step of a session over the `len` bytes at data; returns how many to drop. 0: more are needed, or
 * the connection is closed (*is_closed). */
static size_t trace_step(struct trace *trace, struct mc_parser *parser, struct mc_keys *keys,
                         const struct proto_limits *limits, const char *data, size_t len,
                         bool *is_closed)
{
    char *copy = malloc(len);
    struct mc_request request;
    enum parse_result result;
    size_t used = 0;

    ASSERT(copy != NULL);
    memcpy(copy, data, len);
    result = mc_parse(parser, keys, limits, bytes_of(copy, len), &request);
    switch (result) {
    case PARSE_OK:
        ASSERT(request.len > 0 && request.len <= len);
        used = request.len;
        if (request.status == MC_REQ_OK) {
            trace_request(trace, &request);
        } else if (request.status == MC_REQ_ERROR) {
            trace_add(trace, request.error, strlen(request.error));
            trace_add(trace, "\n", 1);
        }
        break;
    case PARSE_MORE:
        ASSERT(parser->need == 0 || parser->need > len);
        ASSERT(request.partial_data_len == 0 || parser->need >= request.partial_data_len);
        break;
    case PARSE_BAD:
        trace_add(trace, request.error, strlen(request.error));
        trace_add(trace, " X\n", 3);
        *is_closed = true;
        break;
    }
    free(copy);
    return used;
}

/* Gives the wire's bytes in pieces: up to `cut`, then `step` bytes at a time. */
static void trace_stream(struct trace *trace, const struct proto_limits *limits, struct bytes wire,
                         size_t cut, size_t step)
{
    struct mc_parser parser = {0};
    struct mc_keys keys;
    size_t start = 0, have = cut;
    bool is_closed = false;

    trace->len = 0;
    trace->text[0] = '\0';
    mc_keys_init(&keys);
    while (!is_closed) {
        size_t used = 0;

        if (have > start && have - start >= parser.need)
            used = trace_step(trace, &parser, &keys, limits, wire.data + start, have - start,
                              &is_closed);
        start += used;
        if (used == 0 || start == have) {
            if (have == wire.len)
                break;
            have = MIN(wire.len, have + step);
        }
    }
    mc_keys_deinit(&keys);
}
