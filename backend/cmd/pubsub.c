/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels, patterns and shard channels.
 *
 *     topic (channel, pattern, shard channel) ──list──> subscription <──list, map── session
 *
 *   P1  A topic exists as long as somebody is subscribed to it.
 *   P2  A message leaves when what its publisher had read and written by then is committed: nobody hears of a change
 *       that is undone later.
 *   P3  Pushing to a session never closes it at once (it is marked, and goes at the end of the turn), so lists may be walked meanwhile.
 */
#include "backend/cmd/pubsub.h"

#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/help.h"
#include "backend/cmd/keymap.h"
#include "backend/cmd/move.h"
#include "backend/cmd/secret.h"
#include "common/base/glob.h"
#include "common/base/mem.h"

#include <stdio.h>

enum kind { KIND_CHANNEL, KIND_PATTERN, KIND_SHARD, KIND_COUNT };

struct topic {
    struct keymap_node by_name;
    struct list_node of_kind;
    struct list subscribers;
    uint32_t count;
};

struct subscription {
    struct keymap_node by_name; /* of the session's map */
    struct list_node of_topic, of_session;
    struct topic *topic;
    struct session *session; /* borrows */
};

struct subscriptions {
    struct keymap map;
    struct list lists[KIND_COUNT];
    uint32_t counts[KIND_COUNT];
    size_t bytes; /* of the subscriptions, and of a topic for each */
    struct session *session; /* borrows */
    struct list_node of_monitors;
};

struct pubsub_table {
    struct keymap topics; /* by kind and name */
    struct list kinds[KIND_COUNT];
    uint32_t counts[KIND_COUNT];
    struct list monitors;
    uint64_t seed;
};

int pubsub_create(uint64_t seed, struct pubsub_table **out)
{
    struct pubsub_table *table = mem_zalloc(sizeof(*table));

    if (table == NULL)
        return ERR_FULL;
    keymap_init(&table->topics, seed);
    table->seed = seed;
    for (size_t i = 0; i < KIND_COUNT; i++)
        list_init(&table->kinds[i]);
    list_init(&table->monitors);
    *out = table;
    return 0;
}

void pubsub_destroy(struct pubsub_table **table)
{
    if (*table == NULL)
        return;
    keymap_deinit(&(*table)->topics);
    mem_free(*table);
    *table = NULL;
}

/* ---- subscriptions --------------------------------------------------------------------------- */

/* NULL: no memory. */
static struct subscriptions *subscriptions_get(struct session *session)
{
    struct subscriptions *s = session->subscriptions;

    if (s != NULL)
        return s;
    s = mem_zalloc(sizeof(*s));
    if (s == NULL)
        return NULL;
    keymap_init(&s->map, session->engine->pubsub->seed);
    for (size_t i = 0; i < KIND_COUNT; i++)
        list_init(&s->lists[i]);
    s->session = session;
    session->subscriptions = s;
    return s;
}

/* A session that is subscribed to nothing keeps nothing. */
static void subscriptions_put(struct session *session)
{
    struct subscriptions *s = session->subscriptions;

    if (s == NULL || s->map.count > 0 || list_node_is_linked(&s->of_monitors))
        return;
    keymap_deinit(&s->map);
    mem_free(s);
    session->subscriptions = NULL;
}

static struct topic *topic_get(struct pubsub_table *table, enum kind kind, struct bytes name)
{
    struct keymap_node *node = keymap_find(&table->topics, (uint8_t)kind, name);
    struct topic *topic;

    if (node != NULL)
        return CONTAINER_OF(node, struct topic, by_name);
    topic = mem_zalloc(sizeof(*topic));
    if (topic == NULL)
        return NULL;
    if (!keymap_insert(&table->topics, &topic->by_name, (uint8_t)kind, name)) {
        mem_free(topic);
        return NULL;
    }
    list_init(&topic->subscribers);
    list_push_back(&table->kinds[kind], &topic->of_kind);
    table->counts[kind]++;
    return topic;
}

