/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pubsub.h - channels, patterns, shard channels, keyspace notifications, MONITOR.
 */
#pragma once
#include "backend/cmd/settings.h"
#include "backend/cmd/engine.h"

MUST_USE int pubsub_create(uint64_t seed, struct pubsub_table **out);
void pubsub_destroy(struct pubsub_table **table); /* no session is subscribed */

/* All of a session's subscriptions, MONITOR too, without a word: RESET, and the end. */
void pubsub_session_clear(struct session *session);
/* Whether only (P|S)SUBSCRIBE, (P|S)UNSUBSCRIBE, PING, QUIT and RESET are allowed with RESP2. */
bool pubsub_is_subscribed(const struct session *session);
/* For CLIENT LIST's sub, psub, ssub. */
struct pubsub_counts {
    uint32_t channels, patterns, shard_channels;
};
struct pubsub_counts pubsub_counts_of(const struct session *session);
/* Memory of its subscriptions. */
size_t pubsub_bytes_of(const struct session *session);
/* Topics of the shard. */
struct pubsub_counts pubsub_counts_all(const struct engine *engine);

/* Returns how many got it. It leaves when hold_lsn is committed. */
uint64_t pubsub_publish(struct engine *engine, struct bytes channel, struct bytes message, bool is_shard,
                        uint64_t hold_lsn);
/* As notify-keyspace-events says; cheap when it says nothing. `event` is Redis's: "set", "expired" ... */
void pubsub_notify(struct engine *engine, enum notify_flag class, const char *event, struct bytes key,
                   uint8_t db);

bool pubsub_is_monitored(const struct engine *engine);
/* One command as MONITOR shows it; call it before execution, if pubsub_is_monitored(). */
void pubsub_monitor_feed(struct engine *engine, const struct session *session, const struct bytes *argv,
                         uint32_t argc);
bool pubsub_is_monitor(const struct session *session);
