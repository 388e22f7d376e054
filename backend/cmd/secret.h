/* SPDX-License-Identifier: Apache-2.0 */
/*
 * secret.h - no password is shown to others.
 *
 *   S1  What shows a client's command to another (SLOWLOG, MONITOR) takes its words from here alone.
 *
 * By position, whether the command was right or not: a password that was misspelled is nobody's business either.
 */
#pragma once
#include "common/base/bytes.h"

/* Argument i as others may see it: itself, or "(redacted)". Lives as long as argv. */
struct bytes secret_shown(const struct bytes *argv, uint32_t argc, uint32_t i);
