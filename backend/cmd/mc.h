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

/* A request whose status is MC_REQ_OK. Refused ones the connection answers itself with `error`. QUIT sets
 * session->close_after_reply. */
enum cmd_result mc_text_execute(struct session *session, const struct mc_request *request);
/* A whole frame, also one with an error_status; pieces of a refused frame (is_skip) are not for here. */
enum cmd_result mc_binary_execute(struct session *session, const struct mc_bin_request *request);

/* What parsing should refuse: key and value limits as they are set. */
void mc_limits(const struct engine *engine, struct proto_limits *out);
