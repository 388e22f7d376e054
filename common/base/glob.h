/* SPDX-License-Identifier: Apache-2.0 */
/*
 * glob.h - Redis's patterns: * ? [abc] [^a-z] and \ before a character to be taken as it is.
 *
 * Answers as Redis's stringmatchlen() does, odd patterns included ("[a" without its end is a class, a
 * backslash at the end is itself), but its time is bounded by pattern length times text length: a
 * pattern full of stars costs no more.
 */
#pragma once
#include "common/base/bytes.h"

bool glob_matches(struct bytes pattern, struct bytes text, bool ignore_case);
