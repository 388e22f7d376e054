/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.h - what fallible functions return: 0, or one of these, all negative.
 *
 * A negative errno is one too (-ECONNREFUSED): the operating system's codes are mapped in as they
 * are, ours start below them.
 */
#pragma once
#include "common/base/base.h"
#include <errno.h>

enum err {
    ERR_FULL = -1000,  /* no room; the caller sheds or waits */
    ERR_NOT_FOUND = -1001,
    ERR_EXISTS = -1002,
    ERR_INVALID = -1003, /* the caller's input is wrong */
    ERR_CORRUPT = -1004, /* stored bytes do not verify */
    ERR_EOF = -1005,     /* the peer closed in order */
    ERR_CANCELED = -1006,
    ERR_AGAIN = -1007, /* nothing was done; try later */
    ERR_TIMEOUT = -1008,
    ERR_UNSUPPORTED = -1009,
};

/* A static text; never NULL. */
const char *err_text(int err);
