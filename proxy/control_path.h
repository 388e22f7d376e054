/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_path.h - where the control socket is when nobody says so: in a directory that only its owner can
 * enter, named by where the stats are.
 *
 *     root: /run/weir   else: $XDG_RUNTIME_DIR/weir, or /tmp/weir-UID
 *     weir-proxy-PORT.sock, or weir-proxy-HOST-PORT.sock for another host than 127.0.0.1 or all of them
 */
#pragma once
#include "common/base/base.h"

#define CONTROL_PATH_MAX 104u /* what a unix socket's address takes, on any system */
#define CONTROL_STATS_PORT 22222u

/* False: too long. `stats_host` may be NULL: the default one. */
MUST_USE bool control_directory(char out[CONTROL_PATH_MAX]);
MUST_USE bool control_default_path(const char *stats_host, uint16_t stats_port, char out[CONTROL_PATH_MAX]);
/* Makes the directory, 0700; false: it cannot be, or it is somebody else's. */
MUST_USE bool control_directory_make(void);
