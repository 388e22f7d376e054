/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RESP requests: the answer does not depend on how the stream is cut, an accepted multibulk is
 * canonical (composing its arguments gives its bytes back), and an inline request means the same when
 * it is composed as a multibulk and read again.
 *
 * The first byte chooses where the stream is cut; limits are small, so that they are met.
 */
#include <stdlib.h>
#include "common/proto/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct proto_limits limits = {.args_max = 64, .line_max = 256, .bulk_max = 4096};

/* The answers to a stream, folded into a number each. */
struct trace {
    uint64_t hash;
    size_t consumed;
    enum parse_result last;
};

static void fold(struct trace *trace, const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        trace->hash = (trace->hash ^ ((const unsigned char *)data)[i]) * UINT64_C(1099511628211);
}

static size_t compose(const struct resp_request *request, char *out)
{
    size_t len = resp_compose_header(out, '*', request->argc);

    for (uint32_t i = 0; i < request->argc; i++) {
        len += resp_compose_header(out + len, '$', (int64_t)request->argv[i].len);
        if (request->argv[i].len > 0)
            memcpy(out + len, request->argv[i].data, request->argv[i].len);
        len += request->argv[i].len;
        memcpy(out + len, "\r\n", 2);
        len += 2;
    }
    return len;
}

static void check_canonical(const struct resp_request *request, struct bytes frame)
{
    size_t cap = frame.len * 8 + 64;
    char *text = malloc(cap);
    size_t len;

    ASSERT(text != NULL);
    for (uint32_t i = 0; i < request->argc; i++)
        cap -= MIN(cap, request->argv[i].len);
    len = compose(request, text);
    if (!request->is_inline) {
        ASSERT(bytes_equal(bytes_of(text, len), frame));
    } else {
        struct resp_parser parser = {0};
        struct resp_args args;
        struct resp_request again;

        resp_args_init(&args);
        ASSERT(resp_parse(&parser, &args, &limits, bytes_of(text, len), false, &again) == PARSE_OK);
        ASSERT(again.len == len && again.argc == request->argc);
        for (uint32_t i = 0; i < again.argc; i++)
            ASSERT(bytes_equal(again.argv[i], request->argv[i]));
        resp_args_deinit(&args);
    }
    free(text);
}

static void note(struct trace *trace, const struct resp_request *request, enum parse_result result)
{
    fold(trace, &result, sizeof(result));
    if (result == PARSE_BAD) {
        fold(trace, request->error, strlen(request->error));
        if (strchr(request->error, '%') != NULL)
            fold(trace, &request->error_byte, 1);
        return;
    }
    fold(trace, &request->len, sizeof(request->len));
    fold(trace, &request->argc, sizeof(request->argc));
    for (uint32_t i = 0; i < request->argc; i++) {
        fold(trace, &request->argv[i].len, sizeof(size_t));
        fold(trace, request->argv[i].data, request->argv[i].len);
    }
}

/* Reads the stream in pieces of `step` bytes. */
static struct trace read_stream(struct bytes stream, size_t step, bool want_partial)
{
    struct trace trace = {.hash = UINT64_C(14695981039346656037), .last = PARSE_MORE};
    struct resp_parser parser = {0};
    struct resp_args args;
    size_t have = 0;

    resp_args_init(&args);
    while (have < stream.len && trace.last != PARSE_BAD) {
        have = MIN(have + step, stream.len);
        while (trace.consumed < have) {
            size_t len = have - trace.consumed;
            char *copy = malloc(len);
            struct resp_request request;

            ASSERT(copy != NULL);
            memcpy(copy, stream.data + trace.consumed, len);
            trace.last = resp_parse(&parser, &args, &limits, bytes_of(copy, len), want_partial,
                                    &request);
            if (trace.last != PARSE_MORE)
                note(&trace, &request, trace.last);
            else
                ASSERT(parser.need > len);
            if (trace.last == PARSE_OK) {
                ASSERT(request.len > 0 && request.len <= len && request.argc <= limits.args_max);
                if (request.argc > 0)
                    check_canonical(&request, bytes_of(copy, request.len));
                trace.consumed += request.len;
            }
            if (args.items != NULL)
                memset(args.items, 0xa5, args.cap * sizeof(*args.items));
            free(copy);
            if (trace.last != PARSE_OK)
                break;
        }
    }
    resp_args_deinit(&args);
    return trace;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes stream;
    struct trace whole, cut;

    if (size < 2 || size > 4096)
        return 0;
    stream = bytes_of(data + 1, size - 1);
    whole = read_stream(stream, stream.len, false);
    cut = read_stream(stream, data[0] % 61u + 1, (data[0] & 0x80) != 0);
    ASSERT(whole.hash == cut.hash && whole.consumed == cut.consumed && whole.last == cut.last);
    return 0;
}
