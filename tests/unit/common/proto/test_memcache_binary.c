/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The binary protocol: every opcode of memcached 1.6 with the body it must have, and without; frames cut
 * at every byte; headers that contradict themselves.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "common/proto/memcache.h"
#include <stdlib.h>

static const struct proto_limits limits = {
    .args_max = 1024, .line_max = 65536, .bulk_max = 1 << 20, .value_max = 1 << 20, .key_max = 250};

/* A frame with parts of these lengths: extras 'e', key 'k', and "\r\nflush_all\r\n" as the value. */
static struct bytes frame(uint8_t opcode, size_t extras_len, size_t key_len, size_t value_len)
{
    static char out[8192];
    static const char value[] = "\r\nflush_all\r\n";
    struct mc_bin_header header = {.magic = MC_BIN_REQUEST,
                                   .opcode = opcode,
                                   .extras_len = (uint8_t)extras_len,
                                   .key_len = (uint16_t)key_len,
                                   .body_len = (uint32_t)(extras_len + key_len + value_len),
                                   .opaque = 0xdeadbeef,
                                   .cas = 0x0102030405060708};
    size_t off = MC_BIN_HEADER;

    mc_bin_encode(&header, out);
    memset(out + off, 'e', extras_len);
    memset(out + off + extras_len, 'k', key_len);
    for (size_t i = 0; i < value_len; i++)
        out[off + extras_len + key_len + i] = value[i % (sizeof(value) - 1)];
    return bytes_of(out, off + extras_len + key_len + value_len);
}

/* Parses an exact copy on the heap. */
static enum parse_result parse_copy(struct mc_bin_parser *parser, struct bytes data,
                                    struct mc_bin_request *out)
{
    char *copy = malloc(data.len);
    enum parse_result result;

    memcpy(copy, data.data, data.len);
    result = mc_bin_parse(parser, &limits, bytes_of(copy, data.len), out);
    /* Views by their offsets: the copy goes. */
    if (out->key.data != NULL)
        out->key.data = data.data + (out->key.data - copy);
    if (out->extras.data != NULL)
        out->extras.data = data.data + (out->extras.data - copy);
    if (out->value.data != NULL)
        out->value.data = data.data + (out->value.data - copy);
    free(copy);
    return result;
}

static void expect_good(uint8_t opcode, enum mc_verb verb, bool is_quiet, size_t extras_len,
                        size_t key_len, size_t value_len)
{
    struct bytes wire = frame(opcode, extras_len, key_len, value_len);
    struct mc_bin_request request;

    for (size_t cut = 1; cut < wire.len; cut++) {
        struct mc_bin_parser parser = {0};

        assert_int_equal(parse_copy(&parser, bytes_first(wire, cut), &request), PARSE_MORE);
        assert_true(parser.need > cut && parser.need <= wire.len);
        assert_int_equal(request.partial_len,
                         cut < MC_BIN_HEADER + extras_len + key_len ? 0 : wire.len);
        assert_int_equal(parse_copy(&parser, wire, &request), PARSE_OK);
        assert_int_equal(request.error_status, 0);
        assert_int_equal(request.len, wire.len);
        assert_int_equal(request.verb->id, verb);
        assert_int_equal(request.is_quiet, is_quiet);
        assert_int_equal(request.header.opaque, 0xdeadbeef);
        assert_true(request.header.cas == 0x0102030405060708);
        assert_int_equal(request.extras.len, extras_len);
        assert_int_equal(request.key.len, key_len);
        assert_int_equal(request.value.len, value_len);
        assert_ptr_equal(request.key.data, wire.data + MC_BIN_HEADER + extras_len);
    }
}

