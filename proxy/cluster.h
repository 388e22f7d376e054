/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster.h - what of cluster.c is tested by itself.
 */
#pragma once
#include "proxy/discovery.h"

/* "3999 127.0.0.1:6381", what follows MOVED and ASK. The host may be empty: the one that said it. */
MUST_USE bool cluster_parse_redirect(struct bytes text, uint32_t *slot, struct discovery_target *target);