static void topic_put(struct pubsub_table *table, struct topic *topic)
{
    if (topic->count > 0)
        return;
    table->counts[topic->by_name.db]--;
    list_remove(&topic->of_kind);
    keymap_remove(&table->topics, &topic->by_name);
    mem_free(topic);
}

/* The name is kept by the session's map and by the topic. */
static size_t subscription_bytes(struct bytes name)
{
    return sizeof(struct subscription) + sizeof(struct topic) + 2 * name.len;
}

/* False: no memory. */
static bool subscribe(struct session *session, enum kind kind, struct bytes name)
{
    struct pubsub_table *table = session->engine->pubsub;
    struct subscriptions *s = subscriptions_get(session);
    struct subscription *one;
    struct topic *topic;

    if (s == NULL)
        return false;
    if (keymap_find(&s->map, (uint8_t)kind, name) != NULL)
        return true;
    topic = topic_get(table, kind, name);
    one = topic == NULL ? NULL : mem_zalloc(sizeof(*one));
    if (one == NULL || !keymap_insert(&s->map, &one->by_name, (uint8_t)kind, name)) {
        mem_free(one);
        if (topic != NULL)
            topic_put(table, topic);
        subscriptions_put(session);
        return false;
    }
    one->topic = topic;
    one->session = session;
    list_push_back(&topic->subscribers, &one->of_topic);
    topic->count++;
    list_push_back(&s->lists[kind], &one->of_session);
    s->counts[kind]++;
    s->bytes += subscription_bytes(name);
    return true;
}

static void subscription_end(struct subscription *one)
{
    struct session *session = one->session;
    struct subscriptions *s = session->subscriptions;
    struct topic *topic = one->topic;

    s->counts[one->by_name.db]--;
    s->bytes -= subscription_bytes(one->by_name.name);
    list_remove(&one->of_session);
    list_remove(&one->of_topic);
    keymap_remove(&s->map, &one->by_name);
    mem_free(one);
    topic->count--;
    topic_put(session->engine->pubsub, topic);
}

void pubsub_session_clear(struct session *session)
{
    struct subscriptions *s = session->subscriptions;

    if (s == NULL)
        return;
    for (size_t i = 0; i < KIND_COUNT; i++)
        while (!list_is_empty(&s->lists[i]))
            subscription_end(LIST_FIRST(&s->lists[i], struct subscription, of_session));
    if (list_node_is_linked(&s->of_monitors))
        list_remove(&s->of_monitors);
    subscriptions_put(session);
}

struct pubsub_counts pubsub_counts_of(const struct session *session)
{
    const struct subscriptions *s = session->subscriptions;
    struct pubsub_counts counts = {0};

    if (s != NULL) {
        counts.channels = s->counts[KIND_CHANNEL];
        counts.patterns = s->counts[KIND_PATTERN];
        counts.shard_channels = s->counts[KIND_SHARD];
    }
    return counts;
}

size_t pubsub_bytes_of(const struct session *session)
{
    return session->subscriptions != NULL ? session->subscriptions->bytes : 0;
}

struct pubsub_counts pubsub_counts_all(const struct engine *engine)
{
    const uint32_t *counts = engine->pubsub->counts;

    return (struct pubsub_counts){counts[KIND_CHANNEL], counts[KIND_PATTERN], counts[KIND_SHARD]};
}

bool pubsub_is_subscribed(const struct session *session)
{
    return session->subscriptions != NULL && session->subscriptions->map.count > 0;
}

/* ---- the subscribing commands ---------------------------------------------------------------- */

/* SSUBSCRIBE counts shard channels, the others all else. */
static int64_t count_shown(const struct session *session, enum kind kind)
{
    const struct subscriptions *s = session->subscriptions;

    if (s == NULL)
        return 0;
    return kind == KIND_SHARD ? s->counts[KIND_SHARD]
                              : (int64_t)s->counts[KIND_CHANNEL] + s->counts[KIND_PATTERN];
}