/* The answer comes with the header; the body is dropped however it is cut; the next frame is read. */
static void expect_refused(uint8_t opcode, size_t extras_len, size_t key_len, size_t value_len,
                           uint16_t status)
{
    for (size_t step = 1; step < 40; step += 6) {
        struct bytes wire = frame(opcode, extras_len, key_len, value_len);
        struct mc_bin_parser parser = {0};
        struct mc_bin_request request;

        assert_int_equal(parse_copy(&parser, bytes_first(wire, MC_BIN_HEADER), &request), PARSE_OK);
        assert_int_equal(request.error_status, status);
        assert_int_equal(request.len, MC_BIN_HEADER);
        assert_false(request.is_skip);
        wire = bytes_skip(wire, MC_BIN_HEADER);
        while (wire.len > 0) {
            assert_int_equal(parse_copy(&parser, bytes_first(wire, step), &request), PARSE_OK);
            assert_true(request.is_skip);
            assert_int_equal(request.error_status, 0);
            wire = bytes_skip(wire, request.len);
        }
        assert_int_equal(parse_copy(&parser, frame(0x0a, 0, 0, 0), &request), PARSE_OK);
        assert_false(request.is_skip);
        assert_int_equal(request.verb->id, MC_noop);
    }
}

static void test_every_opcode(void **state)
{
    static const struct {
        uint8_t opcode, verb, is_quiet, extras_len, key_len, value_len;
    } rows[] = {
        {0x00, MC_get, 0, 0, 5, 0},       {0x09, MC_get, 1, 0, 250, 0},
        {0x0c, MC_getk, 0, 0, 5, 0},      {0x0d, MC_getk, 1, 0, 5, 0},
        {0x01, MC_set, 0, 8, 5, 13},      {0x11, MC_set, 1, 8, 5, 13},
        {0x02, MC_add, 0, 8, 5, 0},       {0x12, MC_add, 1, 8, 5, 13},
        {0x03, MC_replace, 0, 8, 5, 13},  {0x13, MC_replace, 1, 8, 5, 13},
        {0x04, MC_delete, 0, 0, 5, 0},    {0x14, MC_delete, 1, 0, 5, 0},
        {0x05, MC_incr, 0, 20, 5, 0},     {0x15, MC_incr, 1, 20, 5, 0},
        {0x06, MC_decr, 0, 20, 5, 0},     {0x16, MC_decr, 1, 20, 5, 0},
        {0x07, MC_quit, 0, 0, 0, 0},      {0x17, MC_quit, 1, 0, 0, 0},
        {0x08, MC_flush_all, 0, 0, 0, 0}, {0x18, MC_flush_all, 1, 4, 0, 0},
        {0x0a, MC_noop, 0, 0, 0, 0},      {0x0b, MC_version, 0, 0, 0, 0},
        {0x0e, MC_append, 0, 0, 5, 13},   {0x19, MC_append, 1, 0, 5, 13},
        {0x0f, MC_prepend, 0, 0, 5, 13},  {0x1a, MC_prepend, 1, 0, 5, 13},
        {0x10, MC_stats, 0, 0, 0, 0},     {0x10, MC_stats, 0, 0, 5, 0},
        {0x1c, MC_touch, 0, 4, 5, 0},     {0x1d, MC_gat, 0, 4, 5, 0},
        {0x1e, MC_gat, 1, 4, 5, 0},       {0x23, MC_gatk, 0, 4, 5, 0},
        {0x24, MC_gatk, 1, 4, 5, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        size_t wrong_extras = rows[i].extras_len == 0 ? 8 : rows[i].extras_len - 1u;

        expect_good(rows[i].opcode, (enum mc_verb)rows[i].verb, rows[i].is_quiet,
                    rows[i].extras_len, rows[i].key_len, rows[i].value_len);
        expect_refused(rows[i].opcode, wrong_extras, rows[i].key_len, rows[i].value_len,
                       MC_BIN_INVALID);
        expect_refused(rows[i].opcode, rows[i].extras_len, 251, 0, MC_BIN_INVALID);
        if (rows[i].verb != MC_stats)
            expect_refused(rows[i].opcode, rows[i].extras_len, rows[i].key_len == 0 ? 5 : 0,
                           rows[i].value_len, MC_BIN_INVALID);
        if (rows[i].value_len == 0 && rows[i].verb != MC_add)
            expect_refused(rows[i].opcode, rows[i].extras_len, rows[i].key_len, 13,
                           MC_BIN_INVALID);
    }
}

static void test_unknown_opcodes(void **state)
{
    static const uint8_t opcodes[] = {0x1b, 0x1f, 0x20, 0x21, 0x22, 0x25, 0x30, 0x3c, 0x80, 0xff};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(opcodes); i++) {
        expect_refused(opcodes[i], 0, 5, 13, MC_BIN_UNKNOWN_COMMAND);
        expect_refused(opcodes[i], 0, 0, 0, MC_BIN_UNKNOWN_COMMAND);
    }
}

