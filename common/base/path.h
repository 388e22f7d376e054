/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path.h - what a path says of itself; the disk is not asked.
 */
#pragma once
#include "common/base/bytes.h"

/* Without the '/' that may stand behind a folder's name; the root's own stays. A view into it. */
struct bytes path_trimmed(struct bytes path);

/* The folder that what `path` names is in, "." where it says none, as a string in `out`. Behind the last '/' is the name:
 * a folder's path is trimmed first. -ENAMETOOLONG. */
MUST_USE int path_parent(struct bytes path, char *out, size_t size);