/* `name` NULL: none. */
static void reply_change(struct session *session, const char *verb, enum kind kind, const struct bytes *name)
{
    reply_session_push(session, 3);
    reply_session_bulk(session, bytes_of_string(verb));
    if (name != NULL)
        reply_session_bulk(session, *name);
    else
        reply_session_null(session);
    reply_session_integer(session, count_shown(session, kind));
}

static void subscribe_all(struct cmd *c, const char *verb, enum kind kind)
{
    for (uint32_t i = 1; i < c->argc; i++) {
        if (!subscribe(c->session, kind, c->argv[i])) {
            cmd_out_of_memory(c);
            return;
        }
        reply_change(c->session, verb, kind, &c->argv[i]);
    }
}

/* The name is shown before it goes, and the count after. */
static void unsubscribe_one(struct cmd *c, const char *verb, enum kind kind, struct bytes name)
{
    struct subscriptions *s = c->session->subscriptions;
    struct keymap_node *node = s == NULL ? NULL : keymap_find(&s->map, (uint8_t)kind, name);

    reply_session_push(c->session, 3);
    reply_session_bulk(c->session, bytes_of_string(verb));
    reply_session_bulk(c->session, name);
    if (node != NULL)
        subscription_end(CONTAINER_OF(node, struct subscription, by_name));
    reply_session_integer(c->session, count_shown(c->session, kind));
}

static void unsubscribe_all(struct cmd *c, const char *verb, enum kind kind)
{
    struct subscriptions *s = c->session->subscriptions;

    for (uint32_t i = 1; i < c->argc; i++)
        unsubscribe_one(c, verb, kind, c->argv[i]);
    if (c->argc == 1) {
        if (s == NULL || list_is_empty(&s->lists[kind]))
            reply_change(c->session, verb, kind, NULL);
        while (s != NULL && !list_is_empty(&s->lists[kind]))
            unsubscribe_one(c, verb, kind,
                            LIST_FIRST(&s->lists[kind], struct subscription, of_session)->by_name.name);
    }
    subscriptions_put(c->session);
}

void cmd_subscribe(struct cmd *c)
{
    subscribe_all(c, "subscribe", KIND_CHANNEL);
}

void cmd_psubscribe(struct cmd *c)
{
    subscribe_all(c, "psubscribe", KIND_PATTERN);
}