static void test_broken_headers_close(void **state)
{
    struct mc_bin_header header = {.magic = MC_BIN_REQUEST, .opcode = 0x01, .extras_len = 8,
                                   .key_len = 5, .body_len = 12};
    struct mc_bin_parser parser = {0};
    struct mc_bin_request request;
    char wire[MC_BIN_HEADER];

    (void)state;
    mc_bin_encode(&header, wire);
    assert_int_equal(parse_copy(&parser, bytes_of(wire, sizeof(wire)), &request), PARSE_BAD);
    assert_int_equal(request.error_status, MC_BIN_UNKNOWN_COMMAND);
    for (uint64_t body = 0x80000000; body <= UINT32_MAX; body += 0x7fffffff) {
        header.body_len = (uint32_t)body;
        mc_bin_encode(&header, wire);
        assert_int_equal(parse_copy(&parser, bytes_of(wire, sizeof(wire)), &request), PARSE_BAD);
        assert_int_equal(request.error_status, MC_BIN_TOO_LARGE);
    }
    wire[0] = (char)MC_BIN_RESPONSE;
    assert_int_equal(parse_copy(&parser, bytes_of(wire, sizeof(wire)), &request), PARSE_BAD);
    assert_int_equal(request.error_status, 0);
    assert_int_equal(parse_copy(&parser, BYTES("g"), &request), PARSE_BAD);
}

static void test_large_value_is_dropped_without_buffering(void **state)
{
    struct mc_bin_header header = {.magic = MC_BIN_REQUEST, .opcode = 0x01, .extras_len = 8,
                                   .key_len = 5, .body_len = 0x7fffffff, .opaque = 7};
    struct mc_bin_parser parser = {0};
    struct mc_bin_request request;
    static char block[65536];
    char wire[MC_BIN_HEADER + 13] = {0}, answer[MC_BIN_STATUS_REPLY_MAX];
    uint64_t left = header.body_len - 13;

    (void)state;
    mc_bin_encode(&header, wire);
    memcpy(wire + MC_BIN_HEADER + 8, "whose", 5);
    for (size_t len = MC_BIN_HEADER; len < sizeof(wire); len++) {
        assert_int_equal(parse_copy(&parser, bytes_of(wire, len), &request), PARSE_MORE);
        assert_int_equal(parser.need, sizeof(wire));
        assert_int_equal(request.error_status, 0);
    }
    assert_int_equal(mc_bin_parse(&parser, &limits, bytes_of(wire, sizeof(wire)), &request), PARSE_OK);
    assert_int_equal(request.error_status, MC_BIN_TOO_LARGE);
    assert_int_equal(request.len, sizeof(wire));
    assert_true(bytes_equal(request.key, BYTES("whose")));
    assert_int_equal(mc_bin_compose_status(&request.header, request.error_status, answer), 34);
    assert_memory_equal(answer, "\x81\1\0\0\0\0\0\3\0\0\0\x0a\0\0\0\7\0\0\0\0\0\0\0\0Too large.",
                        34);
    while (left > 0) {
        size_t len = MIN(left, sizeof(block));

        assert_int_equal(mc_bin_parse(&parser, &limits, bytes_of(block, len), &request), PARSE_OK);
        assert_true(request.is_skip);
        assert_int_equal(request.len, len);
        left -= len;
    }
    assert_int_equal(parse_copy(&parser, frame(0x0a, 0, 0, 0), &request), PARSE_OK);
    assert_false(request.is_skip);
}

