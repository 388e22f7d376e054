/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slowlog.h - the last slow commands, and how long commands take.
 */
#pragma once
#include "backend/cmd/engine.h"

MUST_USE int slow_log_create(struct slow_log **out);
void slow_log_destroy(struct slow_log **log);
/* After each command: enters it when it took as long as slowlog-log-slower-than says. */
void slow_log_note(struct engine *engine, const struct session *session, const struct bytes *argv,
                   uint32_t argc, uint64_t took_us);
