/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mc_dump - pairs the memcache requests of one file with the replies of another, for comparison with a
 * real server:   mc_dump REQUESTS REPLIES [text|binary]
 *
 * One line for each request: what it is, " => ", what the reply was taken for. What the codec refuses
 * itself has no reply. Exit status 1 where the two files do not fit together to the last byte.
 */
#include <stdio.h>
#include "common/base/mem.h"
#include "common/proto/memcache.h"

#define FILE_SIZE_MAX (8u << 20)

static const struct proto_limits limits = PROTO_LIMITS_DEFAULT;

static bool file_read(const char *path, struct bytes *out)
{
    FILE *file = fopen(path, "rb");
    char *data = must_alloc(FILE_SIZE_MAX);

    if (file == NULL) {
        perror(path);
        mem_free(data);
        return false;
    }
    *out = bytes_of(data, fread(data, 1, FILE_SIZE_MAX, file));
    fclose(file);
    return true;
}

/* One reply off the front of *replies. */
static bool text_reply(const struct mc_request *request, struct bytes *replies)
{
    struct mc_reply_parser parser = {.expect = mc_verb_info(request->verb)->kind,
                                     .verb = (uint8_t)request->verb};
    struct mc_reply reply;
    enum parse_result result;

    do {
        result = mc_reply_scan(&parser, &limits, *replies, &reply);
        *replies = bytes_skip(*replies, reply.scanned);
        if (reply.is_item_start)
            printf("[%.*s:%llu] ", BYTES_ARG(reply.item_key),
                   (unsigned long long)reply.item_data_len);
    } while (result == PARSE_MORE && (reply.is_item_start || reply.scanned > 0));
    if (result == PARSE_OK)
        printf("%.*s%s\n", BYTES_ARG(reply.line), reply.is_error ? " !" : "");
    else
        printf("%s at: %.40s\n", result == PARSE_BAD ? parser.error : "incomplete", replies->data);
    return result == PARSE_OK;
}

static bool text_dump(struct bytes requests, struct bytes replies)
{
    struct mc_parser parser = {0};
    struct mc_keys keys;
    bool is_good = true;

    mc_keys_init(&keys);
    while (is_good && requests.len > 0) {
        struct mc_request request;

        is_good = mc_parse(&parser, &keys, &limits, requests, &request) == PARSE_OK;
        if (!is_good) {
            printf("refused, or incomplete: %s\n", request.error == NULL ? "" : request.error);
            break;
        }
        requests = bytes_skip(requests, request.len);
        if (request.status != MC_REQ_OK) {
            if (request.status == MC_REQ_ERROR)
                printf("%.*s => refused: %s\n", BYTES_ARG(request.line), request.error);
            continue;
        }
        printf("%.*s => ", BYTES_ARG(request.line));
        if (request.is_noreply || request.verb == MC_quit)
            printf("none\n");
        else
            is_good = text_reply(&request, &replies);
    }
    mc_keys_deinit(&keys);
    if (is_good && replies.len > 0)
        printf("left over: %.40s\n", replies.data);
    return is_good && replies.len == 0;
}

static bool binary_reply(struct bytes *replies, struct mc_bin_reply *head)
{
    struct mc_bin_reply_parser parser = {0};
    enum parse_result result;

    do {
        struct mc_bin_reply reply;

        result = mc_bin_reply_scan(&parser, &limits, *replies, &reply);
        if (reply.is_start)
            *head = reply;
        *replies = bytes_skip(*replies, reply.scanned);
        if (result == PARSE_MORE && reply.scanned == 0)
            break;
    } while (result == PARSE_MORE);
    if (result != PARSE_OK)
        printf("%s\n", result == PARSE_BAD ? parser.error : "incomplete");
    return result == PARSE_OK;
}

/* Replies are paired by their opaque: quiet requests may have none. */
static bool binary_dump(struct bytes requests, struct bytes replies)
{
    struct mc_bin_parser parser = {0};

    while (requests.len > 0) {
        struct mc_bin_request request;
        struct mc_bin_reply reply = {0};

        if (mc_bin_parse(&parser, &limits, requests, &request) != PARSE_OK) {
            printf("refused, or incomplete\n");
            return false;
        }
        requests = bytes_skip(requests, request.len);
        if (request.is_skip)
            continue;
        printf("%02x %.*s", request.header.opcode, BYTES_ARG(request.key));
        if (request.error_status != 0)
            printf(" refused: %s", mc_bin_status_text(request.error_status));
        while (replies.len >= MC_BIN_HEADER) {
            struct mc_bin_header next;

            mc_bin_decode(replies.data, &next);
            if (next.opaque != request.header.opaque)
                break;
            printf(" => ");
            if (!binary_reply(&replies, &reply))
                return false;
            printf("%02x %.*s %s", reply.header.opcode, BYTES_ARG(reply.key),
                   mc_bin_status_text(reply.header.status));
        }
        printf("\n");
    }
    if (replies.len > 0)
        printf("left over: %zu bytes\n", replies.len);
    return replies.len == 0;
}

int main(int argc, char **argv)
{
    struct bytes requests = BYTES_EMPTY, replies = BYTES_EMPTY;
    bool is_good;

    if (argc < 3 || !file_read(argv[1], &requests) || !file_read(argv[2], &replies)) {
        fputs("usage: mc_dump REQUESTS REPLIES [text|binary]\n", stderr);
        return 2;
    }
    is_good = argc > 3 && strcmp(argv[3], "binary") == 0 ? binary_dump(requests, replies)
                                                          : text_dump(requests, replies);
    mem_free((void *)requests.data);
    mem_free((void *)replies.data);
    return fflush(stdout) == 0 && is_good ? 0 : 1;
}
