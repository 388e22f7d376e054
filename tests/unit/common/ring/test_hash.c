/* SPDX-License-Identifier: Apache-2.0 */
/* The hashes against twemproxy's own results, and against published vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "common/ring/hash.h"

/* What twemproxy 0.5's functions return on x86-64, in the order of HASH_TABLE. The keys have tails
 * of every length, more than one block, and bytes whose sign matters. */
/* clang-format off */
static const struct {
    struct bytes key;
    uint32_t hash[HASH_KIND_COUNT];
} vectors[] = {
    {BYTES("a"),
     {0xca2e9442u, 0xb975c10cu, 0x00007c87u, 0x000068b7u, 0xe8b7be43u, 0x8601b7beu,
      0x8601ec8cu, 0x050c5d7eu, 0xe40c292cu, 0x93642e87u, 0x4b41757cu, 0xe0a38690u}},
    {BYTES("foo"),
     {0x238678ddu, 0xdb18bdacu, 0x0c3caf96u, 0x00000c73u, 0x8c736521u, 0x6ba13533u,
      0xfed9d577u, 0x408f5e13u, 0xa9f37ed7u, 0x76d4d427u, 0xc4e0338fu, 0x99f84f99u}},
    {BYTES("user:1000"),
     {0xb563b74fu, 0x2e986207u, 0xe1644671u, 0x00001f74u, 0x9f7417e3u, 0xd39e3d21u,
      0xae7b4289u, 0xa6affca1u, 0x507c1d89u, 0xddec1969u, 0x8e24aec7u, 0x048c4d84u}},
    {BYTES("0123456789ab"),
     {0xf6361f26u, 0xbf520cb6u, 0x9c66f284u, 0x00000623u, 0x0623c932u, 0xa4cfc71du,
      0x43b49151u, 0x1963825du, 0x2d4c5d51u, 0xabe296d7u, 0x0d4e2821u, 0x6d223753u}},
    {BYTES("0123456789abc"),
     {0xcae77770u, 0x71d9312du, 0x66f21798u, 0x00004e68u, 0xce68ad26u, 0x0d0f5624u,
      0x0bd2b7f6u, 0x54a63804u, 0x8136b5b6u, 0x9aefedfau, 0xc23faf3eu, 0x37f93eadu}},
    {BYTES("caf\xc3\xa9"),
     {0xd99c709eu, 0xe47f1107u, 0xf6269667u, 0x000018adu, 0x98ad42b5u, 0x8a06fef1u,
      0xcef6bb89u, 0xd682f171u, 0x7572c049u, 0xde3f8855u, 0xda11981fu, 0xcb6225adu}},
    {BYTES("\xd0\xba\xd0\xbb\xd1\x8e\xd1\x87"),
     {0xfbca080au, 0x667b65c3u, 0x3c55683fu, 0x00000cafu, 0x0caf961au, 0x64997a19u,
      0xa9ad7881u, 0x31b3eff9u, 0xafd617e1u, 0xfa8a713cu, 0x9ac6d2afu, 0x4b2c236fu}},
    {BYTES("the quick brown fox jumps over the lazy dog, and then some more of it follows"),
     {0xe6aff8f7u, 0x45d50175u, 0xdbf6a72du, 0x00004627u, 0x4627b8a2u, 0xc15d66e1u,
      0xa97542d5u, 0xb60f9501u, 0x7ea3cdb5u, 0xd893034bu, 0x69416685u, 0x9a1c24d4u}},
    {BYTES("\xff\xfe\x80"),
     {0x54cc64c2u, 0xdaeea645u, 0x1e0d6e25u, 0x0000265eu, 0x265ea2ecu, 0x93edf0fau,
      0x8f0e6190u, 0x914c917au, 0x626cb2b0u, 0xb2876529u, 0xa3e1075du, 0x201bd2b5u}},
};
/* clang-format on */

static void test_every_hash_is_twemproxys(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(vectors); i++) {
        for (unsigned kind = 0; kind < HASH_KIND_COUNT; kind++) {
            uint32_t hash = hash_key((enum hash_kind)kind, vectors[i].key);

            if (hash != vectors[i].hash[kind])
                fail_msg("%s of \"%.*s\" is %08x, not %08x", hash_name((enum hash_kind)kind),
                         BYTES_ARG(vectors[i].key), hash, vectors[i].hash[kind]);
        }
    }
}

/* The heap's alignment differs from run to run; the result must not. */
static void test_alignment_does_not_matter(void **state)
{
    char room[64] __attribute__((aligned(16)));
    const struct bytes key = BYTES("caf\xc3\xa9:0123456789:\x80");

    (void)state;
    for (unsigned kind = 0; kind < HASH_KIND_COUNT; kind++) {
        for (size_t off = 0; off < 16; off++) {
            memcpy(room + off, key.data, key.len);
            assert_int_equal(hash_key((enum hash_kind)kind, bytes_of(room + off, key.len)),
                             hash_key((enum hash_kind)kind, key));
        }
    }
}

