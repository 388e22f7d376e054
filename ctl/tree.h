/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree.h - making a directory that is there as a whole, or not at all.
 *
 *     tree_begin("D")  D.part is made, and locked ── tree_dir, tree_take, tree_put ──> tree_end: flushed, renamed to D
 *                                                                          └─────────> tree_drop: removed
 *
 *   N1  D has its name only when everything in it, and every name, is durable.
 *   N2  Nothing is ever written over: every file is made new (O_EXCL), and D must not exist, or be empty. It is no link, as
 *       a directory cannot take the place of one.
 *   N3  What a killed one left behind (D.part, locked by nobody) the next one removes.
 *   N4  A file is either the very one of the source (a link), or a whole copy: never a link to something that is
 *       written to afterwards. Who may be linked is the caller's to know.
 */
#pragma once
#include "common/base/bytes.h"
#include "ctl/progress.h"

#define TREE_PATH_MAX 4096u
#define TREE_DIRS_MAX 129u

struct tree {
    char path[TREE_PATH_MAX], part[TREE_PATH_MAX];
    int fds[TREE_DIRS_MAX]; /* [0]: of the part itself, locked */
    unsigned count;
    struct progress *progress; /* borrows; NULL: none */
    uint64_t linked_bytes, copied_bytes;
    bool must_copy;            /* --copy, or a link was not possible */
};

/* Whether `path` is to be made inside of the directory `source`, whatever they are called: then ERR_INVALID, told. */
MUST_USE int tree_outside(const char *path, const char *source);
/* 0, or an error that was told on stderr. */
MUST_USE int tree_begin(struct tree *tree, const char *path);
/* A folder in it, with owner and mode of `like` (a descriptor). Its descriptor is the tree's; or an error, told. */
MUST_USE int tree_dir(struct tree *tree, const char *name, int like);
/* A file from the folder `from`: linked, unless tree->must_copy; then copied. -EXDEV: it cannot be linked, and
 * nothing was done; else an error, told. */
MUST_USE int tree_link(struct tree *tree, int from, const char *name, int to);
MUST_USE int tree_copy(struct tree *tree, int from, const char *name, int to);
/* tree_link(), or tree_copy() where that cannot be. */
MUST_USE int tree_take(struct tree *tree, int from, const char *name, int to);
/* A small file, or the beginning of a large one that has `size` bytes; owner and mode of `like`. */
MUST_USE int tree_put(struct tree *tree, int to, const char *name, struct bytes data, uint64_t size, int like);
MUST_USE int tree_end(struct tree *tree);
void tree_drop(struct tree *tree);

/* Removes a directory of files and of folders with files. Told. */
MUST_USE int tree_remove(const char *path);
