/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/check.h"
#include "proxy/conf.h"
#include "proxy/control_client.h"
#include "proxy/control_path.h"

#include <inttypes.h>
#include <stdio.h>

#define ASK_TIMEOUT_MS 3000
#define MOVED_SAMPLES  200000u

/* What the running proxy has in force; NULL: none runs, or it cannot be asked. */
static struct conf *check_running(const struct conf *conf, int stats_port)
{
    const struct conf_address *stats = &conf->process.stats_listen;
    uint16_t port = stats_port >= 0 ? (uint16_t)stats_port
                    : stats->text != NULL ? stats->port
                                          : (uint16_t)CONTROL_STATS_PORT;
    struct buffer text = {0};
    struct conf *running = NULL;
    struct conf_error error;
    char path[CONTROL_PATH_MAX];
    bool is_found = true;

    if (conf->process.control == NULL)
        is_found = control_default_path(stats->text != NULL ? stats->host : NULL, port, path);
    else
        snprintf(path, sizeof(path), "%s", conf->process.control);
    if (is_found && control_ask(path, "config", ASK_TIMEOUT_MS, &text) == 0 &&
        conf_parse(path, buffer_bytes(&text), &running, &error) != 0)
        fprintf(stderr, "weir-proxy: the running proxy's configuration is not understood: %s\n", error.text);
    buffer_deinit(&text);
    return running;
}

static void check_moved(const struct conf_pool *pool, const struct conf *running)
{
    const struct conf_pool *before = conf_pool_by_name(running, bytes_of_string(pool->name));
    struct ring *old_ring = NULL, *new_ring = NULL;

    if (before == NULL) {
        printf("pool %s: is new to the running proxy\n", pool->name);
        return;
    }
    if (conf_pool_ring(before, NULL, &old_ring) == 0 && conf_pool_ring(pool, NULL, &new_ring) == 0) {
        if (ring_fingerprint(old_ring) == ring_fingerprint(new_ring))
            printf("pool %s: no key moves, the running proxy has the same ring\n", pool->name);
        else
            printf("pool %s: %.1f %% of the keys move against the running proxy\n", pool->name,
                   100 * ring_moved_share(old_ring, new_ring, MOVED_SAMPLES));
    }
    ring_destroy(&old_ring);
    ring_destroy(&new_ring);
}

static void check_against_running(const struct conf *conf, int stats_port)
{
    struct conf *running = check_running(conf, stats_port);

    if (running == NULL)
        return;
    for (uint32_t i = 0; i < conf->pools_count; i++)
        check_moved(&conf->pools[i], running);
    for (uint32_t i = 0; i < running->pools_count; i++)
        if (conf_pool_by_name(conf, bytes_of_string(running->pools[i].name)) == NULL)
            printf("pool %s: is gone, the running proxy has it\n", running->pools[i].name);
    conf_destroy(&running);
}

static void check_pool(const struct conf_pool *pool)
{
    struct ring *ring = NULL;

    if (conf_pool_ring(pool, NULL, &ring) == 0)
        printf("pool %s: ring %016" PRIx64 ", %s over %u servers\n", pool->name, ring_fingerprint(ring),
               ring_distribution_name(pool->distribution), pool->members == CONF_MEMBERS_sentinel ? pool->masters_count
                                                      : pool->servers_count - pool->spares_count);
    else
        printf("pool %s: %s, its ring is found out from %u addresses\n", pool->name,
               conf_members_name(pool->members), pool->servers_count);
    ring_destroy(&ring);
}

int check_configuration(const char *path, int stats_port)
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
    check_against_running(conf, stats_port);
    conf_destroy(&conf);
    return 0;
}
