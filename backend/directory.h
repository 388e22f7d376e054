/* SPDX-License-Identifier: Apache-2.0 */
/*
 * directory.h - the node's directory: made if it is not there, and the random name that it has for ever.
 *
 * The log ring lies in shared memory, outside of the directory; the name leads from one to the other, wherever the
 * directory is moved to.
 */
#pragma once
#include "common/base/base.h"

#define DIRECTORY_NAME_SIZE 33u

/* In the master, before there is an io. A relative `dir` starts at `start_dir`. `user` NULL: it stays ours; else a
 * directory that is made here is given to that user, if we may. Writes the absolute path and the name; on an error a
 * text. */
MUST_USE int directory_open(const char *start_dir, const char *dir, const char *user, char *path, size_t path_size,
                            char name[DIRECTORY_NAME_SIZE], char *error, size_t error_size);

/* Makes the shards' folders in it, all of them before any has data; refuses (ERR_INVALID, a text) when there are shards
 * with data and not just so many. So a wrong `workers` changes nothing and adds nothing. */
MUST_USE int directory_shards(const char *path, uint32_t workers, const char *user, char *error, size_t error_size);

/* What the two would refuse of a `dir`, as far as it can be known without making anything. */
MUST_USE int directory_check(const char *dir, uint32_t workers, char *error, size_t error_size);

/* Bytes of the file system that it is on, used or not; 0: it does not say. */
uint64_t directory_file_system(const char *path);
