/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command_dump - answers RESP requests from standard input out of the command table, for comparison
 * with a real server. COMMAND ... is answered as the table has it (as RESP3 with the argument "3");
 * any other request with the array of its keys, or with the error that the proxy would answer.
 */
#include <stdio.h>
#include "common/base/mem.h"
#include "common/command/command.h"
#include "common/command/command_docs.h"
#include "common/proto/resp.h"

static void write_out(void *arg, const char *data, size_t len)
{
    (void)arg;
    if (fwrite(data, 1, len, stdout) != len)
        perror("command_dump");
}

static void answer_keys(const struct resp_request *request)
{
    const struct command *row = command_find(request->argv[0]);
    struct command_keys keys;

    if (row != NULL && (row->flags & CMD_HAS_SUBCOMMANDS) && request->argc > 1)
        row = command_find_sub(row, request->argv[1]);
    if (row == NULL) {
        fputs("-ERR unknown command\r\n", stdout);
        return;
    }
    if (!command_arity_fits(row, request->argc)) {
        printf("-ERR wrong number of arguments for '%s' command\r\n", row->name);
        return;
    }
    if (command_keys(row, request->argv, request->argc, &keys) < 0) {
        printf("-%s\r\n", command_keys_error(row, request->argv, request->argc));
        return;
    }
    printf("*%u\r\n", keys.key_count);
    for (uint32_t i = 0; i < keys.range_count; i++) {
        for (uint32_t j = 0; j < keys.ranges[i].count; j++) {
            struct bytes key = request->argv[keys.ranges[i].first + j * keys.ranges[i].step];

            printf("$%zu\r\n", key.len);
            write_out(NULL, key.data, key.len);
            fputs("\r\n", stdout);
        }
    }
}

int main(int argc, char **argv)
{
    const struct proto_limits limits = PROTO_LIMITS_DEFAULT;
    const struct compose_sink sink = {.write = write_out};
    bool is_resp3 = argc > 1 && argv[1][0] == '3';
    struct resp_args args;
    size_t cap = 1u << 20;
    char *data = must_alloc(cap);
    size_t len = fread(data, 1, cap, stdin);
    struct bytes left = bytes_of(data, len);

    resp_args_init(&args);
    while (left.len > 0) {
        struct resp_parser parser = {0};
        struct resp_request request;

        if (resp_parse(&parser, &args, &limits, left, false, &request) != PARSE_OK ||
            request.argc == 0) {
            fputs("command_dump: not whole requests\n", stderr);
            return 1;
        }
        if (bytes_equal_nocase(request.argv[0], BYTES("command")))
            command_reply_compose(request.argv, request.argc, is_resp3, 0, &sink);
        else
            answer_keys(&request);
        left = bytes_skip(left, request.len);
    }
    resp_args_deinit(&args);
    mem_free(data);
    return fflush(stdout) == 0 ? 0 : 1;
}
