/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands: any request's keys lie within its arguments, or there is an error text of one line; COMMAND
 * answers anything with exactly one whole value.
 *
 * The input is an inline request.
 */
#include <stdlib.h>
#include "common/command/command.h"
#include "common/command/command_docs.h"
#include "common/proto/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct text {
    char *data;
    size_t len, cap;
};

static void text_write(void *arg, const char *data, size_t len)
{
    struct text *text = arg;

    if (text->len + len > text->cap) {
        text->cap = (text->len + len) * 2;
        text->data = realloc(text->data, text->cap);
        ASSERT(text->data != NULL);
    }
    memcpy(text->data + text->len, data, len);
    text->len += len;
}

static void check_keys(const struct command *row, const struct bytes *argv, uint32_t argc)
{
    struct command_keys keys;
    uint32_t count = 0;

    if (command_keys(row, argv, argc, &keys) < 0) {
        const char *error = command_keys_error(row, argv, argc);

        ASSERT(strlen(error) > 4 && strpbrk(error, "\r\n%") == NULL);
        return;
    }
    ASSERT(keys.range_count <= COMMAND_KEY_RANGES_MAX);
    for (uint32_t i = 0; i < keys.range_count; i++) {
        ASSERT(keys.ranges[i].count > 0 && keys.ranges[i].step > 0 && keys.ranges[i].first > 0);
        ASSERT((keys.ranges[i].count - 1) * keys.ranges[i].step + keys.ranges[i].first < argc);
        count += keys.ranges[i].count;
    }
    ASSERT(count == keys.key_count);
}

static void check_reply(const struct bytes *argv, uint32_t argc, bool is_resp3)
{
    struct text text = {0};
    const struct compose_sink sink = {.write = text_write, .arg = &text};

    command_reply_compose(argv, argc, is_resp3, is_resp3 ? CMD_DENIED : 0, &sink);
    ASSERT(text.len > 0 && resp_value_len(bytes_of(text.data, text.len)) == text.len);
    free(text.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct proto_limits limits = PROTO_LIMITS_DEFAULT;
    struct resp_parser parser = {0};
    struct resp_request request;
    struct resp_args args;
    const struct command *row;

    if (size == 0 || size > 1024)
        return 0;
    resp_args_init(&args);
    if (resp_parse(&parser, &args, &limits, bytes_of(data, size), false, &request) == PARSE_OK &&
        request.argc > 0) {
        row = command_find(request.argv[0]);
        if (row != NULL) {
            ASSERT(row->parent == COMMAND_none);
            check_keys(row, request.argv, request.argc);
            if (request.argc > 1) {
                const struct command *sub = command_find_sub(row, request.argv[1]);

                if (sub != NULL)
                    check_keys(sub, request.argv, request.argc);
            }
        }
        if (row != NULL && row->id == COMMAND_command && request.argc > 2) {
            check_reply(request.argv, request.argc, false);
            check_reply(request.argv, request.argc, true);
        }
    }
    resp_args_deinit(&args);
    return 0;
}
