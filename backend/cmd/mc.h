/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mc.h - memcache's commands over the store: text, meta and binary, as memcached 1.6.18 answers them.
 *
 * They work on the database engine->options.memcache_db, which Redis's commands see as well. A key that
 * holds another type than a string is a miss for what reads, "there" for add, and set replaces it.
 */
#pragma once
#include "backend/cmd/cmd.h"
#include "common/proto/memcache.h"

/* After store and settings; stops its timer in destroy. */
MUST_USE int mc_create(struct engine *engine, struct mc **out);
void mc_destroy(struct mc **mc);

/* Any parsed request, also one with the status MC_REQ_ERROR (its line is the answer; an item that was too large
 * to be replaced goes away) or MC_REQ_SKIP. QUIT sets session->close_after_reply. */
enum cmd_result mc_text_execute(struct session *session, const struct mc_request *request);
/* A whole frame, also one with an error_status; pieces of a refused frame (is_skip) are not for here. */
enum cmd_result mc_binary_execute(struct session *session, const struct mc_bin_request *request);

/* What parsing should refuse: key and value limits as they are set. */
void mc_limits(const struct engine *engine, struct proto_limits *out);