static void test_every_status_has_a_text(void **state)
{
    char out[MC_BIN_STATUS_REPLY_MAX];
    struct mc_bin_header request = {.magic = MC_BIN_REQUEST, .opcode = 0x05}, answer;

    (void)state;
    for (uint32_t status = 0; status < 0x100; status++) {
        size_t len = mc_bin_compose_status(&request, (uint16_t)status, out);

        mc_bin_decode(out, &answer);
        assert_int_equal(answer.magic, MC_BIN_RESPONSE);
        assert_int_equal(answer.status, status);
        assert_int_equal(answer.body_len, len - MC_BIN_HEADER);
    }
    assert_string_equal(mc_bin_status_text(MC_BIN_NOT_FOUND), "Not found");
    assert_string_equal(mc_bin_status_text(MC_BIN_EXISTS), "Data exists for key.");
}

/* A reply in pieces: head (extras and key), then the value as it comes. */
static void test_reply_at_every_cut(void **state)
{
    struct bytes wire = frame(0x0c, 4, 5, 13);
    struct mc_bin_reply reply;

    (void)state;
    ((char *)wire.data)[0] = (char)MC_BIN_RESPONSE;
    for (size_t cut = 0; cut <= wire.len; cut++) {
        struct mc_bin_reply_parser parser = {0};
        size_t used = 0, starts = 0, have = cut;
        enum parse_result result;

        do {
            char *copy = malloc(have - used);

            memcpy(copy, wire.data + used, have - used);
            result = mc_bin_reply_scan(&parser, &limits, bytes_of(copy, have - used), &reply);
            used += reply.scanned;
            if (reply.is_start) {
                starts++;
                assert_int_equal(reply.scanned, MC_BIN_HEADER + 9);
                assert_int_equal(reply.key.len, 5);
                assert_memory_equal(reply.key.data, "kkkkk", 5);
                assert_int_equal(reply.extras.len, 4);
            } else {
                have = wire.len;
            }
            free(copy);
        } while (result == PARSE_MORE);
        assert_int_equal(result, PARSE_OK);
        assert_int_equal(starts, 1);
        assert_int_equal(used, wire.len);
    }
}

static void test_hostile_replies(void **state)
{
    struct mc_bin_header good = {.magic = MC_BIN_RESPONSE, .opcode = 0x0c, .extras_len = 4,
                                 .key_len = 5, .body_len = 9},
                         header;
    struct mc_bin_reply reply;
    char wire[MC_BIN_HEADER];

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        struct mc_bin_reply_parser parser = {0};
        static const enum parse_result results[] = {PARSE_MORE, PARSE_BAD, PARSE_BAD,
                                                    PARSE_BAD,  PARSE_BAD, PARSE_BAD};

        header = good;
        if (i == 1)
            header.magic = MC_BIN_REQUEST;
        else if (i == 2)
            header.body_len = 8;
        else if (i == 3)
            header.body_len = 0x7fffffff;
        else if (i == 4)
            header.body_len = 0xffffffff;
        else if (i == 5)
            header.key_len = 251, header.body_len = 1000;
        mc_bin_encode(&header, wire);
        assert_int_equal(
            mc_bin_reply_scan(&parser, &limits, bytes_of(wire, sizeof(wire)), &reply), results[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_opcode),
        cmocka_unit_test(test_unknown_opcodes),
        cmocka_unit_test(test_broken_headers_close),
        cmocka_unit_test(test_large_value_is_dropped_without_buffering),
        cmocka_unit_test(test_every_status_has_a_text),
        cmocka_unit_test(test_reply_at_every_cut),
        cmocka_unit_test(test_hostile_replies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
