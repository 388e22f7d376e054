/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring_where - where a configuration file places keys, without a proxy: for test_placement.py.
 *
 *     ring_where FILE [POOL/SERVER]...
 *
 * Reads lines "POOL<tab>KEY in hexadecimal" and answers each with "ADDRESS<tab>NAME", or "-" where
 * nobody has the key. The servers named behind the file are taken for dead. Loading errors go to
 * standard error, exit code 1; so do warnings, which change nothing.
 */
#include "config.h"

#include "common/base/mem.h"
#include "proxy/conf.h"

#include <stdio.h>
#include <stdlib.h>

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes in place; false for what is not hexadecimal. */
static bool decode_hex(char *text, struct bytes *out)
{
    size_t len = 0;

    for (const char *p = text; *p != '\0' && *p != '\n'; p += 2) {
        int high = hex_value(p[0]), low = high < 0 ? -1 : hex_value(p[1]);

        if (low < 0)
            return false;
        text[len++] = (char)(high << 4 | low);
    }
    *out = bytes_of(text, len);
    return true;
}

static bool is_dead(const struct conf_pool *pool, const struct conf_server *server, char **dead,
                    int count)
{
    char name[600];

    snprintf(name, sizeof(name), "%s/%s", pool->name, server->name);
    for (int i = 0; i < count; i++) {
        if (strcmp(dead[i], name) == 0)
            return true;
    }
    return false;
}

static struct ring **make_rings(const struct conf *conf, char **dead, int dead_count)
{
    struct ring **rings = must_zalloc(conf->pools_count * sizeof(*rings));

    for (uint32_t i = 0; i < conf->pools_count; i++) {
        const struct conf_pool *pool = &conf->pools[i];
        bool *live = must_zalloc(pool->servers_count * sizeof(*live));

        for (uint32_t j = 0; j < pool->servers_count; j++)
            live[j] = !is_dead(pool, &pool->servers[j], dead, dead_count);
        if (conf_pool_ring(pool, live, &rings[i]) != 0)
            rings[i] = NULL;
        mem_free(live);
    }
    return rings;
}

static int answer(const struct conf *conf, struct ring *const *rings, char *line)
{
    char *hex = strchr(line, '\t');
    const struct conf_pool *pool;
    struct bytes key;
    uint32_t index;

    if (hex == NULL || !decode_hex(hex + 1, &key))
        return 1;
    pool = conf_pool_by_name(conf, bytes_of(line, (size_t)(hex - line)));
    if (pool == NULL || rings[pool - conf->pools] == NULL)
        return 1;
    index = ring_lookup(rings[pool - conf->pools], key, (uint32_t)random() << 1);
    if (index == RING_NONE)
        puts("-");
    else
        printf("%s\t%s\n", pool->servers[index].address.text, pool->servers[index].name);
    return 0;
}

int main(int argc, char **argv)
{
    static char line[1 << 17];
    struct conf *conf = NULL;
    struct conf_error error;
    struct ring **rings;
    int failed = 0;

    if (argc < 2) {
        fputs("usage: ring_where FILE [POOL/SERVER]...\n", stderr);
        return 2;
    }
    if (conf_load(argv[1], &conf, &error) != 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    for (uint32_t i = 0; i < conf->warnings_count; i++)
        fprintf(stderr, "%s\n", conf->warnings[i].text);
    rings = make_rings(conf, argv + 2, argc - 2);
    while (failed == 0 && fgets(line, sizeof(line), stdin) != NULL)
        failed = answer(conf, rings, line);
    for (uint32_t i = 0; i < conf->pools_count; i++)
        ring_destroy(&rings[i]);
    mem_free(rings);
    conf_destroy(&conf);
    return failed;
}
