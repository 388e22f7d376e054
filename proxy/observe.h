/* SPDX-License-Identifier: Apache-2.0 */
/*
 * observe.h - what is measured of a request when its reply is complete.
 */
#pragma once
#include "proxy/proxy_private.h"

/* `part`: the last piece of the reply. Called once a reply that somebody waits for. */
static inline void observe_reply(struct upstream *upstream, const struct request *request,
                                 struct bytes part)
{
    MAYBE(upstream);
    MAYBE(request);
    MAYBE(part.len);
}
