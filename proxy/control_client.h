/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_client.h - asks a running proxy over its control socket: for weirctl and `weir-proxy -t`, which have no
 * loop. Blocks, for a bounded time.
 */
#pragma once
#include "common/base/buffer.h"
#include "common/base/err.h"

#define CONTROL_ANSWER_MAX (256u << 20)

/* Sends one line; appends the answer, without its "ok" or "error: ", to `out`.
 *   0            it said ok
 *   ERR_INVALID  it said error: the reason is in `out`
 *   ERR_EOF      it closed without a word
 *   ERR_TIMEOUT, ERR_FULL, -errno of connecting (ENOENT, ECONNREFUSED: nobody listens) or of reading */
MUST_USE int control_ask(const char *path, const char *line, int timeout_ms, struct buffer *out);