static void test_names_go_both_ways(void **state)
{
    enum hash_kind kind;

    (void)state;
    for (unsigned i = 0; i < HASH_KIND_COUNT; i++) {
        assert_true(hash_by_name(bytes_of_string(hash_name((enum hash_kind)i)), &kind));
        assert_int_equal(kind, i);
    }
    assert_false(hash_by_name(BYTES("fnv1a_6"), &kind));
    assert_false(hash_by_name(BYTES("FNV1A_64"), &kind));
    assert_false(hash_by_name(BYTES_EMPTY, &kind));
}

/* RFC 1321, appendix A.5; the lengths around the block's end are where padding goes wrong. */
static void test_md5_is_md5(void **state)
{
    static const struct {
        const char *text, *digest;
    } known[] = {
        {"", "d41d8cd98f00b204e9800998ecf8427e"},
        {"abc", "900150983cd24fb0d6963f7d28e17f72"},
        {"message digest", "f96b697d7cb7938d525a2f31aaf161d0"},
        {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
         "d174ab98d277d9f5a5611c2c9f419d9f"},
        {"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
         "57edf4a22be3c955ac49da2e2107b67a"},
        {"0123456789012345678901234567890123456789012345678901234",
         "6e7a4fc92eb1c3f6e652425bcc8d44b5"},
        {"01234567890123456789012345678901234567890123456789012345",
         "8af270b2847610e742b0791b53648c09"},
        {"0123456789012345678901234567890123456789012345678901234567890123",
         "7f7bfd348709deeaace19e3f535f8c54"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        uint8_t digest[HASH_MD5_SIZE];
        char hex[2 * HASH_MD5_SIZE + 1];

        hash_md5_digest(bytes_of_string(known[i].text), digest);
        for (size_t j = 0; j < HASH_MD5_SIZE; j++)
            snprintf(hex + 2 * j, 3, "%02x", digest[j]);
        assert_string_equal(hex, known[i].digest);
    }
}

/* From Redis Cluster's specification and from CLUSTER KEYSLOT. */
static void test_slots_are_redis_clusters(void **state)
{
    (void)state;
    assert_int_equal(hash_crc16_xmodem(BYTES("123456789")), 0x31c3);
    assert_int_equal(hash_crc16_xmodem(BYTES("\xff\x80\xfe\x01\x7f\x90 ")), 0x3fab);
    assert_int_equal(hash_slot(BYTES("foo")), 12182);
    assert_int_equal(hash_slot(BYTES("a")), 15495);
    assert_int_equal(hash_slot(BYTES_EMPTY), 0);
    assert_int_equal(hash_slot(BYTES("{user1000}.following")), hash_slot(BYTES("user1000")));
    assert_int_equal(hash_slot(BYTES("foo{}{bar}")),
                     hash_crc16_xmodem(BYTES("foo{}{bar}")) & 16383);
    assert_int_equal(hash_slot(BYTES("foo{{bar}}zap")), hash_slot(BYTES("{bar")));
    assert_int_equal(hash_slot(BYTES("foo{bar}{zap}")), hash_slot(BYTES("bar")));
}

static void assert_tag(const char *key, const char *tag, const char *part)
{
    struct bytes found = hash_tag_part(bytes_of_string(key), tag[0], tag[1]);

    assert_int_equal(found.len, strlen(part));
    assert_memory_equal(found.data, part, found.len);
}

static void test_tag_is_between_first_open_and_next_close(void **state)
{
    (void)state;
    assert_tag("{user}:a", "{}", "user");
    assert_tag("a{b}c{d}", "{}", "b");
    assert_tag("}a{b}", "{}", "b");
    assert_tag("a{}b", "{}", "a{}b");
    assert_tag("a{b", "{}", "a{b");
    assert_tag("a{", "{}", "a{");
    assert_tag("ab}", "{}", "ab}");
    assert_tag("x$tag$y", "$$", "tag");
    assert_tag("x$$y$", "$$", "x$$y$");
    assert_tag("", "{}", "");
}

static void test_fingerprint_tells_parts_and_seeds_apart(void **state)
{
    uint64_t ab_c = hash_fingerprint(hash_fingerprint(0, BYTES("ab")), BYTES("c"));
    uint64_t a_bc = hash_fingerprint(hash_fingerprint(0, BYTES("a")), BYTES("bc"));

    (void)state;
    assert_true(ab_c != a_bc);
    assert_true(hash_fingerprint(0, BYTES("a")) != hash_fingerprint(1, BYTES("a")));
    assert_true(hash_fingerprint(0, BYTES_EMPTY) != hash_fingerprint(0, BYTES("\0")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_hash_is_twemproxys),
        cmocka_unit_test(test_alignment_does_not_matter),
        cmocka_unit_test(test_names_go_both_ways),
        cmocka_unit_test(test_md5_is_md5),
        cmocka_unit_test(test_slots_are_redis_clusters),
        cmocka_unit_test(test_tag_is_between_first_open_and_next_close),
        cmocka_unit_test(test_fingerprint_tells_parts_and_seeds_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