void cmd_ssubscribe(struct cmd *c)
{
    if (c->in_exec)
        reply_error(c, "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
    else
        subscribe_all(c, "ssubscribe", KIND_SHARD);
}

void cmd_unsubscribe(struct cmd *c)
{
    unsubscribe_all(c, "unsubscribe", KIND_CHANNEL);
}

void cmd_punsubscribe(struct cmd *c)
{
    unsubscribe_all(c, "punsubscribe", KIND_PATTERN);
}

void cmd_sunsubscribe(struct cmd *c)
{
    unsubscribe_all(c, "sunsubscribe", KIND_SHARD);
}

/* ---- publishing ------------------------------------------------------------------------------ */

static uint64_t publish_topic(const struct topic *topic, struct bytes channel, struct bytes message,
                              uint64_t hold_lsn)
{
    enum kind kind = (enum kind)topic->by_name.db;

    LIST_FOR_EACH (&topic->subscribers, node) {
        struct session *session = CONTAINER_OF(node, struct subscription, of_topic)->session;

        session_hold(session, hold_lsn);
        reply_session_push(session, kind == KIND_PATTERN ? 4 : 3);
        reply_session_bulk(session, kind == KIND_PATTERN ? BYTES("pmessage")
                                    : kind == KIND_SHARD ? BYTES("smessage")
                                                         : BYTES("message"));
        if (kind == KIND_PATTERN)
            reply_session_bulk(session, topic->by_name.name);
        reply_session_bulk(session, channel);
        reply_session_bulk(session, message);
    }
    return topic->count;
}

uint64_t pubsub_publish(struct engine *engine, struct bytes channel, struct bytes message, bool is_shard,
                        uint64_t hold_lsn)
{
    struct pubsub_table *table = engine->pubsub;
    struct keymap_node *node = keymap_find(&table->topics, is_shard ? KIND_SHARD : KIND_CHANNEL, channel);
    uint64_t count = 0;

    if (node != NULL)
        count += publish_topic(CONTAINER_OF(node, struct topic, by_name), channel, message, hold_lsn);
    if (is_shard)
        return count;
    LIST_FOR_EACH (&table->kinds[KIND_PATTERN], pattern) {
        const struct topic *topic = CONTAINER_OF(pattern, struct topic, of_kind);

        if (glob_matches(topic->by_name.name, channel, false))
            count += publish_topic(topic, channel, message, hold_lsn);
    }
    return count;
}

void cmd_publish(struct cmd *c)
{
    reply_integer(c, (int64_t)pubsub_publish(c->engine, c->argv[1], c->argv[2], false, c->session->hold_lsn));
}

void cmd_spublish(struct cmd *c)
{
    reply_integer(c, (int64_t)pubsub_publish(c->engine, c->argv[1], c->argv[2], true, c->session->hold_lsn));
}

static void notify_publish(struct engine *engine, const char *prefix, uint8_t db, struct bytes name,
                           struct bytes message)
{
    struct buffer channel = {0};

    buffer_append_format(&channel, "__%s@%u__:", prefix, db);
    buffer_append(&channel, name.data, name.len);
    if (!channel.failed)
        pubsub_publish(engine, buffer_bytes(&channel), message, false, store_lsn(engine->store));
    buffer_deinit(&channel);
}

void pubsub_notify(struct engine *engine, enum notify_flag class, const char *event, struct bytes key, uint8_t db)
{
    uint32_t flags = engine->settings->notify;

    if (LIKELY((flags & (uint32_t)class) == 0))
        return;
    if (flags & NOTIFY_KEYSPACE)
        notify_publish(engine, "keyspace", db, key, bytes_of_string(event));
    if (flags & NOTIFY_KEYEVENT)
        notify_publish(engine, "keyevent", db, bytes_of_string(event), key);
}

/* ---- PUBSUB ---------------------------------------------------------------------------------- */

static void reply_topics(struct cmd *c, enum kind kind)
{
    uint64_t count = 0;

    if (c->argc > 3) {
        reply_subcommand_error(c);
        return;
    }
    reply_count_later(c);
    LIST_FOR_EACH (&c->engine->pubsub->kinds[kind], node) {
        const struct topic *topic = CONTAINER_OF(node, struct topic, of_kind);

        if (c->argc > 2 && !glob_matches(c->argv[2], topic->by_name.name, false))
            continue;
        reply_bulk(c, topic->by_name.name);
        count++;
    }
    reply_count_array(c, count);
}

static void reply_counts(struct cmd *c, enum kind kind)
{
    reply_array(c, (uint64_t)(c->argc - 2) * 2);
    for (uint32_t i = 2; i < c->argc; i++) {
        struct keymap_node *node = keymap_find(&c->engine->pubsub->topics, (uint8_t)kind, c->argv[i]);

        reply_bulk(c, c->argv[i]);
        reply_integer(c, node == NULL ? 0 : CONTAINER_OF(node, struct topic, by_name)->count);
    }
}

void cmd_pubsub_channels(struct cmd *c)
{
    reply_topics(c, KIND_CHANNEL);
}

void cmd_pubsub_shardchannels(struct cmd *c)
{
    reply_topics(c, KIND_SHARD);
}

void cmd_pubsub_numsub(struct cmd *c)
{
    reply_counts(c, KIND_CHANNEL);
}

void cmd_pubsub_shardnumsub(struct cmd *c)
{
    reply_counts(c, KIND_SHARD);
}

void cmd_pubsub_numpat(struct cmd *c)
{
    reply_integer(c, c->engine->pubsub->counts[KIND_PATTERN]);
}

void cmd_pubsub_help(struct cmd *c)
{
    static const char *const lines[] = {
        "CHANNELS [<pattern>]",
        "    Return the currently active channels matching a <pattern> (default: '*').",
        "NUMPAT",
        "    Return number of subscriptions to patterns.",
        "NUMSUB [<channel> ...]",
        "    Return the number of subscribers for the specified channels, excluding",
        "    pattern subscriptions(default: no channels).",
        "SHARDCHANNELS [<pattern>]",
        "    Return the currently active shard level channels matching a <pattern> (default: '*').",
        "SHARDNUMSUB [<shardchannel> ...]",
        "    Return the number of subscribers for the specified shard level channel(s)",
    };

    reply_help(c, "PUBSUB", lines, ARRAY_COUNT(lines));
}

/* ---- MONITOR --------------------------------------------------------------------------------- */

void cmd_monitor(struct cmd *c)
{
    struct subscriptions *s = subscriptions_get(c->session);

    if (s == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    if (!list_node_is_linked(&s->of_monitors))
        list_push_back(&c->engine->pubsub->monitors, &s->of_monitors);
    reply_ok(c);
}

bool pubsub_is_monitored(const struct engine *engine)
{
    return !list_is_empty(&engine->pubsub->monitors);
}

bool pubsub_is_monitor(const struct session *session)
{
    return session->subscriptions != NULL && list_node_is_linked(&session->subscriptions->of_monitors);
}

/* In quotes, with what does not print as Redis writes it. */
static void append_quoted(struct buffer *out, struct bytes word)
{
    static const char letters[] = "\n\r\t\a\b", names[] = "nrtab";

    buffer_append_string(out, "\"");
    for (size_t i = 0; i < word.len; i++) {
        unsigned char byte = (unsigned char)word.data[i];
        const char *letter = byte != 0 ? strchr(letters, byte) : NULL;

        if (byte == '"' || byte == '\\')
            buffer_append_format(out, "\\%c", byte);
        else if (letter != NULL)
            buffer_append_format(out, "\\%c", names[letter - letters]);
        else if (byte < ' ' || byte >= 0x7f)
            buffer_append_format(out, "\\x%02x", byte);
        else
            buffer_append(out, &byte, 1);
    }
    buffer_append_string(out, "\"");
}

void pubsub_monitor_feed(struct engine *engine, const struct session *session, const struct bytes *argv,
                         uint32_t argc)
{
    uint64_t now_us = io_wall_us(engine->io);
    struct buffer line = {0};

    buffer_append_format(&line, "+%llu.%06llu [%u %s%s]", (unsigned long long)(now_us / 1000000),
                         (unsigned long long)(now_us % 1000000), session->db,
                         session->peer[0] == '/' ? "unix:" : "", session->peer);
    for (uint32_t i = 0; i < argc; i++) {
        buffer_append_string(&line, " ");
        append_quoted(&line, secret_shown(argv, argc, i));
    }
    buffer_append_string(&line, "\r\n");
    LIST_FOR_EACH (&engine->pubsub->monitors, node) {
        struct session *monitor = CONTAINER_OF(node, struct subscriptions, of_monitors)->session;

        if (line.failed)
            break;
        reply_raw(monitor, buffer_bytes(&line));
        monitor->io->dirty(monitor);
    }
    buffer_deinit(&line);
}

void pubsub_pack(const struct session *session, struct buffer *out)
{
    static const char *const verbs[KIND_COUNT] = {
        [KIND_CHANNEL] = "SUBSCRIBE", [KIND_PATTERN] = "PSUBSCRIBE", [KIND_SHARD] = "SSUBSCRIBE"};
    struct subscriptions *s = session->subscriptions;

    for (size_t kind = 0; s != NULL && kind < KIND_COUNT; kind++) {
        LIST_FOR_EACH(&s->lists[kind], at)
        {
            const struct subscription *subscription = CONTAINER_OF(at, struct subscription, of_session);

            move_put(out, (struct bytes[]){bytes_of_string(verbs[kind]), subscription->topic->by_name.name}, 2);
        }
    }
}
