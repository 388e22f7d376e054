/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/check.h"
#include "proxy/conf.h"

#include <inttypes.h>
#include <stdio.h>

static void check_pool(const struct conf_pool *pool)
{
    struct ring *ring = NULL;

    if (conf_pool_ring(pool, NULL, &ring) == 0)
        printf("pool %s: ring %016" PRIx64 ", %s over %u servers\n", pool->name, ring_fingerprint(ring),
               ring_distribution_name(pool->distribution), pool->servers_count - pool->spares_count);
    else
        printf("pool %s: %s, its ring is found out from %u addresses\n", pool->name,
               conf_members_name(pool->members), pool->servers_count);
    ring_destroy(&ring);
}

int check_configuration(const char *path)
{
    struct conf *conf = NULL;
    struct conf_error error;

    if (conf_load(path, &conf, &error) != 0) {
        fprintf(stderr, "%s\n", error.text);
        fprintf(stderr, "weir-proxy: configuration file '%s' syntax is invalid\n", path);
        return 1;
    }
    for (uint32_t i = 0; i < conf->warnings_count; i++)
        fprintf(stderr, "warning: %s\n", conf->warnings[i].text);
    fprintf(stderr, "weir-proxy: configuration file '%s' syntax is ok\n", path);
    for (uint32_t i = 0; i < conf->pools_count; i++)
        check_pool(&conf->pools[i]);
    conf_destroy(&conf);
    return 0;
}
