/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Meta commands (m13): flags, opaque tokens, base64 keys, quiet ones. The texts are memcached 1.6.18's.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/common/proto/memcache_trace.h"

struct vector {
    const char *wire;
    const char *expected;
};

static const struct proto_limits limits = {
    .args_max = 1024, .line_max = 65536, .bulk_max = 1 << 20, .value_max = 1 << 20, .key_max = 250};

static struct trace trace;

/* Cut in two at each byte. */
static void check_all(const struct vector *vectors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct bytes wire = bytes_of_string(vectors[i].wire);

        for (size_t cut = 0; cut <= wire.len; cut++) {
            trace_stream(&trace, &limits, wire, cut, wire.len);
            if (strcmp(trace.text, vectors[i].expected) != 0)
                print_error("cut at %zu of: %s\n", cut, vectors[i].wire);
            assert_string_equal(trace.text, vectors[i].expected);
        }
    }
}
#define CHECK_ALL(vectors) check_all((vectors), ARRAY_COUNT(vectors))

static void test_good_commands(void **state)
{
    static const struct vector vectors[] = {
        {"mg a\r\n", "mg a\n"},
        {"mg a v\r\n", "mg a v\n"},
        {"mg a s v f t c h l u k q Oabc N30 R10 T-1\r\n",
         "mg a s v f t c h l u k q Oabc N30 R10 T-1\n"},
        {"mg Zm9v b v k\r\n", "mg Zm9v b v k\n"},
        {"ms a 9 T90 F5 I C10 MS c k Oxyz\r\nflush_all\r\n",
         "ms a 9 T90 F5 I C10 MS c k Oxyz<flush_all>\n"},
        {"ms a 0\r\n\r\n", "ms a 0<>\n"},
        {"ms a 4 MA q\r\n\r\n\r\n\r\n", "ms a 4 MA q<\r\n\r\n>\n"},
        {"ms a 2 Ma\r\nhi\r\n", "ms a 2 Ma<hi>\n"},
        {"md a\r\n", "md a\n"},
        {"md a q I T30 C55 Oa k\r\n", "md a q I T30 C55 Oa k\n"},
        {"ma a\r\n", "ma a\n"},
        {"ma a N0 J13 D5 MI t c v k q\r\n", "ma a N0 J13 D5 MI t c v k q\n"},
        {"ma a M-\r\n", "ma a M-\n"},
        {"mn\r\n", "mn\n"},
        {"mn\n", "~mn\n"},
        {"me a\r\n", "me a\n"},
        {"me Zm9v b\r\n", "me Zm9v b\n"},
        {"mg a O1234567890123456789012345678901\r\n", "mg a O1234567890123456789012345678901\n"},
        {"mg a P1 Lx\r\n", "mg a P1 Lx\n"},
        {"md a x E5\r\n", "md a x E5\n"},
        {"mg a v\r\nmg b v q\r\nmg c v q\r\nmn\r\n", "mg a v\nmg b v q\nmg c v q\nmn\n"},
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_bad_commands(void **state)
{
    static const struct vector vectors[] = {
        {"mg\r\n", "ERROR\n"},
        {"md \r\n", "ERROR\n"},
        {"ma\r\n", "ERROR\n"},
        {"me\r\n", "CLIENT_ERROR bad command line format\n"},
        {"me a b\t\r\n", "CLIENT_ERROR bad command line format\n"},
        {"me a== b\r\n", "CLIENT_ERROR bad command line format\n"},
        {"mg a v v\r\n", "CLIENT_ERROR duplicate flag\n"},
        {"mg a \xe9\r\n", "CLIENT_ERROR duplicate flag\n"}, /* memcached's words */
        {"mg a !\r\n", "CLIENT_ERROR invalid flag\n"},
        {"mg a v z\r\n", "CLIENT_ERROR invalid flag\n"},
        {"mg a Oa\tb\r\n", "CLIENT_ERROR invalid flag\n"},
        {"mg a Oa\rb\r\n", "CLIENT_ERROR invalid flag\n"},
        {"mg a Tx\r\n", "CLIENT_ERROR bad token in command line format\n"},
        {"mg a T\r\n", "CLIENT_ERROR bad token in command line format\n"},
        {"mg a N99999999999\r\n", "CLIENT_ERROR bad token in command line format\n"},
        {"mg a R1x q\r\n", "CLIENT_ERROR bad token in command line format\n"},
        {"mg a O12345678901234567890123456789012\r\n", "CLIENT_ERROR opaque token too long\n"},
        {"md a O12345678901234567890123456789012\r\n", "CLIENT_ERROR opaque token too long\n"},
        {"mg a b v\r\n", "CLIENT_ERROR error decoding key\n"},
        {"mg Zm9 b v\r\n", "CLIENT_ERROR error decoding key\n"},
        {"mg Zm9v= b v\r\n", "CLIENT_ERROR error decoding key\n"},
        {"mg Zm!v b v\r\n", "CLIENT_ERROR error decoding key\n"},
        {"mg =m9v b v\r\n", "CLIENT_ERROR error decoding key\n"},
        {"mg Z=== b v\r\n", "CLIENT_ERROR error decoding key\n"},
        {"mg ==== b v\r\n", "CLIENT_ERROR error decoding key\n"},
        {"mg Zm=v b v\r\n", "CLIENT_ERROR error decoding key\n"},
        {"mg Zh== b v\r\n", "CLIENT_ERROR error decoding key\n"}, /* stray bits */
        {"mg Zm9= b v\r\n", "CLIENT_ERROR error decoding key\n"},
        {"md Zm9 b\r\n", "CLIENT_ERROR invalid or duplicate flag\n"},
        {"md a q q\r\n", "CLIENT_ERROR invalid or duplicate flag\n"},
        {"ma a Dx\r\n", "CLIENT_ERROR invalid or duplicate flag\n"},
        {"ma a MX\r\n", "CLIENT_ERROR invalid mode for ma M token\n"},
        {"ma a M\r\n", "CLIENT_ERROR invalid or duplicate flag\n"},
        {"ms a 9 MX\r\nflush_all\r\nmn\r\n", "CLIENT_ERROR invalid mode for ms M token\nmn\n"},
        {"ms a 9 MSS\r\nflush_all\r\nmn\r\n", "CLIENT_ERROR incorrect length for M token\nmn\n"},
        {"ms a 9 Fx\r\nflush_all\r\nmn\r\n", "CLIENT_ERROR bad command line format\nmn\n"},
        {"ms a 9 Cx\r\nflush_all\r\nmn\r\n",
         "CLIENT_ERROR bad token in command line format\nmn\n"},
        {"ms a 9 T0 T0 q\r\nflush_all\r\nmn\r\n", "CLIENT_ERROR duplicate flag\nmn\n"},
        {"ms a 9 w\r\nflush_all\r\nmn\r\n", "CLIENT_ERROR invalid flag\nmn\n"},
        {"ms Zm9 9 b\r\nflush_all\r\nmn\r\n", "CLIENT_ERROR error decoding key\nmn\n"},
        {"ms a 9 O12345678901234567890123456789012\r\nflush_all\r\nmn\r\n",
         "CLIENT_ERROR opaque token too long\nmn\n"},
        {"mg a b c d e f g h i j k l m n o p q r s t u\r\n",
         "CLIENT_ERROR options flags are too long\n"},
        {"md a b c d e f g h i j k l m n o p q r s t u v w x y z\r\n",
         "CLIENT_ERROR options flags too long\n"},
        {"ms a 2 b c d e f g h i j k l m n o p q r s t u\r\nhi\r\nmn\r\n",
         "CLIENT_ERROR options flags too long\nmn\n"},
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void parse(const char *line, struct mc_keys *keys, struct mc_request *request)
{
    struct mc_parser parser = {0};

    assert_int_equal(mc_parse(&parser, keys, &limits, bytes_of_string(line), request), PARSE_OK);
    assert_int_equal(request->status, MC_REQ_OK);
}

static void test_fields(void **state)
{
    struct mc_keys keys;
    struct mc_request request;

    (void)state;
    mc_keys_init(&keys);
    parse("ms Zm9vIGJhcg== 3 b T-60 F4294967295 C18446744073709551615 q k Ox1\r\nabc\r\n", &keys,
          &request);
    assert_true(request.is_key_base64 && request.is_quiet && request.returns_key);
    assert_true(request.is_write && request.is_canonical && !request.is_noreply);
    assert_true(bytes_equal(request.keys[0], BYTES("Zm9vIGJhcg==")));
    assert_true(bytes_equal(request.route_key, BYTES("foo bar")));
    assert_true(bytes_equal(request.opaque, BYTES("x1")));
    assert_int_equal(request.exptime, -60);
    assert_int_equal(request.flags, UINT32_MAX);
    assert_true(request.cas == UINT64_MAX);
    parse("ma n D7\r\n", &keys, &request);
    assert_int_equal(request.delta, 7);
    parse("ma n\r\n", &keys, &request);
    assert_int_equal(request.delta, 1);
    /* A get that changes something is a write: it is not sent twice. */
    parse("mg n v\r\n", &keys, &request);
    assert_false(request.is_write);
    parse("mg n v T5\r\n", &keys, &request);
    assert_true(request.is_write);
    parse("mg AAECAw== b\r\n", &keys, &request);
    assert_true(bytes_equal(request.route_key, BYTES("\0\1\2\3")));
    parse("mg //79/A== b\r\n", &keys, &request);
    assert_true(bytes_equal(request.route_key, BYTES("\xff\xfe\xfd\xfc")));
    mc_keys_deinit(&keys);
}

static void test_what_quiet_hides(void **state)
{
    (void)state;
    assert_true(mc_meta_is_silenced(MC_mg, BYTES("EN")));
    assert_true(mc_meta_is_silenced(MC_mg, BYTES("EN Oabc")));
    assert_false(mc_meta_is_silenced(MC_mg, BYTES("HD")));
    assert_true(mc_meta_is_silenced(MC_ms, BYTES("HD c5")));
    assert_false(mc_meta_is_silenced(MC_ms, BYTES("NS")));
    assert_true(mc_meta_is_silenced(MC_md, BYTES("HD")));
    assert_false(mc_meta_is_silenced(MC_md, BYTES("NF")));
    assert_true(mc_meta_is_silenced(MC_ma, BYTES("HD")));
    assert_false(mc_meta_is_silenced(MC_mg, BYTES("END")));
    assert_false(mc_meta_is_silenced(MC_mg, BYTES("E")));
    assert_false(mc_meta_is_silenced(MC_mn, BYTES("MN")));
    assert_false(mc_meta_is_silenced(MC_ms, BYTES("CLIENT_ERROR bad data chunk")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_commands),
        cmocka_unit_test(test_bad_commands),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_what_quiet_hides),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
