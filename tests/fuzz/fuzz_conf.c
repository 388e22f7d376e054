/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration parser: any bytes give a configuration or an error with a text. What is
 * accepted makes rings, and its description reads back to the same description.
 */
#include "common/base/mem.h"
#include "proxy/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct text {
    char *data;
    size_t len, cap;
};

static void collect(void *arg, const char *data, size_t len)
{
    struct text *text = arg;

    if (len > 4 && memcmp(data, "  # ", 4) == 0)
        return; /* stands for a password, and does not read back */
    if (text->cap - text->len < len) {
        text->cap = 2 * text->cap + len;
        text->data = must_realloc(text->data, text->cap);
    }
    if (len > 0)
        memcpy(text->data + text->len, data, len);
    text->len += len;
}

static void try_rings(const struct conf *conf)
{
    for (uint32_t i = 0; i < conf->pools_count; i++) {
        struct ring *ring = NULL;
        int err = conf_pool_ring(&conf->pools[i], NULL, &ring);

        ASSERT(err == 0 || err == ERR_UNSUPPORTED);
        if (err == 0) {
            uint32_t index = ring_lookup(ring, BYTES("key:{1}"), 12345);

            ASSERT(index < ring_server_count(ring)); /* checked files leave no gaps */
        }
        ring_destroy(&ring);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf *conf = NULL, *again = NULL;
    struct conf_error error;
    struct text first = {0}, second = {0};

    if (conf_parse("fuzz.yml", bytes_of(data, size), &conf, &error) != 0) {
        ASSERT(conf == NULL);
        ASSERT(strncmp(error.text, "fuzz.yml:", 9) == 0);
        ASSERT(strchr(error.text, '\n') == NULL);
        return 0;
    }
    try_rings(conf);
    conf_describe(conf, collect, &first);
    if (first.len <= CONF_FILE_SIZE_MAX) {
        int err = conf_parse("again.yml", bytes_of(first.data, first.len), &again, &error);

        ASSERT(err == 0);
        conf_describe(again, collect, &second);
        ASSERT(bytes_equal(bytes_of(first.data, first.len), bytes_of(second.data, second.len)));
    }
    conf_destroy(&again);
    conf_destroy(&conf);
    mem_free(first.data);
    mem_free(second.data);
    return 0;
}
